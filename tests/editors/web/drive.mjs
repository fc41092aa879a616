// The chat page in a real browser: what a user does with the keyboard alone, and what is seen.
// node drive.mjs '{"url", "chromium", "file", "pictures"}' -> one JSON object on standard output
import { createServer } from 'node:http'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const given = JSON.parse(process.argv[2])
const { origin } = new URL(given.url)
const told = { fetched: [], problems: [] }
const browser = await chromium.launch({ executablePath: given.chromium, args: ['--no-sandbox'] })
const context = await browser.newContext({ viewport: { width: 1200, height: 800 } })
const page = await context.newPage()
page.setDefaultTimeout(60_000)
page.on('request', (request) => { if (new URL(request.url()).origin !== origin) told.fetched.push(request.url()) })
page.on('console', (message) => { if (message.type() === 'error') told.problems.push(message.text()) })
page.on('pageerror', (error) => told.problems.push(String(error)))
const asked = []
page.on('request', (request) => { if (request.url().endsWith('/inhouse/ask')) asked.push(request.postDataJSON()) })
const turn = (number) => page.locator('article').nth(number)
const ended = () => page.getByRole('button', { name: 'Send' }).waitFor()

try {
  await page.goto(given.url)
  told.address = page.url()
  told.script_sees = await page.evaluate(() => document.cookie)
  await page.getByLabel('Model', { exact: true }).locator('option[value=base]').waitFor({ state: 'attached' })

  told.choice = await page.getByLabel('Repository').isVisible()

  // An answer streams.
  await page.keyboard.type('How is the tax')
  await page.keyboard.press('Shift+Enter')
  await page.keyboard.type('added to a price?')
  await page.keyboard.press('Enter')
  told.grown = await sizesOf(turn(0).locator('.text'))
  await ended()
  told.question = await turn(0).locator('h2').innerText()
  told.provenance = await turn(0).locator('.provenance').innerText()
  told.answer = await turn(0).locator('.text').innerText()
  told.spoken = await page.locator('#spoken').textContent()

  // A passage opens.
  await turn(0).locator('.passages > summary').press('Enter')
  const passage = turn(0).locator('.passages details').filter({ hasText: given.file }).first()
  await passage.locator('summary').press('Enter')
  told.passage = [await passage.locator('summary').innerText(), await passage.locator('pre').innerText()]
  told.why = await passage.locator('.why').innerText()

  // A verdict.
  await turn(0).getByRole('button', { name: 'Not useful' }).press('Enter')
  await page.keyboard.type('It is too long.')
  await page.keyboard.press('Enter')
  told.kept = await turn(0).getByText('Kept as').innerText()

  // A turn that follows, stopped.
  await page.getByLabel('Question').fill('Write a very long story about that.')
  await page.keyboard.press('Enter')
  await turn(1).locator('.text > *').first().waitFor()
  await page.keyboard.press('Escape')
  await ended()
  told.stopped = await turn(1).locator('.state').innerText()
  told.history = asked[1].history

  // Two side by side.
  await page.getByRole('button', { name: 'New chat' }).press('Enter')
  told.turns = await page.locator('article').count()
  await page.getByRole('switch', { name: 'Compare' }).press('Space')
  await page.getByLabel('Retrieval to compare with').selectOption({ label: 'without' })
  await page.getByLabel('Question').fill('Name a colour.')
  await page.getByLabel('Question').press('Enter')
  await turn(0).locator('.provenance').nth(1).waitFor()
  await ended()
  told.compared = await turn(0).locator('.answer').evaluateAll((boxes) => boxes.map((box) => ({
    name: box.querySelector('h3').textContent,
    provenance: box.querySelector('.provenance').textContent,
    left: box.getBoundingClientRect().left,
  })))
  told.asked = asked.slice(2).map(({ adapter, retrieve, history }) => ({ adapter, retrieve, history }))

  // The panel.
  await page.getByRole('button', { name: 'Status' }).press('Enter')
  await page.locator('#status li').waitFor()
  told.status = await page.locator('#status').innerText()

  // A telephone, in the dark.
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  told.papers = [await paper()]
  await page.setViewportSize({ width: 360, height: 740 })
  await page.emulateMedia({ colorScheme: 'dark' })
  told.papers.push(await paper())
  told.wide = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll('body, main, #status')]
    .map((element) => element.scrollWidth - element.clientWidth))
  await picture('telephone')
  await page.setViewportSize({ width: 1200, height: 800 })
  await page.emulateMedia({ colorScheme: 'light' })
  await picture('desk')

  // What a model may say is only ever shown.
  const hostile = [
    '# A <b>title</b>', '', '<img src=x onerror=alert(1)> [link](javascript:alert(1)) ![i](http://x.example/i.png)', '',
    '1. one **bold** and `<i>`', '   - inner', '2. two', '   more of two', '', 'last  ', '```html', '<script>alert(1)</script>',
  ].join('\n')
  told.drawn = await page.evaluate(async (text) => {
    const { draw } = await import('/web/markdown.js')
    const place = document.createElement('div')
    for (let end = 1; end <= text.length; end++) draw(place, text.slice(0, end)) // as it streams
    const once = document.createElement('div')
    draw(once, text)
    if (once.innerHTML !== place.innerHTML) throw new Error(`${once.innerHTML}\n${place.innerHTML}`)
    return place.innerHTML
  }, hostile)

  told.stranger = (await (await browser.newContext()).request.get(origin)).status()
  told.elsewhere = await elsewhere()
} catch (error) {
  await picture('failed')
  throw error
} finally {
  await browser.close()
}
console.log(JSON.stringify(told))
process.exit(0)

async function picture(name) {
  await page.screenshot({ path: join(given.pictures, `${name}.png`) })
}

// What a page of another port of this host reaches with the user's cookie, which the browser sends to every port.
async function elsewhere() {
  const server = createServer((request, response) => response.setHeader('Content-Type', 'text/html').end('<p>Other</p>'))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const other = await context.newPage()
  await other.goto(`http://127.0.0.1:${server.address().port}/`)
  const reached = await other.evaluate(async (owner) => {
    const attempt = (path, options) => fetch(owner + path, { credentials: 'include', ...options })
      .then((answer) => answer.type, () => 'refused')
    const frame = document.createElement('iframe')
    frame.src = `${owner}/`
    document.body.append(frame)
    await new Promise((resolve) => { frame.onload = resolve })
    let framed = 'refused'
    try { framed = frame.contentWindow.document.title } catch { /* another origin, or an error page */ }
    return {
      status: await attempt('/inhouse/status', { headers: { 'X-Inhouse': '1' } }),
      page: await attempt('/', {}),
      feedback: await attempt('/inhouse/feedback', { method: 'POST', headers: { 'X-Inhouse': '1' }, body: '{}' }),
      framed,
    }
  }, origin)
  server.close()
  return reached
}

// The lengths that a text had until its answer ended.
function sizesOf(text) {
  return text.evaluate((element) => new Promise((resolve) => {
    const sizes = []
    const look = () => {
      const size = element.textContent.length
      if (size !== sizes.at(-1)) sizes.push(size)
      if (!element.closest('.answer').classList.contains('busy')) resolve(sizes)
      else requestAnimationFrame(look)
    }
    look()
  }))
}
