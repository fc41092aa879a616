// The parts of the extension that know no VS Code. Bundled by esbuild, run by `node --test`.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { historyOf, newTurn, placeLabel } from '../../../editor-clients/vscode/src/conversation'
import { render } from '../../../editor-clients/vscode/webview/markdown'

const HOSTILE = [
  '![seen](https://example.com/x.png)',
  '![seen][there]\n\n[there]: https://example.com/x.png',
  '[click](command:workbench.action.terminal.new)',
  '[click](https://example.com)',
  '[click][there]\n\n[there]: javascript:alert(1)',
  '<https://example.com>',
  '<img src=x onerror=alert(1)>',
  '<script>alert(1)</script>',
  '<a href="command:x">click</a>',
  '<style>body { display: none }</style>',
  '```"><img src=x onerror=alert(1)>\ncode\n```',
  '&lt;img src=x&gt; &#60;script&#62;',
]

for (const text of HOSTILE) {
  test(`the model's text brings nothing active: ${JSON.stringify(text)}`, () => {
    const tags = [...render(text).matchAll(/<\/?([a-z0-9]+)([^>]*)>/g)]
    for (const [whole, tag, attributes] of tags) {
      assert.ok(['p', 'pre', 'code'].includes(tag!), whole)
      assert.doesNotMatch(attributes!, /\s(on\w+|href|src|style)\s*=/, whole)
    }
  })
}

test('a link is shown as it was written', () => {
  assert.equal(render('[here](https://example.com)'), '<p>[here](https://example.com)</p>\n')
})

test('what is harmless is rendered', () => {
  const html = render('# A\n\n- `b`\n\n```python\nc < d\n```\n\n| e |\n|---|\n| f |\n')
  for (const piece of ['<h1>A</h1>', '<code>b</code>', 'c &lt; d', '<td>f</td>']) assert.ok(html.includes(piece), piece)
})

test('a follow-up repeats the turns that have an answer', () => {
  const turns = [
    { ...newTurn('one'), text: 'first', state: 'answered' as const },
    { ...newTurn('two'), state: 'failed' as const },
    { ...newTurn('three'), text: 'half', state: 'answering' as const },
  ]
  assert.deepEqual(historyOf(turns), [{ role: 'user', content: 'one' }, { role: 'assistant', content: 'first' }])
})

test('lines are counted from one', () => {
  assert.equal(placeLabel('a.py', 0, 3), 'a.py:1-3')
  assert.equal(placeLabel('a.py', 4, 5), 'a.py:5')
})
