"""How a report is written: HTML with everything inside one file, and the same as Markdown with the plots beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Table:
    """One table under its title; ``note`` says below it what the figures rest on."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One report.

    Attributes:
        reasons: sentences, first of all.
        summary: names and values.
        plots: name -> SVG file in the folder of the report.
    """

    title: str
    reasons: Sequence[str]
    summary: Sequence[tuple[str, str]]
    plots: Mapping[str, Path]
    tables: Sequence[Table]


def write_pages(page: Page, directory: Path) -> Path:
    """Write ``report.html`` and ``report.md``; returns the HTML file."""
    (directory / "report.md").write_text(_markdown(page), encoding="utf-8")
    written = directory / "report.html"
    written.write_text(_html(page), encoding="utf-8")
    return written


def _markdown(page: Page) -> str:
    lines = [f"# {page.title}", ""]
    lines += [f"- {reason}" for reason in page.reasons] + [""]
    lines += [f"- {name}: {value}" for name, value in page.summary] + [""]
    lines += [f"![{name}]({plot.name})" for name, plot in page.plots.items()] + [""]
    for table in page.tables:
        lines += [f"## {table.title}", ""]
        lines += ["| " + " | ".join(table.head) + " |", "|" + " --- |" * len(table.head)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
        lines += ["", *([table.note, ""] if table.note else [])]
    return "\n".join(lines)


def _html(page: Page) -> str:
    title = html.escape(page.title)
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>",
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}",
        "table{border-collapse:collapse;margin:.5rem 0}",
        "td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left}",
        "th{background:#f3f3f3}p.note{color:#555}img{max-width:100%}dt{font-weight:600}dd{margin:0 0 .4rem}",
        f"</style></head><body><h1>{title}</h1><ul>",
        *(f"<li>{html.escape(reason)}</li>" for reason in page.reasons),
        "</ul><dl>",
        *(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in page.summary),
        "</dl>",
    ]
    for name, plot in page.plots.items():
        drawn = base64.b64encode(plot.read_bytes()).decode("ascii")
        parts.append(f"<img alt='{name}' src='data:image/svg+xml;base64,{drawn}'>")
    for table in page.tables:
        parts += [f"<h2>{html.escape(table.title)}</h2><table><tr>"]
        parts += [f"<th>{html.escape(cell)}</th>" for cell in table.head] + ["</tr>"]
        for row in table.rows:
            parts += ["<tr>", *(f"<td>{html.escape(cell)}</td>" for cell in row), "</tr>"]
        parts += ["</table>"] + ([f"<p class='note'>{html.escape(table.note)}</p>"] if table.note else [])
    return "\n".join([*parts, "</body></html>\n"])
