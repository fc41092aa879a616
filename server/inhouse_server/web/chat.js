// The chat: questions, streamed answers with what they rest on, two models side by side, verdicts.
import { draw, make } from './markdown.js'
import { ask, askAbout, events } from './owner.js'
import { chooseRepository } from './repositories.js'
import { look, short, showStatus } from './status.js'

const $ = (id) => document.getElementById(id)
const sides = [...document.querySelectorAll('.side')]
const turns = [] // { question, answers: [text, …] }, one text for each side: what later questions build on.
let running = null // The AbortController of the answers under way.

$('composer').addEventListener('submit', (event) => {
  event.preventDefault()
  const question = $('question').value.trim()
  if (!question || running) return
  $('question').value = ''
  answer(question)
})
$('question').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  $('composer').requestSubmit()
})
document.addEventListener('keydown', (event) => event.key === 'Escape' && running?.abort())
$('stop').addEventListener('click', () => running?.abort())
$('new-chat').addEventListener('click', newChat)
$('compare').addEventListener('change', () => { $('other-side').hidden = !$('compare').checked })
$('show-status').addEventListener('click', () => {
  $('status').hidden = !$('status').hidden
  $('show-status').setAttribute('aria-expanded', String(!$('status').hidden))
  refresh()
})

function newChat() {
  running?.abort()
  turns.length = 0
  $('chat').replaceChildren($('welcome'))
  $('welcome').hidden = false
  $('spoken').replaceChildren()
  $('question').focus()
}

async function begin() {
  try {
    await chooseRepository($('repository'), (name) => {
      askAbout(name)
      newChat() // What was said about one is not told to another.
      refresh()
    })
  } catch (error) {
    showFailure(error)
  }
}

async function refresh() {
  const about = $('repository').value
  try {
    const found = await look()
    if ($('repository').value !== about) return // Another one was chosen meanwhile, which is asked by itself.
    showStatus($('status'), found)
    $('where').textContent = found.status.root?.split('/').at(-1) ?? ''
    $('administrate').hidden = !found.status.root // which only who may administrate is told
    nameModels(found)
  } catch (error) {
    showFailure(error)
  }
}

function showFailure({ message }) {
  $('status').replaceChildren(make('p', message, 'state failed'))
  $('where').textContent = message
}

function nameModels({ status, adapters }) {
  const names = [['current', `current adapter (${status.adapter ?? 'none yet'})`], ['base', status.base_model]]
  names.push(...adapters.map(({ version }) => [version, version]))
  for (const side of sides) {
    const select = side.querySelector('.model'), chosen = select.value
    select.replaceChildren(...names.map(([value, name]) => new Option(name, value, false, value === chosen)))
  }
}

async function answer(question) {
  running = new AbortController()
  const { signal } = running
  showRunning()
  $('welcome').hidden = true
  $('spoken').replaceChildren()
  const asked = sides.filter((side) => !side.hidden).map((side, at) => {
    const model = side.querySelector('.model'), retrieve = side.querySelector('.retrieve').value === 'yes'
    const box = make('section', '', 'answer')
    const name = `${model.selectedOptions[0].text}, ${retrieve ? 'with' : 'without'} retrieval`
    box.append(make('h3', name), make('p', 'Waiting …', 'state'))
    return { at, box, adapter: model.value, retrieve }
  })
  const article = make('article'), answers = make('div', '', 'answers')
  answers.append(...asked.map(({ box }) => box))
  article.append(make('h2', question), answers)
  $('chat').append(article)
  article.scrollIntoView({ block: 'start' })
  const texts = []
  // One after the other: the engine is serial, so each streams at full speed.
  for (const side of asked) texts.push(await answerOf(side, question, signal))
  if (texts.some(Boolean) && article.isConnected) turns.push({ question, answers: texts })
  running = null
  showRunning()
  refresh()
}

function showRunning() {
  $('send').hidden = Boolean(running)
  $('stop').hidden = !running
}

