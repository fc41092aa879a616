/** What the language server says beyond the standard protocol: inhouse/ask and inhouse/status. */
import type { Location, Range } from 'vscode-languageclient/node'

export interface Message {
  role: 'user' | 'assistant'
  content: string
}

export interface Question {
  question: string
  /** The marked code, when the question is about some. */
  textDocument?: { uri: string }
  range?: Range
}

export interface Provenance {
  base_model: string
  /** `null` for the base model. */
  adapter: string | null
  /** `null` when nothing was retrieved. */
  index_commit: string | null
  /** Changed files that the index does not hold yet. */
  pending: number
}

export interface Answer {
  /** Empty when the text was streamed. */
  answer: string
  citations: Location[]
  notes: string[]
  reason: string
  provenance: Provenance
  /** One sentence that says which model, adapter and commit produced it. */
  provenance_line: string
}

export interface Status extends Provenance {
  files: number
  chunks: number
  model_loaded: boolean
}
