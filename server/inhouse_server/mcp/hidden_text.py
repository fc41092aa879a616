"""What the tools return as a person would see it, so that the model that called reads nothing that nobody else does.

Titles of pull requests, pages of a wiki and names of files are written by many people, and so is code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inhouse_training.plain_text import hidden_characters, plain_line, visible, without_comments


def without_hidden_text(found: Mapping[str, Any]) -> dict[str, Any]:
    """``found`` without zero-width, bidirectional, tag and control characters, and without HTML comments in what is
    shown rendered; ``notes`` gets a sentence for each place that held some.

    A text that hides nothing stays as it is, emoji included, since a client may look for it in the file. A replacement
    that hides something is no longer the one that was proven, and is left out.
    """
    told: dict[str, None] = {}
    shown = {key: _shown(value, key, found, told) for key, value in found.items()}
    return shown if not told else shown | {"notes": [*shown.get("notes", ()), *told]}


def _shown(value: Any, key: str, around: Mapping[str, Any], told: dict[str, None]) -> Any:
    if isinstance(value, Mapping):
        return {_seen(name, "", around): _shown(inner, name, value, told) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(inner, key, around, told) for inner in value]
    if not isinstance(value, str) or (seen := _seen(value, key, around)) == value:
        return value
    path = around.get("path")
    where = f"What was found in {plain_line(path)}" if isinstance(path, str) else "What was found"
    told[f"{where} holds text that no reader sees; it was taken out."] = None
    return None if key == "replacement" else seen


def _seen(text: str, key: str, around: Mapping[str, Any]) -> str:
    if key == "changes":
        return plain_line(text) if hidden_characters(text) or "<!--" in text else text
    if key == "text" and around.get("source") in ("wiki", "pull_request"):
        text = without_comments(text, keep_lines=True)
    return visible(text) if hidden_characters(text) else text
