// The admin page in a real browser: what is shown, promotion and rollback with a token, a telephone.
// node admin.mjs '{"url", "token", "chromium", "version", "pictures"}' -> one JSON object on standard output
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const given = JSON.parse(process.argv[2])
const { origin } = new URL(given.url)
const told = { fetched: [], problems: [] }
const browser = await chromium.launch({ executablePath: given.chromium, args: ['--no-sandbox'] })
const context = await browser.newContext({ viewport: { width: 1200, height: 900 } })
const page = await context.newPage()
page.setDefaultTimeout(60_000)
page.on('request', (request) => { if (new URL(request.url()).origin !== origin) told.fetched.push(request.url()) })
page.on('console', (message) => { if (message.type() === 'error') told.problems.push(message.text()) })
page.on('pageerror', (error) => told.problems.push(String(error)))

try {
  await page.goto(given.url)
  await page.getByRole('link', { name: 'Admin' }).click()
  await page.locator('#adapters tbody tr').first().waitFor()
  told.address = page.url()
  told.facts = await page.locator('#facts').innerText()
  told.versions = await rows('#adapters')
  told.drawn = await page.locator('#adapters svg').getAttribute('aria-label')
  told.plot = await page.locator('#plots img').evaluate((image) => image.decode().then(() => image.naturalWidth))
  told.retrainings = await rows('#retrainings')
  told.callers = await rows('#callers')
  told.bars = await page.locator('#days svg').getAttribute('aria-label')

  // A report opens in a page of its own, and runs nothing.
  const opened = context.waitForEvent('page')
  await page.getByRole('link', { name: 'Report' }).click()
  const report = await opened
  await report.waitForLoadState()
  told.report = [await report.title(), await report.evaluate(() => self.origin)]
  await report.close()

  // Without a valid token nothing changes, and the dialog says why.
  await page.getByRole('button', { name: `Promote ${given.version}` }).click()
  told.asks = await page.locator('dialog').innerText()
  await page.getByLabel('Your token').fill('not-the-token')
  await page.getByRole('button', { name: 'Promote', exact: true }).last().click()
  await page.locator('#confirm-failed', { hasText: /./ }).waitFor()
  told.refused = await page.locator('#confirm-failed').innerText()
  await page.keyboard.press('Escape')

  await page.getByRole('button', { name: `Promote ${given.version}` }).press('Enter')
  await page.getByLabel('Your token').fill(given.token)
  await page.keyboard.press('Enter')
  await page.locator('#said', { hasText: 'is current' }).waitFor()
  told.promoted = [await page.locator('#said').innerText(), await page.locator('tr.current').innerText()]
  await picture('admin')

  // The tab keeps the token.
  await page.getByRole('button', { name: 'Roll back' }).click()
  await page.getByRole('button', { name: 'Roll back' }).last().click()
  await page.locator('#said', { hasText: 'The base model is current' }).waitFor()
  told.history = await rows('#history')

  await page.setViewportSize({ width: 360, height: 740 })
  await page.emulateMedia({ colorScheme: 'dark' })
  told.wide = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll('body, main, table')]
    .map((element) => element.scrollWidth - element.clientWidth))
  await picture('admin-telephone')
  // The refused token is told by the server, which a browser notes as an error of the network.
  told.problems = told.problems.filter((problem) => !problem.includes('401'))
} catch (error) {
  await picture('admin-failed')
  throw error
} finally {
  await browser.close()
}
console.log(JSON.stringify(told))
process.exit(0)

function rows(table) {
  return page.locator(`${table} tbody tr`).evaluateAll((lines) => lines.map((line) => line.innerText))
}

async function picture(name) {
  await page.screenshot({ path: join(given.pictures, `${name}.png`), fullPage: true })
}
