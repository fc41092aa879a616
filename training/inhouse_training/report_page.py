"""Reports as one HTML file, and the same as Markdown with the plots beside it.

Titles, cells and texts may hold anything that a repository or a model wrote. In HTML all of it is escaped, and nothing
is loaded or run; in Markdown it stands without markup, or in fences longer than any fence inside of them.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0;display:block;overflow-x:auto;font-variant-numeric:tabular-nums}"
    "td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    "th{background:#f3f3f3}p.note{color:#555}td p.note{margin:0 0 .4rem}"
    "img{max-width:100%}dt{font-weight:600}dd{margin:0 0 .4rem}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13px/1.4 ui-monospace,monospace}"
    "pre.alone{background:#f7f7f7;padding:.5rem;max-height:24rem;overflow-y:auto}"
    "h2{margin-top:2rem}h3{margin:1.5rem 0 .3rem}"
    "table.texts{display:table;table-layout:fixed;width:100%}table.texts th:first-child{width:8rem}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of writing, other than tab and line end."""
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~&!])")


@dataclass(frozen=True, slots=True)
class Table:
    """Figures: a head, rows of as many cells, and a note below."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as somebody wrote it, such as a question."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """Texts side by side.

    Attributes:
        before: what they are about, one under the other.
        columns: names of the columns.
        rows: name of a row -> a remark and a text for each column.
    """

    title: str
    before: tuple[Text, ...]
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Attributes:
        points: sentences that come first.
        facts: name -> value.
        plots: name -> SVG file.
    """

    title: str
    points: Sequence[str]
    facts: Sequence[tuple[str, str]]
    plots: Mapping[str, Path]
    tables: Sequence[Table]
    examples: Sequence[Example] = ()


def write_page(page: Page, folder: Path, name: str = "report") -> Path:
    """Write ``NAME.html`` and ``NAME.md`` into ``folder``, where the plots lie; returns the HTML file."""
    (folder / f"{name}.md").write_text(_markdown(page), encoding="utf-8", errors="replace")
    path = folder / f"{name}.html"
    path.write_text(_html(page), encoding="utf-8", errors="replace")
    return path


def _clean(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)


# ----------------------------------------------------------------------------------------------------------
# Markdown


def _markdown(page: Page) -> str:
    lines = [f"# {_plain(page.title)}", ""]
    lines += [f"- {_plain(point)}" for point in page.points] + [""] * bool(page.points)
    lines += [f"- {_plain(name)}: {_plain(value)}" for name, value in page.facts] + [""]
    lines += [f"![{_plain(name)}]({plot.name})\n" for name, plot in page.plots.items()]
    for table in page.tables:
        lines += [f"## {_plain(table.title)}", "", _row(table.head), "|" + " --- |" * len(table.head)]
        lines += [*map(_row, table.rows), "", *([_plain(table.note), ""] if table.note else [])]
    for example in page.examples:
        lines += [f"## {_plain(example.title)}", ""]
        for text in example.before:
            lines += [f"{_plain(text.title)}:", "", *_fenced(text.text), ""]
        for name, cells in example.rows.items():
            for column, (remark, said) in zip(example.columns, cells, strict=True):
                lines += [f"**{_plain(name)}, {_plain(column)}** {_plain(remark)}", "", *_fenced(said), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    """One line on which nothing is markup."""
    return _MARKUP.sub(r"\\\1", " ".join(_clean(text).split()))


def _fenced(text: str) -> list[str]:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{fence}text", _clean(text), fence]


# ----------------------------------------------------------------------------------------------------------
# HTML


def _html(page: Page) -> str:
    title = _safe(page.title)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<meta name='viewport' content='width=device-width'><title>{title}</title><style>{_STYLE}</style></head>",
        f"<body><h1>{title}</h1><ul>",
        *(f"<li>{_safe(point)}</li>" for point in page.points),
        "</ul><dl>",
        *(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in page.facts),
        "</dl>",
    ]
    for name, plot in page.plots.items():
        drawn = base64.b64encode(plot.read_bytes()).decode("ascii")
        parts.append(f"<p><img alt='{_safe(name)}' src='data:image/svg+xml;base64,{drawn}'></p>")
    for table in page.tables:
        parts += [f"<h2>{_safe(table.title)}</h2><table><tr>", *(f"<th>{_safe(cell)}</th>" for cell in table.head)]
        for row in table.rows:
            parts += ["</tr><tr>", *(f"<td>{_safe(cell)}</td>" for cell in row)]
        parts += ["</tr></table>"] + ([f"<p class='note'>{_safe(table.note)}</p>"] if table.note else [])
    for example in page.examples:
        parts += [f"<h2>{_safe(example.title)}</h2>"]
        for text in example.before:
            parts.append(f"<h3>{_safe(text.title)}</h3><pre class='alone'>{_safe(text.text)}</pre>")
        parts += ["<table class='texts'><tr><th></th>", *(f"<th>{_safe(column)}</th>" for column in example.columns)]
        for name, cells in example.rows.items():
            parts.append(f"</tr><tr><th>{_safe(name)}</th>")
            parts += [f"<td><p class='note'>{_safe(remark)}</p><pre>{_safe(said)}</pre></td>" for remark, said in cells]
        parts.append("</tr></table>")
    return "\n".join([*parts, "</body></html>\n"])


def _safe(text: str) -> str:
    return html.escape(_clean(text))
