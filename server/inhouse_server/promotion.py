"""Promotion and rollback by hand, as `inhouse adapters` and the admin page do them."""

from __future__ import annotations

from dataclasses import dataclass

from inhouse_retrieval.errors import InhouseError
from inhouse_training import BASE, Judged, Registry


@dataclass(frozen=True, slots=True)
class ByHand:
    """What came of it.

    Attributes:
        current: the version that is current now; ``None`` for the base model alone.
        warning: what whoever did it should know, as a sentence; mostly empty.
    """

    current: str | None
    warning: str = ""


def promote_by_hand(
    registry: Registry, version: str, base_model: str, by: str = "by hand", seen: Judged | None = None
) -> ByHand:
    """Make ``version`` current, or for :data:`~inhouse_training.BASE` the base model alone.

    Args:
        base_model: the one that is served.
        by: for the registry's history.
        seen: what was current when whoever promotes looked.

    Raises:
        Overtaken: another version is current than ``seen`` says.
        InhouseError: there is no such version, it is damaged, or was made for another base model.
    """
    if version == BASE:
        registry.use_base(by, judged_against=seen)
        return ByHand(None)
    manifest = registry.get(version).manifest
    if manifest.base_model != base_model:
        raise InhouseError(
            f"{version} was made for {manifest.base_model}, and {base_model} is what is served here: no answer could "
            "be made with it.",
            f"Set base_model = {manifest.base_model!r} in inhouse.toml first, or promote a version of {base_model}.",
        )
    registry.promote(version, by if manifest.evaluated else f"{by}, not evaluated", judged_against=seen)
    if manifest.evaluated:
        return ByHand(version)
    return ByHand(version, f"{version} was never evaluated: nothing says whether it is better than what it replaces.")