/** Stream one answer into `side.box`; its text, or '' when there is nothing to build on. */
async function answerOf({ at, adapter, retrieve, box }, question, signal) {
  const text = make('div', '', 'text')
  const state = box.querySelector('.state')
  box.insertBefore(text, state)
  box.classList.add('busy')
  const speak = speaker()
  let said = ''
  let drawing = 0
  const show = () => {
    drawing = 0
    const chat = $('chat')
    const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 60
    draw(text, said)
    speak(said)
    if (atEnd) chat.scrollTop = chat.scrollHeight
  }
  try {
    signal.throwIfAborted()
    state.textContent = 'Searching and reading …'
    const history = turns.flatMap((turn) => {
      const before = turn.answers[at] || turn.answers[0]
      return before ? [{ role: 'user', content: turn.question }, { role: 'assistant', content: before }] : []
    })
    const body = { question, adapter, retrieve, history, passages: true }
    let finished = null
    for await (const [name, data] of events('/inhouse/ask', body, signal)) {
      if (name === 'delta') {
        state.hidden = true
        said += data.text
        drawing ||= requestAnimationFrame(show)
      } else if (name === 'error') throw new Error(`${data.problem} ${data.remedy}`)
      else finished = data
    }
    if (!finished) throw new Error('The owner process ended before the answer did. Ask again.')
    cancelAnimationFrame(drawing)
    show()
    rest(box, finished, question)
  } catch (error) {
    cancelAnimationFrame(drawing)
    show()
    const stopped = error.name === 'AbortError'
    state.hidden = false
    state.textContent = stopped ? 'Stopped.' : error.message
    state.classList.toggle('failed', !stopped)
    speak(`${said}\n${state.textContent}`, true)
    return stopped ? said : ''
  } finally {
    box.classList.remove('busy')
  }
  speak(`${said}\n`, true)
  return said
}

/** Reads a growing text to screen readers, each sentence once: a region that is drawn anew would be read anew. */
function speaker() {
  let read = 0
  return (text, ended = false) => {
    const until = ended ? text.length : 1 + Math.max(text.lastIndexOf('\n'), text.lastIndexOf('. '))
    if (until > read) $('spoken').append(make('p', text.slice(read, until).replace(/^ *(```|~~~).*$/gm, '')))
    read = Math.max(read, until)
  }
}

/** What stands below a finished answer: notes, passages, provenance, the verdict. */
function rest(box, { notes, passages, provenance }, question) {
  if (notes.length) box.append(make('p', notes.join(' '), 'notes'))
  if (passages.length) {
    const list = make('details', '', 'passages')
    list.append(make('summary', `${passages.length} passage${passages.length > 1 ? 's' : ''} of the repository`))
    list.append(...passages.map(passageOf))
    box.append(list)
  }
  const { base_model: base, adapter, index_commit: commit, pending } = provenance
  const index = commit ? `index at ${short(commit)}, ${pending} changed files pending` : 'no retrieval'
  const model = `${base} with ${adapter ? `adapter ${adapter}` : 'no adapter'}`
  box.append(make('p', `Answered by ${model}, ${index}.`, 'provenance'))
  box.append(verdictOf(question, provenance))
}

function passageOf({ path, start_line: start, end_line: end, legs, changes, updated, newer_code: newer, text }) {
  const passage = make('details')
  const summary = make('summary')
  summary.append(make('code', `${path}:${start}-${end}`))
  const why = make('div', `Found by: ${legs.join(', ')}`, 'why')
  why.append(...changes.map((change) => make('div', `Past change: ${change}`)))
  if (newer) why.append(make('div', `Last changed ${updated}; ${newer}, which it describes, is newer.`))
  const lines = make('pre', text)
  lines.tabIndex = 0
  passage.append(summary, why, lines)
  return passage
}

function verdictOf(question, provenance) {
  const form = make('form', '', 'verdict')
  const note = make('input')
  const keep = make('button', 'Keep')
  note.placeholder = 'Why? (optional)'
  note.setAttribute('aria-label', 'Why? Optional')
  note.maxLength = 2000
  note.hidden = keep.hidden = true
  let verdict = ''
  const choices = ['useful', 'not useful'].map((name) => {
    const button = make('button', name[0].toUpperCase() + name.slice(1))
    button.type = 'button'
    button.setAttribute('aria-pressed', 'false')
    button.addEventListener('click', () => {
      verdict = name
      choices.forEach((each) => each.setAttribute('aria-pressed', String(each === button)))
      note.hidden = keep.hidden = false
      note.focus()
    })
    return button
  })
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    try {
      await ask('/inhouse/feedback', { question: question.slice(0, 8000), provenance, verdict, note: note.value })
      form.replaceChildren(make('span', `Kept as ${verdict}, on this machine.`, 'why'))
    } catch (error) {
      form.append(make('span', error.message, 'state failed'))
    }
  })
  form.append(...choices, note, keep)
  return form
}

begin()
