// The admin page: what is served, what was trained and how it scored, promotion and rollback, retrainings, usage.
import { make } from './markdown.js'
import { ask, askAbout } from './owner.js'
import { bars, interval } from './plots.js'
import { chooseRepository } from './repositories.js'
import { day, factsOf, short, signed } from './status.js'

const $ = (id) => document.getElementById(id)
const BASE = 'base'
const MINUTE = 60_000
let about = '' // The repository, where there are several.
let shown = null // What the tables show.
let todo = null // What the dialog asks about: { route, body }.

$('rollback').addEventListener('click', () => decide({
  title: 'Roll back?',
  text: `${named(shown.status.adapter)} stops to be current, and what was current before answers again.`,
  route: '/inhouse/rollback', body: {}, verb: 'Roll back',
}))
$('cancel').addEventListener('click', () => $('confirm').close())
$('confirm-form').addEventListener('submit', carryOut)

async function begin() {
  try {
    await chooseRepository($('repository'), (name) => {
      about = name
      askAbout(name)
      refresh()
    })
  } catch (error) {
    say(error.message, true)
    return
  }
  // Not by the clock: it reads the audit log, and the current adapter's files to see that they are sound.
  document.addEventListener('visibilitychange', () => document.hidden || refresh())
}

async function refresh() {
  const wanted = about
  try {
    const [told, usage] = await Promise.all([ask('/inhouse/admin'), ask('/inhouse/usage')])
    if (wanted !== about) return // Another one was chosen meanwhile, which is asked by itself.
    shown = told
    $('where').textContent = told.status.root.split('/').at(-1)
    showFacts(told)
    showAdapters(told)
    showPlots(told)
    showRetrainings(told)
    showHistory(told)
    showUsage(usage)
    say(told.damaged.join(' '), true)
  } catch (error) {
    say(error.message, true)
  }
}

function say(text, failed = false) {
  $('said').textContent = text
  $('said').classList.toggle('failed', failed)
}

const named = (version) => version ?? 'The base model'

function showFacts({ status }) {
  const facts = make('dl')
  const more = [
    ['Retrains now', status.retraining ? `process ${status.retraining}` : 'no'],
    ...(status.servers ?? []).map((server) => [`Model server ${server.url}`, serverOf(server)]),
    ...(status.waiting ? [['Waits for all model servers', status.waiting]] : []),
  ]
  for (const [name, value] of [...factsOf(status), ...more]) facts.append(make('dt', name), make('dd', value))
  $('facts').replaceChildren(facts)
}

function serverOf({ up, answering, problem, failed }) {
  const refused = failed.length ? `; refused ${failed.join(', ')}` : ''
  return `${up ? `up, ${answering} answers under way` : `down: ${problem}`}${refused}`
}

function showAdapters({ adapters, base, status }) {
  const gains = adapters.map(({ metrics }) => metrics.gain?.over_base).filter(Boolean)
  const scale = [Math.min(0, ...gains.map((gain) => gain.low)), Math.max(0.1, ...gains.map((gain) => gain.high))]
  const rows = adapters.toReversed().map((adapter) => {
    const gain = adapter.metrics.gain?.over_base
    const version = make('div')
    version.append(make('strong', adapter.version), adapter.current ? ' (current)' : '')
    const origin = `${day(adapter.created)} UTC, ${adapter.recipe ?? 'unknown recipe'}, snapshot ${short(adapter.snapshot)}`
    version.append(make('div', origin, 'why'))
    return row([
      ['', version],
      ['Gain', gain ? withFigures(gain, scale) : 'not evaluated'],
      ['Gate', gateOf(adapter)],
      ['Verdicts', verdictsOf(adapter.verdicts)],
      ['', promoteButton(adapter, base.base_model)],
    ], adapter.current)
  })
  const alone = make('div')
  alone.append(make('strong', base.base_model), status.adapter ? '' : ' (current)', make('div', 'no adapter', 'why'))
  const button = promoteButton({ version: BASE, current: !status.adapter, evaluated: true, base_model: base.base_model },
    base.base_model)
  rows.push(row([['', alone], ['', ''], ['', ''], ['Verdicts', verdictsOf(base.verdicts)], ['', button]], !status.adapter))
  table($('adapters'), ['Version', 'Gain', 'Gate', 'Verdicts', ''], rows)
  $('rollback').hidden = shown.history.length === 0
}

function withFigures(gain, scale) {
  const figures = `${signed(gain.mean)} (${signed(gain.low)} to ${signed(gain.high)})`
  const cell = make('div')
  cell.append(interval(gain, scale, figures), make('span', figures))
  return cell
}

function gateOf({ metrics, version, files }) {
  const reasons = metrics.gate ?? []
  const cell = make('div')
  if (reasons.length) {
    const list = make('details')
    list.append(make('summary', `${reasons.length} reason${reasons.length > 1 ? 's' : ''}`))
    list.append(...reasons.map((reason) => make('div', reason, 'why')))
    cell.append(list)
  }
  if (files.includes('report.html')) {
    const link = make('a', 'Report')
    link.href = fileOf(version, 'report.html')
    link.target = '_blank'
    cell.append(link)
  }
  return cell
}

