/** The model's Markdown as HTML in which nothing can be fetched, followed or run. */
import MarkdownIt from 'markdown-it'

// Model text may repeat what somebody wrote into the repository, so it brings no markup of its own: raw HTML, links and
// images stay the characters that they are.
const parser = new MarkdownIt({ html: false, linkify: false }).disable(['image', 'link', 'autolink', 'reference'])

export function render(markdown: string): string {
  return parser.render(markdown)
}
