"""Exported HTML pages (Confluence, MediaWiki, a forge's wiki) as text like Markdown, with the line of the source that
each line comes from.

Citations must open at the right lines of the file, which is the HTML. So every line of the text knows its source line,
and :func:`lines_of_source` gives what was cut from the text its place in the file. (Libraries that turn HTML into
Markdown do not tell lines; parsing is Beautiful Soup's, which does.)

Headings, lists, tables, code blocks and the words of links stay; scripts, styles, navigation and addresses go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PreformattedString

from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.secrets import redact

HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})

_CONTENT = (
    "#main-content", "#mw-content-text", ".markdown-body", ".wiki-content", "article", "main", "[role=main]", "#content"
)  # fmt: skip
"""Where pages have their text, most particular first: Confluence, MediaWiki, GitHub, then HTML's own elements."""
_DROPPED = frozenset(
    (
        *("script", "style", "nav", "header", "footer", "aside", "noscript", "template", "form", "button", "select"),
        *("svg", "iframe", "object", "head"),
    )
)
_DROPPED_MARKS = re.compile(
    r"(?:toc|toc-macro|toctitle|mw-editsection|mw-jump-link|navbox|catlinks|printfooter|breadcrumbs?|breadcrumb-section"
    r"|page-metadata|noprint|anchor|headerlink|sidebar|navigation|menu|footer)",
    re.I,
)
_BLOCKS = frozenset(
    (
        *("address", "article", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt", "fieldset"),
        *("figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "html", "li", "main", "ol", "p", "section"),
        *("summary", "tbody", "ul"),
    )
)
_TIGHT = frozenset(("li", "dt", "dd", "div", "section", "body", "html", "summary"))
"""Blocks without an empty line around them."""
_LANGUAGE = re.compile(r"(?:language-|lang-|highlight-source-|mw-highlight-lang-|brush:\s*)([\w+#-]{1,20})")
_MAX_DEPTH = 100
_HEADING = re.compile(r"h[1-6]")

_DATES = (
    re.compile(
        r"<meta\s[^>]*(?:name|property|itemprop)\s*=\s*[\"'](?:last-modified|dcterms\.modified|dc\.date\.modified"
        r"|article:modified_time|og:updated_time|datemodified|revised|modified)[\"'][^>]*>",
        re.I,
    ),
    re.compile(r"\"dateModified\"\s*:\s*\"[^\"]{8,40}\"", re.I),
    re.compile(r"(?:last\s+(?:modified|edited|updated|changed))[^.\n]{0,160}", re.I),
    re.compile(r"<(?:relative-time|time)\s[^>]*datetime\s*=\s*[\"'][^\"']{8,40}[\"']", re.I),
)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?)?")
_SPELLED = re.compile(r"(?:(\d{1,2})\s+([A-Z][a-z]{2,8})|([A-Z][a-z]{2,8})\s+(\d{1,2}))\.?,?\s+(\d{4})")
_TAGS = re.compile(r"<[^<>]{0,500}>")


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """A page as text.

    Attributes:
        lines: for each line of ``text``, the 1-based line of the source where it begins; never falling.
    """

    text: str
    lines: tuple[int, ...]


def is_html(path: str) -> bool:
    """Whether a file is read as HTML, by its name."""
    return PurePosixPath(path).suffix.lower() in HTML_SUFFIXES


def page_name(path: str) -> str:
    """The name under which the text is cut: as the Markdown that it is."""
    return f"{path}.md"


def read_html(source: str) -> HtmlPage:
    """The page's own text. Broken HTML is read as far as Python's parser goes: elements that were never closed nest."""
    soup = BeautifulSoup(source, "html.parser")
    content = next((found for mark in _CONTENT if (found := soup.select_one(mark)) is not None), None) or soup.body
    writer = _Writer()
    title = soup.title.get_text(" ", strip=True) if soup.title is not None else ""
    first = (content or soup).find(_HEADING)
    outside = soup.find("h1")
    if not isinstance(first, Tag) or first.name != "h1":
        if isinstance(outside, Tag):
            writer.add(f"# {' '.join(outside.get_text(' ').split())}", outside.sourceline or 1)
        elif title and soup.title is not None:
            writer.add(f"# {title}", soup.title.sourceline or 1)
        writer.gap()
    writer.read(content or soup)
    return writer.page()


def lines_of_source(path: str, page: HtmlPage, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Chunks of the page's text with their places in the HTML: from where the first line begins to where the line
    after the last one does."""
    last = len(page.lines)
    placed: list[Chunk] = []
    name = page_name(path)
    for chunk in chunks:
        begin = page.lines[min(chunk.start_line, last) - 1]
        after = page.lines[chunk.end_line] - 1 if chunk.end_line < last else page.lines[-1]
        header = chunk.header.replace(name, path, 1)
        placed.append(replace(chunk, path=path, header=header, start_line=begin, end_line=max(begin, after)))
    return placed


def html_to_text(source: str) -> str:
    """The text alone."""
    return read_html(source).text


def page_text(path: str, text: str) -> str:
    """What a page says: of an exported one its text, redacted once more, since a secret may stand between tags."""
    return redact(html_to_text(text))[0] if is_html(path) else text


def own_date(source: str, now: datetime) -> datetime | None:
    """When the page says that it was last changed: in its metadata, else in the words of its header or footer.

    A date after ``now`` is no date.
    """
    for pattern in _DATES:
        for match in pattern.finditer(source):
            found = _read_date(match[0])
            if found is not None and found <= now:
                return found
    return None


def _read_date(text: str) -> datetime | None:
    if iso := _ISO.search(text):
        try:
            found = datetime.fromisoformat(re.sub(r"([+-]\d{2})(\d{2})$", r"\1:\2", iso[0].replace("Z", "+00:00")))
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    if spelled := _SPELLED.search(_TAGS.sub(" ", text)):
        day, month, year = spelled[1] or spelled[4], spelled[2] or spelled[3], spelled[5]
        for form in ("%d %b %Y", "%d %B %Y"):
            try:
                return datetime.strptime(f"{day} {month} {year}", form).replace(tzinfo=UTC)
            except ValueError:
                continue
    return None


@dataclass
class _Writer:
    """Walks the elements and writes lines.

    Attributes:
        at: the line of the source where it is.
        words: of the line that is being written; ``begun`` is where it began.
        prefix, rest: what opens the next line, such as a bullet, and those after it.
    """

    at: int = 1
    written: list[tuple[str, int]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    begun: int = 0
    prefix: str = ""
    rest: str = ""

    def page(self) -> HtmlPage:
        self.flush()
        while self.written and not self.written[-1][0]:
            self.written.pop()
        lines: list[int] = []
        for _, number in self.written:
            lines.append(max(number, lines[-1] if lines else 1))
        return HtmlPage("\n".join(text for text, _ in self.written) + "\n", tuple(lines))

    def add(self, text: str, number: int) -> None:
        self.written.append((text, number))

    def gap(self) -> None:
        if self.written and self.written[-1][0]:
            self.add("", self.at)

    def flush(self) -> None:
        text = " ".join("".join(self.words).split())
        if text:
            self.add(self.prefix + text, self.begun)
            self.prefix = self.rest
        self.words = []

    def say(self, text: str) -> None:
        """Words; each line of the source becomes a line of its own."""
        for number, line in enumerate(text.split("\n")):
            if number:
                self.flush()
                self.at += 1
            if line.strip() and not "".join(self.words).strip():
                self.begun = self.at
            self.words.append(line)

    def read(self, tag: Tag, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            self.say(tag.get_text())
            return
        for child in tag.children:
            if isinstance(child, Tag):
                self.at = child.sourceline or self.at
                if _is_dropped(child):
                    self.at += str(child).count("\n")
                else:
                    self.element(child, depth)
            elif isinstance(child, PreformattedString):  # comments and the like
                self.at += child.count("\n")
            elif isinstance(child, NavigableString):
                self.say(str(child))

    def element(self, tag: Tag, depth: int) -> None:
        name = tag.name.lower()
        if name == "br":
            self.flush()
        elif name == "img":
            self.say(str(tag.get("alt") or "").replace("\n", " "))
        elif name in ("code", "tt", "kbd", "samp") and tag.find("br") is None:
            text = tag.get_text()
            self.say(f"`{' '.join(text.split())}`" if text.strip() else "")
            self.at += text.count("\n")
        elif name == "pre":
            self._block(self._code, tag)
        elif name == "table":
            self._block(self._table, tag)
        elif name in _BLOCKS:
            self._read_block(tag, name, depth)
        else:
            self.read(tag, depth + 1)

    def _read_block(self, tag: Tag, name: str, depth: int) -> None:
        self.flush()
        prefix, rest = self.prefix, self.rest
        tight = name in _TIGHT or (name in ("p", "ul", "ol") and tag.find_parent("li") is not None)
        if not tight:
            self.gap()
        if _HEADING.fullmatch(name):
            self.words.append("#" * int(name[1]) + " ")
            self.begun = self.at
            self.words.append(" ".join(_shown(tag).split()))
            self.at += str(tag).count("\n")
        else:
            opening = {"li": _bullet(tag), "blockquote": "> ", "dd": ": "}.get(name, "")
            if opening:
                self.prefix = rest + opening
                self.rest = rest + (opening if name == "blockquote" else "  ")
            self.read(tag, depth + 1)
        self.flush()
        self.prefix, self.rest = prefix, rest
        if not tight:
            self.gap()

    def _block(self, write: Callable[[Tag], None], tag: Tag) -> None:
        self.flush()
        self.gap()
        write(tag)
        self.gap()

    def _code(self, tag: Tag) -> None:
        marks = " ".join(_marks(each) for each in (tag, tag.parent, tag.find("code")) if isinstance(each, Tag))
        language = _LANGUAGE.search(marks)
        begun, number = self.at, self.at
        lines: list[tuple[str, int]] = [("", number)]
        for each in tag.descendants:
            if isinstance(each, Tag):
                number = each.sourceline or number
                if each.name == "br":
                    lines.append(("", number))
            elif isinstance(each, NavigableString) and not isinstance(each, PreformattedString):
                for place, line in enumerate(str(each).split("\n")):
                    if place:
                        number += 1
                        lines.append(("", number))
                    lines[-1] = (lines[-1][0] + line, lines[-1][1])
        while lines and not lines[0][0].strip():
            del lines[0]
        while lines and not lines[-1][0].strip():
            lines.pop()
        if lines:
            self.add(f"```{language[1].lower() if language else ''}", begun)
            self.written += [(text.rstrip(), number) for text, number in lines]
            self.add("```", lines[-1][1])
        self.at = number

    def _table(self, tag: Tag) -> None:
        for number, row in enumerate(row for row in tag.find_all("tr") if row.find_parent("table") is tag):
            cells = row.find_all(("td", "th"), recursive=False)
            shown = [" ".join(_shown(cell).split()).replace("|", "\\|") for cell in cells]
            if not any(shown):
                continue
            at = row.sourceline or self.at
            self.add(f"| {' | '.join(shown)} |", at)
            if number == 0:
                self.add(f"|{' --- |' * len(shown)}", at)
            self.at = at + str(row).count("\n")


def _shown(tag: Tag) -> str:
    """The words within, without what is dropped."""
    parts: list[str] = []
    for each in tag.descendants:
        if isinstance(each, Tag):
            if each.name == "img":
                parts.append(str(each.get("alt") or ""))
            if each.name in ("br", "p", "div", "li"):
                parts.append(" ")
        elif isinstance(each, NavigableString) and not isinstance(each, PreformattedString):
            inside = [parent for parent in each.parents if parent is not tag]
            within = inside[: inside.index(tag.parent)] if tag.parent in inside else inside
            if not any(_is_dropped(parent) for parent in within):
                is_code = each.parent is not None and each.parent.name in ("code", "tt", "kbd")
                parts.append(f"`{each}`" if is_code and each.strip() else str(each))
    return "".join(parts)


def _is_dropped(tag: Tag) -> bool:
    if tag.name.lower() in _DROPPED or tag.has_attr("hidden"):
        return True
    if tag.get("role") in ("navigation", "banner", "contentinfo", "search") or tag.get("aria-hidden") == "true":
        return True
    return any(_DROPPED_MARKS.fullmatch(mark) for mark in _marks(tag).split())


def _marks(tag: Tag) -> str:
    """Its classes, its id and what its highlighter was told."""
    classes = tag.get("class")
    told = [*(classes if isinstance(classes, list) else [])]
    told += [str(tag.get(name) or "") for name in ("id", "data-syntaxhighlighter-params", "data-lang")]
    return " ".join(told)


def _bullet(tag: Tag) -> str:
    if tag.parent is not None and tag.parent.name == "ol":
        return f"{len(tag.find_previous_siblings('li')) + 1}. "
    return "- "
