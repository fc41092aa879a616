"""The versions of a registry as a report shows them: what each was made of, what it gained, what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .evaluation import Interval
from .registry import ROLLBACK, AdapterVersion, Promotion, Registry
from .report_page import Table

_SHOWN = 20
"""Older ones are counted."""


@dataclass(frozen=True, slots=True)
class PastVersion:
    """One version.

    Attributes:
        made: when, in ISO 8601; empty where its files are gone, and with them all but what became of it.
        snapshot: the commit whose tree it was trained on.
        gain: over the base model when it was judged, in nats per token; ``None`` where it was not.
        outcome: what became of it, in words.
        reason: the first that the gate gave, as a sentence; empty where it gave none.
        served: whether it is current.
    """

    version: str
    made: str
    snapshot: str
    recipe: str
    gain: Interval | None
    outcome: str
    reason: str
    served: bool


def version_history(registry: Registry) -> tuple[PastVersion, ...]:
    """Every version that is there or was ever promoted, newest first."""
    history, current = registry.history(), registry.current()
    there = {each.version: each for each in registry.list()}
    gone = dict.fromkeys(entry.version for entry in history if entry.version and entry.version not in there)
    names = [*gone, *there]
    return tuple(_past(name, there.get(name), history, name == current) for name in reversed(names))


def _past(name: str, version: AdapterVersion | None, history: Sequence[Promotion], served: bool) -> PastVersion:
    outcome = _outcome(name, version, history)
    if version is None:
        return PastVersion(name, "", "", "", None, f"{outcome}; removed since", "", served)
    manifest = version.manifest
    metrics: dict[str, Any] = dict(manifest.metrics)
    gain, reasons = metrics.get("gain", {}).get("over_base"), metrics.get("gate", ())
    return PastVersion(
        name,
        manifest.created,
        manifest.snapshot,
        str(manifest.recipe.get("name", "")),
        Interval(gain["mean"], gain["low"], gain["high"]) if gain else None,
        outcome,
        next(iter(reasons), ""),
        served,
    )


def _outcome(name: str, version: AdapterVersion | None, history: Sequence[Promotion]) -> str:
    notes = [entry.note for entry in history if entry.version == name and not entry.note.startswith(ROLLBACK)]
    if not notes:
        return "rejected" if version is not None and version.manifest.evaluated else "not evaluated"
    by_hand = all(note.startswith("by hand") for note in notes)
    left = any(entry.note.startswith(f"{ROLLBACK} {name}.") for entry in history)
    return f"promoted{' by hand' if by_hand else ''}{', rolled back from' if left else ''}"


def version_tables(versions: Sequence[PastVersion]) -> list[Table]:
    """The table of a history; none where there is no version."""
    if not versions:
        return []
    rows = [
        (
            each.version,
            each.made[:10] or "?",
            each.snapshot[:12] or "?",
            each.recipe or "?",
            f"{each.gain.mean:+.3f} ({each.gain.low:+.3f} to {each.gain.high:+.3f})" if each.gain else "not measured",
            f"{each.outcome}; served now" if each.served else each.outcome,
            each.reason,
        )
        for each in versions[:_SHOWN]
    ]
    served = next((each.version for each in versions if each.served), "the base model alone")
    note = f"Served now: {served}. Each gain is over the base model, in nats per token with its 95 % interval, on the "
    note += "changes that followed that version's own snapshot, so gains of two versions are not of the same changes."
    if len(versions) > _SHOWN:
        note += f" {len(versions) - _SHOWN} older ones are not shown."
    head = ("version", "made", "commit", "recipe", "gain over the base model", "outcome", "first reason")
    return [Table("History of versions, newest first", head, tuple(rows), note)]
