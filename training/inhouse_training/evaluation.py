"""How well an adapter predicts later changes, and what it forgot: mean loss in nats per token, lower is
better.

Each held-out change is asked for as in the product: the change's title and the path that it edits, which a
developer knows before writing. What is scored is the lines that the change then added to that path, capped
per change. Two ways:

- ``closed_book``: the question alone.
- ``with_retrieval``: the question with passages of the training snapshot, in the product's own prompt. The
  passages come from the past only.

Differences are paired by change, with 95 % intervals from a bootstrap over changes (Efron, 1979).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inhouse_retrieval import Progress, no_progress

from .cut import HeldOutChange
from .engine import Engine, Message, RowScore, ScoredRow
from .forgetting_texts import FORGETTING_TEXTS
from .prompts import IGNORED, build_answer_prompt, chat_row, edit_question, raw_row
from .recipe import EvaluationSettings
from .snapshot_search import Retriever

CLOSED_BOOK = "closed_book"
WITH_RETRIEVAL = "with_retrieval"
CURRENT = "current"
CANDIDATE = "candidate"

_RESAMPLES = 4000
_SEED = 3407
_PASSAGES = 8
_GROUP_TOKENS = 16_384
"""Handed to the engine at once: as much as it reads in one step on a GPU, and some seconds on a CPU."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference in nats per token with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one set of held-out changes.

    Attributes:
        changes: commit ids of the changes, in the order of every score list.
        scores: mode -> adapter label (``"base"``, ``"current"``, ``"candidate"``) -> one score per change.
        forgetting: adapter label -> kind of general text -> nats per token.
    """

    changes: tuple[str, ...]
    scores: dict[str, dict[str, tuple[RowScore, ...]]]
    forgetting: dict[str, dict[str, float]]

    @property
    def served_mode(self) -> str:
        """The way that the product answers: with retrieval, unless the repository is configured without
        it."""
        return WITH_RETRIEVAL if WITH_RETRIEVAL in self.scores else CLOSED_BOOK

    def loss(self, mode: str, label: str) -> float:
        """Nats per token over all changes."""
        return _mean(self.scores[mode][label])

    def gain(self, mode: str, label: str, over: str) -> Interval:
        """How much lower the loss of ``label`` is than that of ``over``."""
        return paired_gain(self.scores[mode][over], self.scores[mode][label])

    def metrics(self) -> dict[str, Any]:
        """Figures for reports and manifests."""
        held_out: dict[str, Any] = {"changes": len(self.changes)}
        for mode, labels in self.scores.items():
            held_out[mode] = {label: round(self.loss(mode, label), 4) for label in labels}
            held_out[mode]["tokens"] = sum(score.tokens for score in next(iter(labels.values())))
        gains = {
            f"over_{other}": _rounded(self.gain(self.served_mode, CANDIDATE, other))
            for other in self.scores[self.served_mode]
            if other != CANDIDATE
        }
        forgetting = {
            label: {kind: round(loss, 4) for kind, loss in kinds.items()} for label, kinds in self.forgetting.items()
        }
        return {"held_out": held_out, "gain": gains, "forgetting": forgetting}

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return asdict(self)

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Evaluation:
        """What :meth:`to_json` gave."""
        scores = {
            mode: {label: tuple(RowScore(**score) for score in rows) for label, rows in labels.items()}
            for mode, labels in stored["scores"].items()
        }
        return Evaluation(tuple(stored["changes"]), scores, stored["forgetting"])


def evaluate(
    engine: Engine,
    tokenizer: Any,
    held_out: Sequence[HeldOutChange],
    retriever: Retriever | None,
    adapters: Mapping[str, str],
    settings: EvaluationSettings,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score every adapter on the same rows.

    Args:
        tokenizer: the base model's.
        retriever: searches the training snapshot; ``None`` leaves the mode ``with_retrieval`` out.
        adapters: label -> adapter name of the engine, such as ``{"base": BASE, "candidate": "3f…"}``.

    Raises:
        InhouseError: the engine cannot score.
    """
    rows = {CLOSED_BOOK: [change_row(engine, tokenizer, change, None, settings) for change in held_out]}
    if retriever is not None:
        rows[WITH_RETRIEVAL] = [change_row(engine, tokenizer, change, retriever, settings) for change in held_out]
    probes = {kind: [forgetting_row(tokenizer, text) for text in texts] for kind, texts in FORGETTING_TEXTS.items()}
    total = len(adapters) * sum(len(group) for group in [*rows.values(), *probes.values()])
    done = 0
    progress("evaluating", done, total)

    def scored(count: int) -> None:
        nonlocal done
        done += count
        progress("evaluating", done, total)

    def score(group: Sequence[ScoredRow], adapter: str) -> tuple[RowScore, ...]:
        return score_rows(engine, group, adapter, scored)

    scores: dict[str, dict[str, tuple[RowScore, ...]]] = {mode: {} for mode in rows}
    forgetting: dict[str, dict[str, float]] = {}
    for label, adapter in adapters.items():
        for mode, group in rows.items():
            scores[mode][label] = score(group, adapter)
        forgetting[label] = {kind: _mean(score(group, adapter)) for kind, group in probes.items()}
    return Evaluation(tuple(change.commit for change in held_out), scores, forgetting)