function fileOf(version, name) {
  const query = about ? `?repository=${encodeURIComponent(about)}` : ''
  return `/inhouse/adapters/${encodeURIComponent(version)}/${name}${query}`
}

function verdictsOf(verdicts) {
  const { useful = 0, 'not useful': not = 0 } = verdicts
  return useful + not ? `${useful} useful, ${not} not` : 'none'
}

function promoteButton({ version, current, evaluated, base_model: madeFor }, base) {
  if (current) return ''
  const button = make('button', 'Promote')
  const what = version === BASE ? base : version
  button.setAttribute('aria-label', `Promote ${what}`)
  if (madeFor !== base) {
    button.disabled = true
    button.title = `It was made for ${madeFor}, and ${base} is served here.`
  }
  button.addEventListener('click', () => decide({
    title: `Make ${what} current?`,
    text: `The next answers come from it, for everybody.${evaluated ? '' : ' It was never evaluated: nothing says whether it is better.'}`,
    route: '/inhouse/promote', body: { version }, verb: 'Promote',
  }))
  return button
}

function decide({ title, text, route, body, verb }) {
  $('confirm-title').textContent = title
  $('confirm-text').textContent = text
  $('confirm-do').textContent = verb
  $('confirm-failed').textContent = ''
  $('token').value = sessionStorage.getItem('token') ?? ''
  // What is current here, so that nobody replaces a version that they have not seen.
  todo = { route, body: { ...body, seen: shown.status.adapter } }
  $('confirm').showModal()
}

async function carryOut(event) {
  event.preventDefault()
  const token = $('token').value.trim()
  try {
    const { current, warning } = await ask(todo.route, todo.body, undefined, token)
    // Of this origin alone, its port included, unlike a cookie; and gone with the tab.
    sessionStorage.setItem('token', token)
    $('confirm').close()
    await refresh()
    say(`${named(current)} is current. ${warning}`)
  } catch (error) {
    $('confirm-failed').textContent = error.message
  }
}

function showPlots({ adapters, status }) {
  const of = adapters.find(({ version }) => version === status.adapter) ?? adapters.at(-1)
  const plots = [['loss.svg', 'Training loss, and loss on later changes'], ['decay.svg', 'Decay: gain by days since the snapshot']]
    .filter(([name]) => of?.files.includes(name))
    .map(([name, title]) => {
      const figure = make('figure'), image = make('img')
      image.src = fileOf(of.version, name)
      image.alt = title
      figure.append(image, make('figcaption', `${title}, of ${of.version}`))
      return figure
    })
  const none = make('p', "None: 'inhouse retrain' draws them for each version that it evaluates.", 'why')
  $('plots').replaceChildren(...(plots.length ? plots : [none]))
}

function showRetrainings({ retrainings }) {
  const rows = retrainings.map(({ started, finished, candidate, decision, reasons }) => {
    const minutes = Math.round((new Date(finished) - new Date(started)) / MINUTE)
    const why = make('div')
    why.append(...reasons.map((reason) => make('div', reason, 'why')))
    return row([
      ['Ended', `${day(finished)} UTC`], ['Took', `${minutes} min`], ['Candidate', candidate ?? 'none'],
      ['Decision', decision], ['Why', why],
    ])
  })
  table($('retrainings'), ['Ended', 'Took', 'Candidate', 'Decision', 'Why'], rows)
}

function showHistory({ history }) {
  const rows = history.map(({ version, at, note }) =>
    row([['When', `${day(at)} UTC`], ['Current', named(version)], ['How', make('div', note, 'why')]]))
  table($('history'), ['When', 'Current from then on', 'How'], rows)
}

function showUsage({ since, days, callers }) {
  $('since').textContent = since
    ? `The last ${days.length} days (UTC), as the audit log has them, which reaches back to ${since}.`
    : 'The audit log holds nothing yet.'
  $('days').replaceChildren(bars(days.map(({ day: name, answers }) => [name, answers]), 'Answers by day'))
  const count = (figure) => figure.toLocaleString('en')
  const rows = callers.map((caller) => row([
    ['Token', caller.token && caller.token !== caller.name ? `${caller.name} (${caller.token})` : caller.name],
    ['Requests', count(caller.requests), 'figure'], ['Answers', count(caller.answers), 'figure'],
    ['Inline completions', count(caller.completions), 'figure'], ['Refused', count(caller.refused), 'figure'],
    ['Tokens read', count(caller.prompt_tokens), 'figure'], ['Tokens written', count(caller.completion_tokens), 'figure'],
    ['Last', `${day(caller.last)} UTC`],
  ]))
  const head = ['Token', 'Requests', 'Answers', 'Inline completions', 'Refused', 'Tokens read', 'Tokens written', 'Last']
  table($('callers'), head, rows)
}

function row(cells, current = false) {
  const line = make('tr', '', current ? 'current' : '')
  for (const [name, content, kind = ''] of cells) {
    const cell = make('td', '', kind)
    if (name) cell.dataset.name = name
    cell.append(content)
    line.append(cell)
  }
  return line
}

function table(place, names, rows) {
  const head = make('thead'), line = make('tr'), body = make('tbody')
  line.append(...names.map((name) => make('th', name)))
  head.append(line)
  body.append(...rows)
  place.replaceChildren(...(rows.length ? [head, body] : [make('caption', 'None yet.', 'why')]))
}

begin()
