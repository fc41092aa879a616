/** A conversation as the chat view shows it and as a follow-up question repeats it. Nothing here knows VS Code. */
import type { Message } from './protocol'

export interface Source {
  label: string
  uri: string
  /** 0-based, the last one excluded. */
  startLine: number
  endLine: number
}

export interface Turn {
  question: string
  /** Where the marked code is, such as `src/prices.py:3-9`. */
  place?: string
  text: string
  state: 'answering' | 'answered' | 'stopped' | 'failed'
  /** What the server does before the first word. */
  stage?: string
  problem?: string
  sources: Source[]
  notes: string[]
  provenance?: string
}

/** What the extension tells the view. */
export type ToView =
  | { kind: 'conversation'; turns: Turn[] }
  | { kind: 'turn'; index: number; turn: Turn }
  | { kind: 'text'; index: number; text: string }
  | { kind: 'focus' }

/** What the view tells the extension. */
export type FromView =
  | { kind: 'ready' }
  | { kind: 'ask'; question: string }
  | { kind: 'cancel' }
  | { kind: 'open'; turn: number; source: number }

export function newTurn(question: string, place?: string): Turn {
  return { question, place, text: '', state: 'answering', sources: [], notes: [] }
}

/** The turns that have an answer, oldest first, as the server takes them. */
export function historyOf(turns: readonly Turn[]): Message[] {
  return turns
    .filter((turn) => turn.text !== '' && turn.state !== 'answering')
    .flatMap((turn): Message[] => [
      { role: 'user', content: turn.question },
      { role: 'assistant', content: turn.text },
    ])
}

/** `path:3-9` for the lines from `start` to before `end`, 0-based. */
export function placeLabel(path: string, start: number, end: number): string {
  return end - start > 1 ? `${path}:${start + 1}-${end}` : `${path}:${start + 1}`
}

export function pendingFiles(count: number): string {
  return `${count} changed ${count === 1 ? 'file' : 'files'} not indexed yet`
}
