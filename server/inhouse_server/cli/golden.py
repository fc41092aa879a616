"""Making the golden record of a version, which takes the base model into this process for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inhouse_retrieval.progress import Progress

if TYPE_CHECKING:
    from inhouse_training import Golden, Registry


def note_golden(registry: Registry, version: str, base_model: str, progress: Progress) -> Golden:
    """Score the fixed texts with ``version`` and keep the record beside its weights.

    Raises:
        InhouseError: no such version, damaged, or of another base model.
    """
    from inhouse_training import TransformersEngine, keep_golden, load_tokenizer, make_golden, resolve_base_model

    registry.verify(version)
    progress("loading the model", 0, None)
    base = resolve_base_model(base_model, progress)
    engine = TransformersEngine(base, registry.verify)
    progress("scoring the fixed texts", 0, None)
    made = make_golden(engine, load_tokenizer(base), version)
    keep_golden(registry, made)
    return made