def score_rows(
    engine: Engine, rows: Sequence[ScoredRow], adapter: str, scored: Callable[[int], None] = lambda count: None
) -> tuple[RowScore, ...]:
    """The score of each row, in the order given. Rows of like length are read together, since a batch is padded.

    Args:
        scored: hears how many more rows are done.

    Raises:
        InhouseError: the engine cannot score.
    """
    found: list[RowScore] = [RowScore(0.0, 0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at].input_ids))
    while order:
        size = max(1, _GROUP_TOKENS // max(1, len(rows[order[0]].input_ids)))
        group, order = order[:size], order[size:]
        for at, score in zip(group, engine.score([rows[at] for at in group], adapter), strict=True):
            found[at] = score
        scored(len(group))
    return tuple(found)


def change_row(
    engine: Engine,
    tokenizer: Any,
    change: HeldOutChange,
    retriever: Retriever | None,
    settings: EvaluationSettings,
) -> ScoredRow:
    """The product's prompt for a change, answered by the lines that it added; only those are scored."""
    question = bounded_question(engine, change, settings)
    passages = retriever(f"{change.title} {change.path}", _PASSAGES) if retriever is not None else ()
    prompt = build_answer_prompt(question, passages, engine.count_tokens, settings.prompt_tokens)
    # A token is rarely longer than this many characters, so the cap below still decides.
    answer = change.added[: settings.scored_tokens * 32]
    ids, labels = chat_row(tokenizer, [*prompt.messages, Message("assistant", answer)])
    special = set(tokenizer.all_special_ids)
    # The end of the turn is not scored: most answers are cut at the cap, and a cut is no end.
    scored = [at for at, label in enumerate(labels) if label != IGNORED and label not in special]
    kept = scored[: settings.scored_tokens]
    end = kept[-1] + 1
    wanted = set(kept)
    return ScoredRow(
        tuple(ids[:end]), tuple(label if at in wanted else IGNORED for at, label in enumerate(labels[:end]))
    )


def bounded_question(engine: Engine, change: HeldOutChange, settings: EvaluationSettings) -> str:
    """The question for a change; a title of many tokens is shortened until three quarters of the prompt hold it."""
    room = settings.prompt_tokens * 3 // 4
    path = change.path
    for title in (
        change.title,
        *(change.title[:length] + "…" for length in (120, 60, 30, 15) if length < len(change.title)),
    ):
        question = edit_question(title, path)
        if engine.count_tokens(build_answer_prompt(question, (), engine.count_tokens, 1 << 30).messages) <= room:
            return question
    return f"Write the lines to add to {path.rpartition('/')[2][-40:]}."


def forgetting_row(tokenizer: Any, text: str) -> ScoredRow:
    """General text, every token scored."""
    ids, labels = raw_row(tokenizer, text, ends=False)
    return ScoredRow(tuple(ids), tuple(labels))


def paired_gain(reference: Sequence[RowScore], scores: Sequence[RowScore]) -> Interval:
    """How much lower ``scores`` are than ``reference``, in nats per token.

    A bootstrap over rows, whose seed follows from the scores: the same scores always give the same interval.
    """
    import numpy

    before = numpy.array([row.nats for row in reference])
    after = numpy.array([row.nats for row in scores])
    tokens = numpy.array([row.tokens for row in scores], dtype=float)
    seed = int.from_bytes(hashlib.sha256(before.tobytes() + after.tobytes()).digest()[:8], "big")
    draws = numpy.random.default_rng(seed).integers(0, len(tokens), size=(_RESAMPLES, len(tokens)))
    resampled = (before - after)[draws].sum(axis=1) / tokens[draws].sum(axis=1)
    low, high = numpy.percentile(resampled, [2.5, 97.5])
    return Interval(float((before - after).sum() / tokens.sum()), float(low), float(high))


def paired_rise(before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]) -> Interval:
    """How much higher the share of hits is in ``after``, both on the same items: a bootstrap over items.

    Args:
        before, after: for each item how many hits there are, and out of how many.
    """
    import numpy

    draws = numpy.random.default_rng(_SEED).integers(0, len(after), size=(_RESAMPLES, len(after)))
    resampled, means = [], []
    for pairs in (after, before):
        hits, of = numpy.array(pairs, dtype=float).T
        resampled.append(hits[draws].sum(axis=1) / numpy.maximum(of[draws].sum(axis=1), 1))
        means.append(hits.sum() / max(of.sum(), 1))
    low, high = numpy.percentile(resampled[0] - resampled[1], [2.5, 97.5])
    return Interval(float(means[0] - means[1]), float(low), float(high))


def _mean(scores: Sequence[RowScore]) -> float:
    return sum(score.nats for score in scores) / max(sum(score.tokens for score in scores), 1)


def _rounded(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(interval).items()}
