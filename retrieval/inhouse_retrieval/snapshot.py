"""The files of a repository at one moment: those worth reading, and those that were left out, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrackedFile:
    """A file worth reading; ``path`` is relative to the root with forward slashes, ``size`` in bytes."""

    path: str
    blob_id: str
    size: int


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that was not read, and the reason in a few words."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one moment, sorted by path.

    Attributes:
        commit: the commit; for a work tree, the HEAD it sits on.
        files: what can be read. Whether a file is text shows only on reading.
        skipped: what is left out by name, size or kind.
        from_work_tree: whether the content is that on disk rather than that of ``commit``.
    """

    commit: str
    files: tuple[TrackedFile, ...]
    skipped: tuple[SkippedFile, ...]
    from_work_tree: bool = False
