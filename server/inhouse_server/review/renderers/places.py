"""Where a finding stands in the change: its file, its hunk, its lines on both sides."""

from __future__ import annotations

from inhouse_server.review.change import Change, Hunk, ReviewedFile
from inhouse_server.review.finding import Finding


def file_of(change: Change, finding: Finding) -> ReviewedFile | None:
    """The changed file that the finding is about."""
    return next((file for file in change.files if file.path == finding.path and file.status != "removed"), None)


def hunk_around(file: ReviewedFile | None, first: int, last: int) -> Hunk | None:
    """The one hunk whose new side holds all of these lines. A forge takes a remark nowhere else."""
    hunks = file.hunks if file is not None else ()
    return next((hunk for hunk in hunks if hunk.start <= first <= last < hunk.start + hunk.length), None)


def line_texts(file: ReviewedFile | None) -> list[str]:
    """The lines of the file as the change leaves it, without their ends."""
    return file.lines if file is not None else []


def numbered(hunk: Hunk) -> list[tuple[str, int, str]]:
    """``(sign, number, text)`` of every line; a removed line has the number of the line that follows it now."""
    lines: list[tuple[str, int, str]] = []
    number = hunk.start
    for sign, text in hunk.lines:
        lines.append((sign, number, text))
        number += sign != "-"
    return lines


def old_line(file: ReviewedFile, line: int) -> int | None:
    """The number that an unchanged line of a hunk had before; ``None`` for an added line, and outside of hunks."""
    moved = 0
    for hunk in file.hunks:
        for sign, number, _ in numbered(hunk):
            if number == line and sign != "-":
                return line - moved if sign == " " else None
            moved += {"+": 1, "-": -1}.get(sign, 0)
    return None


def related(finding: Finding) -> list[tuple[str, int, int, str]]:
    """``(path, first, last, note)`` of the other places that a finding names: where it holds, too, and precedents."""
    also = [(finding.path, first, last, "the same here") for first, last in finding.also]
    return also + [(place.path, place.start_line, place.end_line, place.note) for place in finding.precedents]


def lines_of(finding: Finding) -> str:
    """``path:line`` or ``path:first-last``."""
    return span(finding.path, finding.start_line, finding.end_line)


def span(path: str, first: int, last: int) -> str:
    """``path:line`` or ``path:first-last``."""
    return f"{path}:{first}" if first >= last else f"{path}:{first}-{last}"
