// The chat page of an owner with two repositories: the choice between them.
// node repositories.mjs '{"url", "chromium"}' -> one JSON object on standard output
import { chromium } from 'playwright-core'

const given = JSON.parse(process.argv[2])
const told = { problems: [], asked: [] }
const browser = await chromium.launch({ executablePath: given.chromium, args: ['--no-sandbox'] })
const page = await browser.newPage()
page.setDefaultTimeout(60_000)
page.on('pageerror', (error) => told.problems.push(String(error)))
page.on('request', (request) => {
  if (!request.url().endsWith('/inhouse/ask')) return
  told.asked.push([request.headers()['inhouse-repository'], request.postDataJSON().history.length])
})
const choice = page.getByLabel('Repository')
const chosen = async () => [await choice.inputValue(), await page.locator('#where').innerText()]
const here = (name) => page.locator('#where').filter({ hasText: name }).waitFor()
const answered = async () => {
  await page.getByLabel('Question').fill('How is the tax added?')
  await page.getByLabel('Question').press('Enter')
  await page.locator('.provenance').last().waitFor()
  await page.getByRole('button', { name: 'Send' }).waitFor()
}

try {
  await page.goto(given.url)
  await here('shop')
  told.first = await chosen()
  told.offered = await choice.locator('option').evaluateAll((all) => all.map(({ text, disabled }) => [text, disabled]))
  await answered()
  await choice.selectOption('till')
  await here('till')
  told.turns = await page.locator('article').count()
  await answered()
  await page.reload()
  await here('till')
  told.reloaded = await chosen()
} finally {
  await browser.close()
}
console.log(JSON.stringify(told))
process.exit(0)
