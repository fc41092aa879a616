"""Whether a candidate is promoted. The bounds are constants: no caller, recipe or setting changes them."""

from __future__ import annotations

from dataclasses import dataclass

from .dataset import LEAST_HELD_OUT
from .engine import BASE
from .evaluation import CANDIDATE, CURRENT, WITH_RETRIEVAL, Evaluation

MAX_FORGETTING = 0.35
"""Nats per token by which general text may become harder than for the base model. SmolLM2-135M with rank 64
forgot 0.17 (Python) and 0.27 (English) on a real repository while it gained 0.5 on later changes; worse
than about that is damage."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Promote or reject, and every reason, each a sentence."""

    promote: bool
    reasons: tuple[str, ...]


def decide(evaluation: Evaluation) -> Decision:
    """Promote only a candidate that is better at later changes than everything it would replace.

    All are required, in the way that the product answers (with retrieval, unless the repository is
    configured without):

    - its loss is below that of the base model, with the whole 95 % interval of the difference above zero;
    - the same against the adapter that is current, when there is one;
    - no kind of general text became harder than for the base model by more than :data:`MAX_FORGETTING`.
    """
    passed: list[str] = []
    failed: list[str] = []
    if len(evaluation.changes) < LEAST_HELD_OUT:
        failed.append(f"Only {len(evaluation.changes)} held-out changes: too few to judge by.")
    mode = evaluation.served_mode
    way = "with retrieval" if mode == WITH_RETRIEVAL else "without retrieval"
    for other, name in ((BASE, "the base model"), (CURRENT, "the current adapter")):
        if other not in evaluation.scores[mode]:
            continue
        gain = evaluation.gain(mode, CANDIDATE, other)
        figures = f"{gain.mean:+.3f} nats per token (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"
        if gain.low > 0:
            passed.append(f"Better than {name} on {len(evaluation.changes)} later changes {way}: {figures}.")
        else:
            failed.append(f"Not surely better than {name} on later changes {way}: {figures}.")
    for kind, loss in evaluation.forgetting[CANDIDATE].items():
        forgot = loss - evaluation.forgetting[BASE][kind]
        figures = f"{forgot:+.3f} nats per token, at most {MAX_FORGETTING:+.2f} is allowed"
        if forgot <= MAX_FORGETTING:
            passed.append(f"Forgetting of {kind} is within bounds: {figures}.")
        else:
            failed.append(f"It forgot too much of {kind}: {figures}.")
    return Decision(not failed, tuple(failed) if failed else tuple(passed))
