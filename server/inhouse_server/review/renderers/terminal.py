"""A review in a terminal: places that can be clicked, the lines around them, the suggested change in colour."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from inhouse_retrieval import redact
from inhouse_server.cli.terminal import plain
from inhouse_server.locations import file_uri
from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.markdown import difference
from inhouse_server.review.renderers.places import file_of, hunk_around, numbered, span

_AROUND = 2
_MOST_LINES = 24
_THEME = "ansi_dark"
"""Named colours only: the terminal's own, so that they suit its background."""
_SEVERITIES = {"warning": "bold yellow", "info": "bold cyan"}
_SIGNS = {"+": "green", "-": "red"}


def print_review(review: Review, change: Change, root: Path, console: Console) -> None:
    """Findings, what was left out, and one line that says what was looked at. Nothing in them is rich's markup."""
    for finding in review.findings:
        _print(console, _heading(finding, root), Text(_plain(finding.message)))
        _print(console, *(Text(said) for said in filter(None, [text.also(finding.also)])))
        _print(console, *_surroundings(finding, change))
        if finding.replacement is not None:
            _print(console, Text("  suggested:", style="dim"), *_difference(finding))
        _print(console, *_grounds(finding, root), Text())
    told = (*text.not_read(review.coverage), *text.left_out(review), *review.notes)
    _print(console, *(Text(_plain(said), style="dim") for said in told))
    _print(console, *(Text(_plain(said), style="dim") for said in filter(None, [text.provenance(review)])))
    _print(console, Text(_plain(text.headline(review)), style="bold"))


def _print(console: Console, *lines: Text) -> None:
    """Long lines are the terminal's to wrap, and whole where output is a file."""
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)


def _heading(finding: Finding, root: Path) -> Text:
    place = _place(root, finding.path, finding.start_line, finding.start_line)
    severity = Text(finding.severity, style=_SEVERITIES[finding.severity])
    return Text.assemble(place, " ", severity, " ", (f"[{_plain(finding.rule)}]", "dim"))


def _place(root: Path, path: str, first: int, last: int) -> Text:
    """``path:line``, which rich writes as a link (OSC 8) where the console is a terminal."""
    link = Style(bold=True, link=f"{file_uri(root, path)}#{first}")
    return Text(span(_one_line(path), first, last), style=link)


def _surroundings(finding: Finding, change: Change) -> list[Text]:
    """The hunk's lines near the finding; its own lines where it stands in no hunk."""
    hunk = hunk_around(file_of(change, finding), finding.start_line, finding.end_line)
    first, last = finding.start_line - _AROUND, finding.end_line + _AROUND
    if hunk is None:
        own = finding.anchor.replace("\r\n", "\n").removesuffix("\n").split("\n")
        lines = [(" ", finding.start_line + at, line) for at, line in enumerate(own)]
    else:
        lines = numbered(hunk)
    shown = [line for line in _without_secrets(lines) if first <= line[1] <= last]
    if not any(line for _, _, line in shown):
        return []
    cut = [Text("  …", style="dim")] if len(shown) > _MOST_LINES else []
    return [*_code(finding.path, shown[:_MOST_LINES]), *cut]


def _code(path: str, lines: list[tuple[str, int, str]]) -> list[Text]:
    """Coloured line by line, as the signs stand between the lines of what a lexer would read."""
    syntax = Syntax("", Syntax.guess_lexer(path, lines[0][2]), theme=_THEME, background_color="default")
    width = len(str(lines[-1][1]))
    shown: list[Text] = []
    for sign, number, line in lines:
        coloured = syntax.highlight(_plain(line))
        coloured.rstrip()
        margin = (f"  {'' if sign == '-' else number:>{width}} ", "dim"), (f"{sign} ", _SIGNS.get(sign, ""))
        shown.append(Text.assemble(*margin, coloured))
    return shown


def _difference(finding: Finding) -> list[Text]:
    return [Text(f"  {_plain(line)}", style=_SIGNS.get(line[:1], "")) for line in difference(finding).split("\n")]


def _grounds(finding: Finding, root: Path) -> list[Text]:
    places = [
        Text.assemble(
            "  ", _place(root, place.path, place.start_line, place.end_line), (f" {_one_line(place.note)}", "dim")
        )
        for place in finding.precedents
    ]
    return places + [Text(f"  {_one_line(change)}", style="dim") for change in finding.changes]


def _without_secrets(lines: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """Looked for over all of the hunk, as a key may go over many lines; redacting keeps their number."""
    texts = redact("\n".join(text for _, _, text in lines))[0].split("\n")
    return [(sign, number, text) for (sign, number, _), text in zip(lines, texts, strict=True)]


def _plain(value: str) -> str:
    """Without what a terminal would obey, and without what it could not encode: a path need not be UTF-8."""
    return plain(value.encode("utf-8", "replace").decode("utf-8"))


def _one_line(value: str) -> str:
    return _plain(value).replace("\n", " ")
