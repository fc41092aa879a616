// A real VS Code (code-server) in a real browser, with the packaged extension: what a user does, and what is seen.
// node drive.mjs '{"codeServer", "node", "chromium", "vsix", "inhouse", "root", "file", "state"}' -> one JSON object on stdout
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const given = JSON.parse(process.argv[2])
const data = join(given.state, 'data')
const places = ['--user-data-dir', data, '--extensions-dir', join(given.state, 'extensions')]
const environment = { ...process.env, XDG_CONFIG_HOME: given.state, XDG_DATA_HOME: given.state, EXTENSIONS_GALLERY: '{}' }
for (const folder of ['User', 'Machine']) mkdirSync(join(data, folder), { recursive: true })
writeFileSync(join(data, 'Machine', 'settings.json'), JSON.stringify({ 'inhouse.command': given.inhouse }))
writeFileSync(join(data, 'User', 'settings.json'), JSON.stringify({
  'chat.disableAIFeatures': true,
  'git.openRepositoryInParentFolders': 'never',
  'workbench.colorTheme': 'Default Dark Modern',
  'workbench.startupEditor': 'none',
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
}))
execFileSync(given.node, [given.codeServer, ...places, '--install-extension', given.vsix], { env: environment, stdio: ['ignore', 2, 2] })
const server = spawn(given.node, [
  given.codeServer, ...places, '--bind-addr', '127.0.0.1:0', '--auth', 'none', '--disable-telemetry',
  '--disable-update-check', '--disable-workspace-trust', '--disable-getting-started-override', given.root,
], { env: environment, detached: true })
const told = {}
let page
try {
  const address = await new Promise((resolve, reject) => {
    server.stdout.on('data', (text) => {
      const [, url] = String(text).match(/HTTP server listening on (\S+)/) ?? []
      if (url) resolve(url)
    })
    server.on('exit', () => reject(new Error('code-server ended')))
  })
  const browser = await chromium.launch({ executablePath: given.chromium, args: ['--no-sandbox'] })
  page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
  page.setDefaultTimeout(60_000)
  told.fetched = [] // Addresses elsewhere: there may be none but those that VS Code's service worker answers itself.
  page.on('request', (request) => {
    const { protocol, hostname, href } = new URL(request.url())
    const here = hostname === '127.0.0.1' || hostname.endsWith('.vscode-resource.vscode-cdn.net')
    if (protocol.startsWith('http') && !here) told.fetched.push(href)
  })
  await page.goto(`${new URL(address).origin}/?folder=${encodeURIComponent(given.root)}`)
  await use()
  await browser.close()
} catch (error) {
  await page?.screenshot({ path: join(given.state, 'failed.png') })
  throw error
} finally {
  process.kill(-server.pid)
}
console.log(JSON.stringify(told))
process.exit(0)

async function use() {
  // The command palette knows the commands only of extensions that are there when it opens.
  const status = page.locator('.statusbar-item[id*="inhouse"]').first()
  await status.filter({ hasText: '@' }).waitFor()
  const chat = page.frameLocator('iframe.webview.ready').frameLocator('#active-frame')
  const turn = (number) => chat.locator('article').nth(number)
  const ended = (number) => turn(number).and(chat.locator('.answered, .stopped, .failed')).waitFor()

  await page.getByRole('tab', { name: 'inhouse', exact: true }).click()
  await chat.getByLabel('Question').waitFor()
  await command('inhouse: Ask…')
  await page.getByPlaceholder('How do we …?').fill('How is the tax added to a price?')
  await page.keyboard.press('Enter')
  told.grown = await sizesOf(turn(0))
  told.answer = await turn(0).innerText()
  told.provenance = await turn(0).locator('.provenance').innerText()
  told.sources = await turn(0).locator('.source').allInnerTexts()

  // A source opens with the keyboard alone.
  await turn(0).locator('.source').filter({ hasText: given.file }).first().press('Enter')
  await page.getByRole('tab', { name: given.file.split('/').at(-1), selected: true }).waitFor()
  told.cursor = await page.locator('#status\\.editor\\.selection').innerText()

  await chat.getByLabel('Question').fill('Write a very long story about that.')
  await chat.getByLabel('Question').press('Enter')
  await turn(1).locator('.answer p').first().waitFor()
  await chat.getByLabel('Question').press('Escape')
  await ended(1)
  told.stopped = await turn(1).locator('.problem').innerText()

  await page.locator('.view-lines').first().click()
  await page.keyboard.press('Control+a')
  await command('inhouse: Explain')
  await ended(2)
  told.explained = [await turn(2).locator('.question').innerText(), await turn(2).locator('.place').innerText()]
  told.explanation = await turn(2).locator('.provenance').innerText()
  told.status = await status.innerText()
  await page.screenshot({ path: join(given.state, 'chat.png') })

  await command('inhouse: Review this Change')
  const marker = page.locator('.markers-panel .monaco-list-row').filter({ hasText: 'inhouse' }).first()
  await marker.waitFor()
  told.finding = await marker.innerText()
  await page.screenshot({ path: join(given.state, 'review.png') })

  // The finding's fix changes the line.
  await marker.dblclick()
  await page.getByRole('tab', { name: 'new.py', selected: true }).waitFor()
  const code = page.locator('.editor-instance .view-lines').first()
  await code.getByText('from requests import get_json').click()
  await page.keyboard.press('Control+.')
  await page.locator('.action-widget .monaco-list-row').filter({ hasText: 'Write it as the house does' }).first().click()
  await code.getByText('from house.http import get_json').waitFor()
  told.fixed = await code.innerText()

  // A change in the user's own words: made, or refused with its reason.
  await page.keyboard.press('Control+a')
  await command('inhouse: Change the Selection…')
  await page.getByPlaceholder('Use our HTTP client').fill('Add a comment above the call.')
  await page.keyboard.press('Enter')
  const refusal = page.locator('.notification-list-item-message').filter({ hasText: /not offered|cut|repeat|without code/ })
  await page.locator('.notification-list-item').filter({ hasText: 'changing the selection' }).waitFor()
  await page.locator('.notification-list-item').filter({ hasText: 'changing the selection' }).waitFor({ state: 'detached' })
  told.changed = [await code.innerText(), ...await refusal.allInnerTexts()]
}

async function command(name) {
  await page.keyboard.press('F1')
  await page.locator('.quick-input-widget input').waitFor()
  await page.keyboard.type(name.replace('…', ''))
  await page.locator('.quick-input-list .monaco-list-row').filter({ hasText: name }).first().waitFor()
  await page.keyboard.press('Enter')
}

// The lengths that the answer had until it ended.
async function sizesOf(turn) {
  await turn.waitFor()
  return turn.evaluate((element) => new Promise((resolve) => {
    const log = element.parentElement
    const sizes = []
    const look = () => {
      const turn = log.children[0]
      const size = turn.querySelector('.answer').textContent.length
      if (size !== sizes.at(-1)) sizes.push(size)
      if (!turn.classList.contains('answering')) resolve(sizes)
      else requestAnimationFrame(look)
    }
    look()
  }))
}
