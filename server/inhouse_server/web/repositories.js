// The choice of a repository, where the owner holds several.
import { ask } from './owner.js'

/**
 * Offers the repositories in `select`; begins with the one chosen last, the owner's own, or the first. `choose` is told
 * that one, and each that is chosen later; '' where there is no choice.
 */
export async function chooseRepository(select, choose) {
  const { repositories, default: own, failed } = await ask('/inhouse/repositories')
  if (repositories.length < 2) return choose('')
  const served = repositories.filter((name) => !(name in failed))
  const wanted = [localStorage.getItem('repository'), own, ...served]
  const chosen = wanted.find((name) => served.includes(name)) ?? repositories[0]
  select.replaceChildren(...[...served, ...Object.keys(failed)].map((name) => {
    const option = new Option(name in failed ? `${name} (not served now)` : name, name, false, name === chosen)
    option.disabled = name in failed
    return option
  }))
  select.hidden = false
  select.addEventListener('change', () => {
    localStorage.setItem('repository', select.value)
    choose(select.value)
  })
  choose(chosen)
}
