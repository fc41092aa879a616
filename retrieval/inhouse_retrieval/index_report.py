"""What a refresh of the index did, and what the index holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inhouse_retrieval.snapshot import SkippedFile


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a refresh did.

    Attributes:
        files: files of the work tree that the index now holds.
        chunks: chunks that they were cut into.
        embedded: chunks whose vector was computed by this refresh.
        reused: chunks whose vector was there already.
        skipped: what was not indexed, each with its reason.
        seconds: wall time.
        commit: HEAD at the beginning.
        redactions: secrets that were taken out of what the index holds: ``(path, line, kind)``, never the value.
        without_syntax: suffix -> how many of the files have no grammar and were cut by headings and indentation.
        changed: files that were added, changed or deleted since the refresh before.
        encoder: what the vectors were made by.
        former_encoder: what they had been made by before this refresh, where that was another one; empty elsewhere.
        named: it looked at named files only, and ``skipped``, ``redactions`` and ``without_syntax`` tell of those.
    """

    files: int
    chunks: int
    embedded: int
    reused: int
    skipped: tuple[SkippedFile, ...]
    seconds: float
    commit: str
    redactions: tuple[tuple[str, int, str], ...] = ()
    without_syntax: Mapping[str, int] = field(default_factory=dict)
    changed: int = 0
    encoder: str = ""
    former_encoder: str = ""
    named: bool = False


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What the index holds.

    Attributes:
        commit: HEAD at the last refresh; empty when there was none.
        pending: files added, changed or deleted since.
        unembedded: chunks that only the lexical leg can find so far.
    """

    commit: str
    files: int
    chunks: int
    pending: int
    unembedded: int = 0
