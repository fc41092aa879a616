"""Proof before a suggestion is shown: where the quoted code stands, and that the replacement applies and parses."""

from __future__ import annotations

import difflib
import io
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from inhouse_retrieval import syntax_errors
from inhouse_server.review.diff import Hunk, ReviewedFile

FUZZY = 0.9
"""Similarity (Ratcliff and Obershelp, as in difflib) from which a quotation counts as found."""
_FEWEST_CHARACTERS = 8

Refusal = Literal[
    "the quoted code is not in the hunk",
    "the quoted code stands at several places",
    "it changes nothing",
    "it only changes the layout",
    "what it adds is there already",
    "it does not apply",
    "it does not parse",
]


def find_quotation(quoted: str, file: ReviewedFile, hunk: Hunk) -> tuple[int, int] | Refusal:
    """Lines ``(first, last)`` of the file that ``quoted`` stands on, within the hunk; never a number from a model.

    Exactly, else with white space aside, else the one place that is nearly it.
    """
    wanted = quoted.replace("\r\n", "\n").strip("\n").split("\n")
    if sum(len(line.strip()) for line in wanted) < _FEWEST_CHARACTERS:
        return "the quoted code is not in the hunk"
    lines = [line.removesuffix("\r") for line in file.new_text.split("\n")]
    last_line = min(hunk.start + hunk.length - 1, len(lines))
    starts = range(hunk.start, last_line - len(wanted) + 2)
    for alike in (_same, _same_but_for_space, _nearly):
        found = [start for start in starts if alike(lines[start - 1 : start - 1 + len(wanted)], wanted)]
        if len(found) > 1:
            return "the quoted code stands at several places"
        if found:
            return found[0], found[0] + len(wanted) - 1
    return "the quoted code is not in the hunk"


def prove(file: ReviewedFile, first: int, last: int, replacement: str) -> tuple[str, Refusal | None]:
    """``(replacement as it is to be shown, None)``, or why it is not shown.

    Args:
        first, last: lines of the new file that it stands in place of, 1-based and inclusive.
        replacement: whole lines.

    It takes the file's own line ends, and the indentation of the first line where a model left it out.
    """
    lines = file.new_text.split("\n")
    crlf = file.new_text.count("\r\n") * 2 > file.new_text.count("\n")
    before = [line.removesuffix("\r") for line in lines[first - 1 : last]]
    after = _indented(replacement.replace("\r\n", "\n").strip("\n").split("\n"), before)
    if not replacement.strip():
        after = []
    if after == before:
        return "", "it changes nothing"
    if _without_layout(after) == _without_layout(before):
        return "", "it only changes the layout"
    near = (*lines[max(0, first - 1 - len(after)) : first - 1], *lines[last : last + len(after)])
    added = {line.strip() for line in after if line.strip() and line not in before}
    if added and added <= {line.strip() for line in near}:
        return "", "what it adds is there already"
    end = "\r" if crlf else ""
    changed = "\n".join([*lines[: first - 1], *(line + end for line in after), *lines[last:]])
    if not _applies(file.new_text, changed):
        return "", "it does not apply"
    errors = syntax_errors(file.path, changed)
    if errors is not None and errors > (syntax_errors(file.path, file.new_text) or 0):
        return "", "it does not parse"
    return "".join(f"{line}{end}\n" for line in after), None


def _applies(before: str, after: str) -> bool:
    """Whether git turns one text into the other by the patch between them: checked in a scratch folder."""
    patch = unified_patch(before, after)
    with tempfile.TemporaryDirectory(prefix="inhouse-proof-") as folder:
        (Path(folder) / "file").write_bytes(before.encode("utf-8", "surrogatepass"))
        done = subprocess.run(
            ["git", "apply", "--check", "--whitespace=nowarn", "-"],
            cwd=folder,
            input=patch.encode("utf-8", "surrogatepass"),
            capture_output=True,
            # Outside any repository, and with nobody's settings.
            env={"PATH": os.environ.get("PATH", os.defpath), "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)},
            check=False,
        )
    return bool(patch) and done.returncode == 0


def unified_patch(before: str, after: str) -> str:
    """The patch from one text to the other under the name ``file``, as ``git apply`` reads it."""
    old, new = (list(io.StringIO(text, newline="\n")) for text in (before, after))
    patch: list[str] = []
    for line in difflib.unified_diff(old, new, "a/file", "b/file"):
        patch.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(patch)


def _same(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    return list(lines) == list(wanted)


def _same_but_for_space(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(lines) == len(wanted) and _without_layout(lines) == _without_layout(wanted)


def _nearly(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    if len(lines) != len(wanted):
        return False
    sides = _without_layout(lines), _without_layout(wanted)
    return difflib.SequenceMatcher(None, *sides, autojunk=False).ratio() >= FUZZY


def _without_layout(lines: Sequence[str]) -> str:
    return re.sub(r"\s+", " ", " ".join(line.strip() for line in lines)).strip()


def _indented(lines: list[str], like: Sequence[str]) -> list[str]:
    """``lines`` moved to the indentation of the code that they replace, when they were written at the margin."""
    model = next((line for line in like if line.strip()), "")
    first = next((line for line in lines if line.strip()), "")
    indent = model[: len(model) - len(model.lstrip())]
    if not indent or first[:1] in " \t":
        return lines
    return [indent + line if line.strip() else line for line in lines]
