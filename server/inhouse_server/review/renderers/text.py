"""Sentences that several formats say. They are plain text: whoever sends them to a forge makes them harmless first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from inhouse_server.review.finding import Coverage, Finding, Review
from inhouse_server.review.posting.inert import why_code_acts
from inhouse_server.review.renderers.harmless import code, fence, harmless, harmless_line, visible
from inhouse_server.review.renderers.places import span

_NAMED = 5
"""Files and hunks that are named in a sentence; the rest is counted."""


def headline(review: Review) -> str:
    """How many findings, then what was looked at: a good review may find nothing, and then that is what it says."""
    found = count(len(review.findings), "finding") if review.findings else "No findings"
    return f"{found}. {coverage(review.coverage)}"


def coverage(coverage: Coverage) -> str:
    """``3 files, 5 hunks, 40 added lines were read; 1 changed file was not: symbolic link.``"""
    said = [
        f"{count(coverage.files, 'file')}, {count(coverage.hunks, 'hunk')}, "
        f"{count(coverage.lines, 'added line')} were read"
    ]
    if coverage.seen or coverage.unseen:
        of = coverage.seen + len(coverage.unseen)
        partly = f" ({len(coverage.partly):,} partly seen)" if coverage.partly else ""
        said.append(f"the model read {coverage.seen:,} of {count(of, 'hunk')}{partly}")
    if coverage.unread:
        reasons = Counter(coverage.unread.values()).most_common()
        total = len(coverage.unread)
        named = ", ".join(reason if times == total else f"{reason} ({times})" for reason, times in reasons)
        said.append(f"{count(total, 'changed file')} {_were(total)} not: {named}")
    return f"{'; '.join(said)}."


def not_read(coverage: Coverage) -> list[str]:
    """Which files and hunks were not read, or in part: whoever writes a change must not decide that unseen."""
    said = []
    if coverage.unread:
        said.append(f"Not read: {_listed([f'{path} ({reason})' for path, reason in coverage.unread.items()])}.")
    if coverage.unseen and coverage.seen:
        said.append(f"Not seen by the model: {_listed(coverage.unseen)}.")
    if coverage.partly:
        said.append(f"Partly seen by the model: {_listed(coverage.partly)}.")
    return said


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return "; ".join((*items[:_NAMED], *([f"and {more:,} more"] if more > 0 else [])))


def left_out(review: Review) -> list[str]:
    """One sentence for each kind of thing that is not shown."""
    said: list[str] = []
    if review.more:
        said.append(f"{count(review.more, 'more finding')} {_were(review.more)} held back as less sure.")
    if review.repeated:
        said.append(
            f"{count(review.repeated, 'finding')} shown for an earlier push {_are(review.repeated)} not repeated."
        )
    if review.dropped:
        total = sum(review.dropped.values())
        reasons = ", ".join(f"{reason} ({times})" for reason, times in review.dropped.items())
        said.append(
            f"{count(total, 'remark or replacement', 'remarks or replacements')} not proven and dropped: {reasons}."
        )
    return said


def provenance(review: Review) -> str:
    """Which model read; empty when none did."""
    if review.base_model is None:
        return ""
    return f"Read by {review.base_model} with {f'adapter {review.adapter}' if review.adapter else 'no adapter'}."


def sentences(review: Review) -> list[str]:
    """All of it, best known first."""
    said = [headline(review), *not_read(review.coverage), *left_out(review), *review.notes, provenance(review)]
    return [sentence for sentence in said if sentence]


def also(lines: Sequence[tuple[int, int]]) -> str:
    """``Also at lines 12, 15-17 and 3 more places.``; empty where there is no other place."""
    places = [str(first) if first == last else f"{first}-{last}" for first, last in lines]
    if not places:
        return ""
    more = len(places) - _NAMED
    last = f"{more:,} more {'place' if more == 1 else 'places'}" if more > 0 else places.pop()
    named = ", ".join(places[:_NAMED])
    several = named or "-" in last
    return f"Also at {'lines' if several else 'line'} {f'{named} and ' if named else ''}{last}."


def message(finding: Finding) -> str:
    """What is said, and where else that holds, as harmless Markdown."""
    return "\n\n".join(filter(None, (harmless(finding.message), also(finding.also))))


def remark(finding: Finding) -> str:
    """A finding as harmless Markdown, without its place and its suggestion."""
    parts = [f"**{finding.severity}** {code(finding.rule)}", message(finding)]
    if finding.precedents:
        parts.append(
            "\n".join(
                f"- {code(span(place.path, place.start_line, place.end_line))}: {harmless_line(place.note)}"
                for place in finding.precedents
            )
        )
    if finding.changes:
        parts.append(f"Past changes: {'; '.join(map(harmless_line, finding.changes))}")
    return "\n\n".join(parts)


def instead(replacement: str | None) -> list[str]:
    """A replacement that can be read and not applied; nothing where there is none."""
    if replacement is None:
        return []
    if replacement == "":
        return ["Instead: nothing; these lines can go."]
    return ["Instead:", fence(visible(whole_lines(replacement)))]


def offered(replacement: str | None) -> tuple[str | None, list[str]]:
    """What may be applied by one click, and what is shown instead where bots or readers would be misled by it."""
    if replacement is not None and why_code_acts(whole_lines(replacement)):
        return None, instead(replacement)
    return replacement, []


def whole_lines(replacement: str) -> str:
    """A replacement with ``\\n`` alone, as a forge takes it in a comment; it keeps the file's own line ends itself."""
    return replacement.replace("\r\n", "\n")


def count(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``2,000 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
