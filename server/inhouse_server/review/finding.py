"""What a reviewer found: one type, many renderers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["warning", "info"]


@dataclass(frozen=True, slots=True)
class Precedent:
    """A place in the repository that shows how it is done here; lines are 1-based and inclusive."""

    path: str
    start_line: int
    end_line: int
    note: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about lines ``start_line`` to ``end_line`` (1-based, inclusive) of ``path`` as the change leaves it.

    Attributes:
        rule: which check speaks, such as ``"import-spelling"``.
        anchor: the text of those lines; ``""`` where the change does not hold the file, and only the file is meant.
        replacement: whole lines to stand in their place, already proven; ``None`` when there is none to offer.
        precedents: places that show the house's way.
        changes: past changes that show it, such as ``"#12 Retry payments"``.
        score: how sure, 0 to 1; comparable within a rule, and roughly between rules.
        also: further lines of the file, ``(first, last)``, that the same is to be said about.
    """

    path: str
    start_line: int
    end_line: int
    severity: Severity
    rule: str
    message: str
    anchor: str
    replacement: str | None = None
    precedents: tuple[Precedent, ...] = ()
    changes: tuple[str, ...] = ()
    score: float = 0.0
    key: str = ""
    also: tuple[tuple[int, int], ...] = ()

    @property
    def fingerprint(self) -> str:
        """The same for the same remark about the same text, wherever later pushes move it.

        ``key`` names what a remark is about that rests on no line of its own, or whose message holds counts that grow.
        """
        said = self.key or f"{' '.join(self.anchor.split())}\0{' '.join(self.message.split()).lower()}"
        told = "\0".join((self.path, self.rule, said))
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was looked at.

    Attributes:
        files, hunks: read by the checks of the house.
        lines: added lines among them.
        unread: path -> why a changed file was not read.
        seen, unseen: hunks that the reading reviewer read, and those that it did not, each ``path:line`` with its
            reason; both empty when it was not asked.
        partly: those of the seen ones that it read in part, each ``path:line`` with which part.
    """

    files: int
    hunks: int
    lines: int
    unread: dict[str, str] = field(default_factory=dict)
    seen: int = 0
    unseen: tuple[str, ...] = ()
    partly: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Review:
    """A finished review.

    Attributes:
        base, head: what was compared, as a person would name it.
        findings: best first; at most as many as were asked for.
        more: findings beyond that number.
        repeated: findings left out since they were shown for an earlier push.
        dropped: reason -> how many remarks or replacements were dropped because they could not be proven.
        worst: the gravest severity of all that was found, shown or not; ``None`` when nothing was.
        notes: sentences about the change's own text, such as what was stripped from it.
        base_model, adapter: which model read, ``None`` when none did.
    """

    base: str
    head: str
    head_commit: str
    findings: tuple[Finding, ...]
    coverage: Coverage
    more: int = 0
    repeated: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    worst: Severity | None = None
    notes: tuple[str, ...] = ()
    base_model: str | None = None
    adapter: str | None = None
