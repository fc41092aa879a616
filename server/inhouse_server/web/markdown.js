// Markdown as models write it, drawn with DOM nodes and text alone: paragraphs, headings, lists, code, bold. No links,
// no images, no HTML: a model may repeat what strangers wrote, and the page is to show it, never to act on it.

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/

export function make(tag, text = '', className = '') {
  const node = document.createElement(tag)
  node.textContent = text
  if (className) node.className = className
  return node
}

/** Draw `text` in `place`. Blocks that did not change keep their nodes: a stream does not draw all of it anew. */
export function draw(place, text) {
  const blocks = blocksOf(text)
  blocks.forEach((block, at) => {
    const there = place.children[at]
    if (there?.source === block.source) return
    const node = nodeOf(block)
    node.source = block.source
    if (there) there.replaceWith(node)
    else place.append(node)
  })
  while (place.children.length > blocks.length) place.lastChild.remove()
}

function blocksOf(text) {
  const blocks = []
  let open = null // The block that the next line may belong to.
  for (const line of text.split('\n')) {
    if (open?.kind === 'code') {
      open.source += `\n${line}`
      const end = line.trim()
      if (end.startsWith(open.fence) && !end.replaceAll(open.fence[0], '')) open = null
      else open.lines.push(line)
      continue
    }
    const fence = FENCE.exec(line), heading = HEADING.exec(line), item = ITEM.exec(line)
    if (fence) blocks.push(open = { kind: 'code', fence: fence[1], lines: [], source: line })
    else if (heading) {
      blocks.push({ kind: 'heading', level: heading[1].length, lines: [heading[2]], source: line })
      open = null
    } else if (!line.trim()) {
      if (open?.kind === 'paragraph') open = null
    } else if (item || (open?.kind === 'list' && /^\s/.test(line))) {
      if (open?.kind !== 'list') blocks.push(open = { kind: 'list', lines: [], source: '' })
      open.lines.push(line)
      open.source += `\n${line}`
    } else {
      if (open?.kind !== 'paragraph') blocks.push(open = { kind: 'paragraph', lines: [], source: '' })
      open.lines.push(line)
      open.source += `\n${line}`
    }
  }
  return blocks
}

function nodeOf({ kind, lines, level }) {
  if (kind === 'list') return listOf(lines)
  if (kind === 'code') {
    const pre = make('pre')
    pre.tabIndex = 0 // It may scroll, and the keyboard is to reach what is beyond its edge.
    pre.append(make('code', lines.join('\n')))
    return pre
  }
  return inline(make(kind === 'heading' ? `h${Math.min(6, level + 3)}` : 'p'), lines.join('\n'))
}

function listOf(lines) {
  const levels = [] // The lists that are open, the outermost first.
  for (const line of lines) {
    const item = ITEM.exec(line)
    if (!item) {
      inline(levels.at(-1).list.lastChild, ` ${line.trim()}`)
      continue
    }
    const [, { length: indent }, number, words] = item
    while (levels.length > 1 && indent < levels.at(-1).indent) levels.pop()
    if (!levels.length || indent > levels.at(-1).indent + 1) {
      const list = make(number ? 'ol' : 'ul')
      if (number) list.start = Number(number)
      levels.at(-1)?.list.lastChild.append(list)
      levels.push({ indent, list })
    }
    levels.at(-1).list.append(inline(make('li'), words))
  }
  return levels[0].list
}

function inline(node, text) {
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (/^`.+`$/.test(part)) node.append(make('code', part.slice(1, -1)))
    else if (/^\*\*.+\*\*$/.test(part)) node.append(make('strong', part.slice(2, -2)))
    else node.append(part)
  }
  return node
}
