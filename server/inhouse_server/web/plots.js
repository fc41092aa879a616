// Small plots, drawn as SVG; each has its figures as its name, for whoever does not see it.
const SVG = 'http://www.w3.org/2000/svg'

function draw(name, attributes, kind = '') {
  const element = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  if (kind) element.setAttribute('class', kind)
  return element
}

function plot(width, height, name) {
  const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': name })
  const title = draw('title', {})
  title.textContent = name
  svg.append(title)
  return svg
}

/** A mean with its interval on a line from `from` to `to`, and where zero lies. */
export function interval({ mean, low, high }, [from, to], name) {
  const width = 160, height = 18, middle = height / 2
  const x = (value) => 4 + (width - 8) * (value - from) / (to - from)
  const svg = plot(width, height, name)
  svg.append(
    draw('line', { x1: x(0), x2: x(0), y1: 0, y2: height }, 'zero'),
    draw('line', { x1: x(low), x2: x(high), y1: middle, y2: middle }, 'interval'),
    draw('circle', { cx: x(mean), cy: middle, r: 4 }, 'mean'),
  )
  return svg
}

/** A bar for each [name, count], the highest of them named. */
export function bars(counts, name) {
  const step = 20, height = 90, top = 16, bottom = height - 16
  const most = Math.max(1, ...counts.map(([, count]) => count))
  const svg = plot(counts.length * step, height, `${name}, at most ${most} on one`)
  counts.forEach(([each, count], at) => {
    const tall = (bottom - top) * count / most
    const bar = draw('rect', { x: at * step + 2, y: bottom - tall, width: step - 4, height: tall }, 'bar')
    const title = draw('title', {})
    title.textContent = `${each}: ${count}`
    bar.append(title)
    svg.append(bar)
    if (count === most) label(svg, at * step + step / 2, bottom - tall - 4, 'middle', String(count))
  })
  label(svg, 0, height - 3, 'start', counts[0][0])
  label(svg, counts.length * step, height - 3, 'end', counts.at(-1)[0])
  return svg
}

function label(svg, x, y, anchor, words) {
  const text = draw('text', { x, y, 'text-anchor': anchor })
  text.textContent = words
  svg.append(text)
}
