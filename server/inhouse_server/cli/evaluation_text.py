"""What `inhouse eval model` prints for people: the figures of its JSON, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MODES = {
    "closed_book": "question alone",
    "with_retrieval": "with passages",
    "oracle": "with the file before the edit",
}
_TOO_FEW = "too few for an interval"
_LABELS = ("base", "current", "candidate")


def evaluation_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The lines, from :meth:`~inhouse_training.measures.model.ModelEvaluation.metrics`."""
    yield f"{metrics['held_out']['changes']} later changes; nats per token (bits per byte), lower is better"
    for kind, found in metrics["likelihood"].items():
        if not found["items"]:
            yield f"{kind.replace('_', ' ')}: none"
            continue
        for mode in (mode for mode in _MODES if mode in found):
            asked = "" if kind.startswith("general_") else f", {_MODES[mode]}"
            shown = ", ".join(
                f"{label} {found[mode][label]['nats_per_token']:.3f} ({found[mode][label]['bits_per_byte']:.3f})"
                for label in _LABELS
                if label in found[mode]
            )
            gains = "; ".join(
                f"{other.replace('over_', 'gain over ')} {_shown(gain['nats_per_token'])}"
                for other, gain in found[mode]["gain"].items()
            )
            yield f"{kind.replace('_', ' ')}, {found['items']}{asked}: {shown}; {gains or _TOO_FEW}"
    yield from _memory_lines(metrics["memory"])
    for name, found in metrics["answers"].items():
        for mode in (mode for mode in _MODES if mode in found):
            shown = ", ".join(f"{label} {found[mode][label]:.1%}" for label in _LABELS if label in found[mode])
            change = "; ".join(
                f"{other.replace('to_', 'difference to ')} {_difference(difference, found[mode]['items'])}"
                for other, difference in found[mode]["difference"].items()
            )
            better = ", lower is better" * (found["better"] == "lower")
            if "span_in_prompt" in found[mode]:
                better += f", in {found[mode]['span_in_prompt']:.0%} of the prompts"
            items = found[mode]["items"]
            yield f"{name.replace('_', ' ')}, {items}, {_MODES[mode]}{better}: {shown}; {change or _TOO_FEW}"
    for each in metrics["decay"]["bins"]:
        days = f"{each['first_day']:.0f} to {each['last_day']:.0f} days after the snapshot"
        loss = f"loss {each['loss']['mean']:.3f}"
        yield f"{days}, {each['changes']} changes: gain over base {_shown(each['gain'])}, {loss}"
    yield from filter(None, [metrics["decay"]["advice"], *metrics["remarks"]])
    seconds = metrics["seconds"]
    yield f"{seconds['scoring']:.0f} s of scoring" + (
        f", {seconds['asking']:.0f} s of asking" * bool(metrics["answers"])
    )


def _memory_lines(memory: Mapping[str, Any]) -> Iterator[str]:
    for files, which in (("known_files", "that it was trained on"), ("later_files", "that nobody knew")):
        found = memory[files]
        if not found["items"]:
            continue
        shown = ", ".join(
            f"{label} {found['prefix_tokens'][label]:.1f} tokens ({found['all_exact'][label]:.0%} to the end)"
            for label in _LABELS
            if label in found["prefix_tokens"]
        )
        of = f"first {memory['of_tokens']} tokens by heart"
        yield f"memory, not quality: {of}, {found['items']} files {which}: {shown}"


def _difference(interval: Mapping[str, float], items: int) -> str:
    """An interval without width at zero is no measure of how sure that is."""
    return _shown(interval) if any(interval.values()) else f"none, the same on all {items}"


def _shown(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:+.3f} (95 % interval {interval['low']:+.3f} to {interval['high']:+.3f})"
