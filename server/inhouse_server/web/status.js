// The panel behind the Status button, and the names of what can be asked.
import { make } from './markdown.js'
import { ask } from './owner.js'

export const short = (id) => id.slice(0, 12)
export const day = (moment) => moment.slice(0, 16).replace('T', ' ')
export const signed = (figure) => (figure < 0 ? '−' : '+') + Math.abs(figure).toFixed(3)

/** `{ status, adapters }`: what the owner holds, and the adapter versions, newest first. */
export async function look() {
  const [status, { adapters }] = await Promise.all([ask('/inhouse/status'), ask('/inhouse/adapters')])
  return { status, adapters: adapters.reverse() }
}

/** What the owner holds, as [name, value]. */
export function factsOf(status) {
  const { last_retrain: last } = status
  return [
    ...(status.root ? [['Repository', status.root]] : []), // only who may administrate is told
    ['Base model', status.base_model + (status.stepped_aside ? ' (stepped aside for a retraining)'
      : status.model_loaded ? '' : ' (not loaded yet)')],
    ['Current adapter', status.adapter ?? 'none'],
    ['Index', status.index_commit
      ? `${short(status.index_commit)}: ${status.files} files, ${status.chunks} chunks, ${status.pending} pending`
      : 'not built yet'],
    ['Last retraining', last ? `${day(last.finished)} UTC: ${last.decision}, candidate ${last.candidate}` : 'none'],
    ['Next retraining', status.next_retrain
      ? `due after ${day(status.next_retrain)} UTC`
      : last ? 'when a scheduler says so: [retrain] every is not set' : 'the first one is still to come'],
  ]
}

export function showStatus(place, { status, adapters }) {
  const facts = make('dl')
  for (const [name, value] of factsOf(status)) facts.append(make('dt', name), make('dd', value))
  const list = make('ul')
  for (const version of adapters) {
    const row = make('li')
    row.append(make('strong', version.version), version.current ? ' (current)' : '')
    row.append(`, ${day(version.created)} UTC, snapshot ${short(version.snapshot)}`)
    for (const [over, gain] of Object.entries(version.metrics.gain ?? {})) {
      const other = over === 'over_base' ? 'the base model' : 'the adapter before it'
      const figures = `${signed(gain.mean)} nats per token (95 % interval ${signed(gain.low)} to ${signed(gain.high)})`
      row.append(make('div', `Gain over ${other} on later changes: ${figures}`, 'why'))
    }
    list.append(row)
  }
  const versions = adapters.length ? list : make('p', "None yet; 'inhouse retrain' makes one.")
  place.replaceChildren(facts, make('h2', 'Adapter versions'), versions)
}
