// Bundles the extension and the script of its chat view into dist/, with the licences of what is bundled.
import { build } from 'esbuild'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'

const common = { bundle: true, minify: true, sourcemap: false, metafile: true, outdir: 'dist', logLevel: 'warning' }
const extension = { ...common, entryPoints: ['src/extension.ts'], platform: 'node', target: 'node20', format: 'cjs', external: ['vscode'] }
const view = { ...common, entryPoints: ['webview/view.ts', 'webview/view.css'], platform: 'browser', target: 'es2022', format: 'iife' }

const bundled = new Set()
for (const { metafile } of await Promise.all([build(extension), build(view)])) {
  for (const file of Object.keys(metafile.inputs)) {
    const [, name] = file.match(/^.*node_modules\/((?:@[^/]+\/)?[^/]+)\//) ?? []
    if (name) bundled.add(file.slice(0, file.lastIndexOf('node_modules/')) + 'node_modules/' + name)
  }
}
const notices = [...bundled].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'))
  const file = ['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'License.txt', 'LICENSE-MIT.txt'].find((each) => existsSync(`${folder}/${each}`))
  if (!file) throw new Error(`${name} ${version} (${license}) has no licence text: name its file here`)
  return `${name} ${version}\n\n${readFileSync(`${folder}/${file}`, 'utf8').trim()}\n`
})
writeFileSync('dist/third-party-notices.txt', notices.join(`\n${'-'.repeat(80)}\n\n`))
