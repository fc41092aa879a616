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

from inhouse_retrieval import is_same_code, syntax_errors
from inhouse_server.review.change import CONTEXT, Hunk, ReviewedFile

FUZZY = 0.9
"""Similarity (Ratcliff and Obershelp, as in difflib) from which a quotation counts as found."""
FUZZY_LINE = 0.7
"""What each line of it must reach by itself."""
_FEWEST_CHARACTERS = 8
_MOST_LINES = 60
_LONGEST_LINE = 300
"""A longer line is found only when it is quoted as it is."""

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
    if sum(len(line.strip()) for line in wanted) < _FEWEST_CHARACTERS or len(wanted) > _MOST_LINES:
        return "the quoted code is not in the hunk"
    last_line = min(hunk.start + hunk.length - 1, len(file.lines))
    starts = range(hunk.start, last_line - len(wanted) + 2)
    for alike in (_same, _same_but_for_space, _nearly):
        found = [start for start in starts if alike(file.lines[start - 1 : start - 1 + len(wanted)], wanted)]
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
    end = "\r\n" if file.new_text.count("\r\n") * 2 > file.new_text.count("\n") else "\n"
    before = file.lines[first - 1 : last]
    after = _indented(replacement.replace("\r\n", "\n").strip("\n").split("\n"), before)
    if not replacement.strip():
        after = []
    if after == before:
        return "", "it changes nothing"
    near = (*file.lines[max(0, first - 1 - len(after)) : first - 1], *file.lines[last : last + len(after)])
    added = {line.strip() for line in after if line.strip() and line not in before}
    if added and added <= {line.strip() for line in near}:
        return "", "what it adds is there already"
    shown = "".join(f"{line}{end}" for line in after)
    changed = applied(file.new_text, first, last, shown)
    if changed is None:
        return "", "it does not apply"
    same = is_same_code(file.path, file.new_text, changed)
    if same or (same is None and _without_layout(after) == _without_layout(before)):
        return "", "it only changes the layout"
    errors = syntax_errors(file.path, changed)
    if errors is not None and errors > (syntax_errors(file.path, file.new_text) or 0):
        return "", "it does not parse"
    return shown, None


def applied(text: str, first: int, last: int, replacement: str) -> str | None:
    """The text after git has applied the replacement as a patch in a scratch folder; ``None`` when git refuses it."""
    with tempfile.TemporaryDirectory(prefix="inhouse-proof-") as folder:
        file = Path(folder) / "file"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            cwd=folder,
            input=replacing_patch(text, first, last, replacement).encode("utf-8", "surrogatepass"),
            capture_output=True,
            # Outside any repository, and with nobody's settings.
            env={"PATH": os.environ.get("PATH", os.defpath), "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)},
            check=False,
        )
        return file.read_bytes().decode("utf-8", "surrogatepass") if done.returncode == 0 else None


def replacing_patch(text: str, first: int, last: int, replacement: str) -> str:
    """The patch that puts ``replacement`` in place of lines ``first`` to ``last``, with the lines around as context."""
    lines = list(io.StringIO(text, newline="\n"))
    new = list(io.StringIO(replacement, newline="\n"))
    if last == len(lines) and new and lines and not lines[-1].endswith("\n"):
        new[-1] = new[-1].removesuffix("\n").removesuffix("\r")  # the file goes on without a last line end
    before, after = lines[max(0, first - 1 - CONTEXT) : first - 1], lines[last : last + CONTEXT]
    old_count, new_count = (len(before) + len(part) + len(after) for part in (lines[first - 1 : last], new))
    start = max(1, first - len(before)) if new_count else 0
    body = [
        *(f" {line}" for line in before),
        *(f"-{line}" for line in lines[first - 1 : last]),
        *(f"+{line}" for line in new),
        *(f" {line}" for line in after),
    ]
    marked = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in body)
    head = f"--- a/file\n+++ b/file\n@@ -{max(1, first - len(before))},{old_count} +{start},{new_count} @@\n"
    return head + marked


def _same(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    return list(lines) == list(wanted)


def _same_but_for_space(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(lines) == len(wanted) and _without_layout(lines) == _without_layout(wanted)


def _nearly(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    """Line by line, since comparing long texts takes time that grows with the square of their length."""
    if len(lines) != len(wanted):
        return False
    weight = alike = 0.0
    for line, other in zip(lines, wanted, strict=True):
        left, right = " ".join(line.split()), " ".join(other.split())
        ratio = 1.0 if left == right else _likeness(left, right)
        if ratio < FUZZY_LINE:
            return False
        weight += len(left) + len(right)
        alike += ratio * (len(left) + len(right))
    return weight > 0 and alike >= FUZZY * weight


def _likeness(left: str, right: str) -> float:
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    if max(len(left), len(right)) > _LONGEST_LINE or matcher.quick_ratio() < FUZZY_LINE:
        return 0.0
    return matcher.ratio()


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
