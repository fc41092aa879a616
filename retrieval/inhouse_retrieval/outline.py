"""How a file is built: what it defines, what each line lies inside of, and how deep.

From its syntax where there is a grammar (:mod:`inhouse_retrieval.syntax`); otherwise from headings, or from indentation
and the words that most languages begin a definition with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inhouse_retrieval.syntax import Syntax, parse

_DEFINITION = re.compile(
    r"""^(?P<indent>[ \t]*)
    (?:(?:export|default|declare|public|private|protected|internal|static|async|abstract|final|sealed|open|override
        |inline|virtual|unsafe|extern|pub(?:\([a-z]+\))?|data|partial|readonly)\s+)*
    (?:
        (?:class|interface|struct|enum|trait|impl|def|func|fn|fun|function\*?|module|namespace|object|record|protocol
           |extension|type|union|macro_rules!|sub|procedure|package)\s+(?:\([^)]*\)\s*)?(?:<[^>]*>\s*)?(?P<name>[A-Za-z_$][\w$]*)
      | (?:const|let|var|val)\s+(?P<value>[A-Za-z_$][\w$]*)\s*(?::[^=]+)?=\s*(?:async\s*)?
        (?:function\b|\(.*=>|\w+\s*=>|\($|<|React\.|styled|css)
      | (?P<heading>\#{1,6})\s+(?P<title>\S.*)
    )""",
    re.X,
)
_LEADS_IN = re.compile(r"^\s*(@\w|#\[|//|/\*|\*|#(?!include)|--|\"\"\"|<!--)")
"""Decorators, attributes and comments: they belong to the definition below them."""

_NEUTRAL = re.compile(r"^\s*([)\]}>]|#|//|/?\*|--)")
_HEADED_FILE = re.compile(r"\.(md|mdx|markdown|rst|txt)$", re.I)


@dataclass(frozen=True, slots=True)
class Outline:
    """One file, row by row (0-based).

    Attributes:
        definitions: row at which a definition begins -> what it defines; with headings, what they say.
        enclosing: for each row, the names of the definitions or headings that it is inside of, outermost first.
        depths: for each row, how much a cut above it would take apart; 4 is about one level.
    """

    definitions: dict[int, str]
    enclosing: Sequence[tuple[str, ...]]
    depths: Sequence[int]


def outline(path: str, lines: Sequence[str]) -> Outline:
    """How the file at ``path`` is built."""
    syntax = parse(path, "\n".join(lines))
    if syntax is not None:
        return _from_syntax(syntax, len(lines))
    found = _definitions(path, lines)
    names = {row: name for row, (_, name) in found.items()}
    depths = [found[row][0] if row in found else _indent(line) for row, line in enumerate(lines)]
    return Outline(names, _enclosing(path, lines, found), depths)


def _from_syntax(syntax: Syntax, rows: int) -> Outline:
    definitions: dict[int, str] = {}
    enclosing: list[tuple[str, ...]] = [()] * rows
    for definition in syntax.definitions:  # outer ones come first
        definitions.setdefault(definition.first, definition.name)
        inside = (*enclosing[definition.first], definition.name)
        for row in range(definition.first + 1, definition.last + 1):
            enclosing[row] = inside
    return Outline(definitions, enclosing, [depth * 4 for depth in syntax.depths])


def leads_in(line: str) -> bool:
    """Whether ``line`` is a decorator, an attribute or a comment: they belong to the definition below them."""
    return _LEADS_IN.match(line) is not None


def _definitions(path: str, lines: Sequence[str]) -> dict[int, tuple[int, str]]:
    """Row -> (depth, name). Depth is the indentation, or the level of a heading in a document."""
    found: dict[int, tuple[int, str]] = {}
    document = _HEADED_FILE.search(path) is not None
    for row, line in enumerate(lines):
        match = _DEFINITION.match(line[:300])
        if match is None:
            continue
        if match["heading"]:
            if document:
                found[row] = (len(match["heading"]), match["title"].strip().strip("#").strip()[:60])
        elif not document:
            found[row] = (_indent(line), match["name"] or match["value"])
    return found


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def _enclosing(path: str, lines: Sequence[str], definitions: dict[int, tuple[int, str]]) -> list[tuple[str, ...]]:
    """For each row, the names of the definitions or headings that it is inside of, outermost first."""
    if not definitions:
        return [()] * len(lines)
    document = _HEADED_FILE.search(path) is not None
    stack: list[tuple[int, str]] = []
    names: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    for row, line in enumerate(lines):
        defines = definitions.get(row)
        # In code, a line as shallow as a definition ends it; closing brackets and comments do not count.
        ends = not document and line.strip() and not _NEUTRAL.match(line)
        depth = defines[0] if defines is not None else _indent(line) if ends else None
        if depth is not None and stack and stack[-1][0] >= depth:
            while stack and stack[-1][0] >= depth:
                stack.pop()
            names = tuple(name for _, name in stack)
        rows.append(names)
        if defines is not None:
            stack.append(defines)
            names = (*names, defines[1])
    # Blank rows and comments above a definition read as part of what follows.
    for row in range(len(rows) - 2, -1, -1):
        if not document and (not lines[row].strip() or _LEADS_IN.match(lines[row])):
            rows[row] = rows[row + 1]
    return rows
