/** The script of the chat view: shows what the extension tells it, and tells it what the user does. */
import type { FromView, ToView, Turn } from '../src/conversation'
import { render } from './markdown'

const host = acquireVsCodeApi()
const conversation = byId('conversation')
const form = byId<HTMLFormElement>('form')
const input = byId<HTMLTextAreaElement>('question')
const send = byId<HTMLButtonElement>('send')
let turns: Turn[] = []
let drawing = 0

window.addEventListener('message', ({ data }: MessageEvent<ToView>) => {
  const stays = atEnd()
  if (data.kind === 'conversation') {
    cancelAnimationFrame(drawing)
    drawing = 0
    turns = data.turns
    conversation.replaceChildren(...turns.map(turnElement))
  } else if (data.kind === 'turn') {
    turns[data.index] = data.turn
    show(data.index)
  } else if (data.kind === 'text') {
    const turn = turns[data.index]
    if (!turn) return // The whole conversation is on its way: the view was not ready.
    turn.text += data.text
    // Deltas come faster than they need to be drawn.
    drawing ||= requestAnimationFrame(() => {
      drawing = 0
      const followed = atEnd()
      answerOf(data.index).innerHTML = render(turn.text)
      if (followed) toEnd()
    })
  } else {
    input.focus()
  }
  document.body.classList.toggle('empty', turns.length === 0)
  const answering = turns.some((turn) => turn.state === 'answering')
  send.textContent = answering ? 'Stop' : 'Ask'
  conversation.setAttribute('aria-busy', String(answering))
  if (stays) toEnd()
})

form.addEventListener('submit', (event) => {
  event.preventDefault()
  if (turns.some((turn) => turn.state === 'answering')) return tell({ kind: 'cancel' })
  const question = input.value.trim()
  if (question === '') return
  tell({ kind: 'ask', question })
  input.value = ''
  toEnd()
})
input.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  // Enter asks; only the button and Escape stop an answer.
  if (!turns.some((turn) => turn.state === 'answering')) form.requestSubmit()
})
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') tell({ kind: 'cancel' })
})
tell({ kind: 'ready' })

function show(index: number): void {
  cancelAnimationFrame(drawing)
  drawing = 0
  const element = turnElement(turns[index]!, index)
  const before = conversation.children[index]
  if (before) before.replaceWith(element)
  else conversation.append(element)
}

function turnElement(turn: Turn, index: number): HTMLElement {
  const element = make('article', turn.state)
  element.append(make('h2', 'question', turn.question))
  if (turn.place) element.append(make('p', 'place', turn.place))
  const answer = make('div', 'answer')
  answer.innerHTML = render(turn.text)
  element.append(answer)
  if (turn.stage && turn.text === '') element.append(make('p', 'stage', turn.stage))
  if (turn.problem) element.append(make('p', 'problem', turn.problem))
  if (turn.sources.length > 0) {
    const list = make('ol', 'sources')
    list.setAttribute('aria-label', 'Sources')
    turn.sources.forEach((source, number) => {
      const button = make('button', 'source', source.label)
      button.addEventListener('click', () => tell({ kind: 'open', turn: index, source: number }))
      const item = make('li')
      item.append(button)
      list.append(item)
    })
    element.append(list)
  }
  element.append(...turn.notes.map((note) => make('p', 'note', note)))
  if (turn.provenance) element.append(make('p', 'provenance', turn.provenance))
  return element
}

function answerOf(index: number): HTMLElement {
  const element = conversation.children[index]!
  element.querySelector('.stage')?.remove()
  return element.querySelector<HTMLElement>('.answer')!
}

function make(tag: string, className = '', text = ''): HTMLElement {
  const element = document.createElement(tag)
  element.className = className
  element.textContent = text
  return element
}

function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T
}

function atEnd(): boolean {
  return conversation.scrollHeight - conversation.scrollTop - conversation.clientHeight < 8
}

function toEnd(): void {
  conversation.scrollTop = conversation.scrollHeight
}

function tell(message: FromView): void {
  host.postMessage(message)
}
