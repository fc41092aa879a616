"""The decay curves that earlier versions were registered with."""

from __future__ import annotations

from .decay import Decay
from .registry import Registry

_SHOWN = 5
"""More lines than this cannot be told apart."""


def earlier_decays(registry: Registry, version: str) -> list[tuple[str, Decay]]:
    """The newest earlier versions with a curve of the same base model, oldest first.

    Versions that were registered before curves were measured, and collected ones, have none.
    """
    this = registry.get(version).manifest
    found = [
        (each.manifest.created, each.version, each.manifest.metrics["decay"])
        for each in registry.list()
        if each.version != version
        and each.manifest.base_sha256 == this.base_sha256
        and each.manifest.created <= this.created
        and each.manifest.metrics.get("decay", {}).get("bins")
    ]
    return [(name, Decay.from_json(stored)) for _, name, stored in sorted(found, key=lambda each: each[:2])][-_SHOWN:]
