"""One forward pass over labelled rows: their loss, or what the model thinks of each labelled token.

Logits exist for a few hundred positions at a time: those of a whole batch would take gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .engine import RowScore, ScoredRow
from .prompts import IGNORED

LOGITS_AT_ONCE = 256
"""Positions whose logits exist at once: 50 MB for a vocabulary of 49,152 in float32."""
LOGITS_AT_ONCE_GPU = 2048
"""The same on a GPU, where many small steps cost more than the memory."""

Nats = np.ndarray[Any, np.dtype[np.float32]]
TokenIds = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, eq=False, slots=True)
class TokenScores:
    """What a model thinks of the labelled tokens of one row, in their order. Every array has one entry a token.

    Attributes:
        nats: negative log-likelihood of the token that stands there.
        best: id of the token that the model would have written.
        best_nats: negative log-likelihood of that.
        other_nats: the same of the tokens that were asked about; ``nats`` when none were.
    """

    nats: Nats
    best: TokenIds
    best_nats: Nats
    other_nats: Nats


def no_token_scores() -> TokenScores:
    """Those of a row without labelled tokens."""
    return TokenScores(*(np.zeros(0, kind) for kind in ("f4", "i4", "f4", "f4")))


Head = Callable[[torch.Tensor], torch.Tensor]
"""Last hidden states -> logits."""


def row_scores(decoder: Any, head: Head, rows: Sequence[ScoredRow], device: torch.device) -> list[RowScore]:
    """The loss of each row, summed over its labelled tokens."""
    nats = torch.zeros(len(rows), dtype=torch.float64)
    counts = torch.zeros(len(rows), dtype=torch.long)
    found = [
        (numbers, torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
        for numbers, logits, wanted in _labelled(decoder, head, rows, device)
    ]
    if found:
        # Fetched and summed at the end: a GPU is waited for once, and the same losses give the same sum.
        numbers = torch.cat([each for each, _ in found])
        nats.index_add_(0, numbers, torch.cat([loss for _, loss in found]).double().cpu())
        counts.index_add_(0, numbers, torch.ones_like(numbers))
    return [RowScore(float(n), int(c)) for n, c in zip(nats, counts, strict=True)]


def token_scores(
    decoder: Any,
    head: Head,
    rows: Sequence[ScoredRow],
    others: Sequence[TokenIds] | None,
    device: torch.device,
) -> list[TokenScores]:
    """What the model thinks of each labelled token of each row.

    Args:
        others: for each row, the id of another token at each labelled one, whose likelihood is asked for as well.
    """
    asked = torch.from_numpy(np.concatenate(others)).long() if others is not None else None
    parts: list[torch.Tensor] = []
    rows_of: list[torch.Tensor] = []
    at = 0
    for numbers, logits, wanted in _labelled(decoder, head, rows, device):
        total = torch.logsumexp(logits, dim=1)
        best, best_ids = logits.max(dim=1)
        other = wanted if asked is None else asked[at : at + len(numbers)].to(device)
        written, beside = (logits.gather(1, ids[:, None])[:, 0] for ids in (wanted, other))
        block = torch.stack([total - written, total - best, total - beside]).double()
        parts.append(torch.cat([block, best_ids[None].double()]).cpu())
        rows_of.append(numbers)
        at += len(numbers)
    if not parts:
        return [no_token_scores() for _ in rows]
    values, number = torch.cat(parts, dim=1).numpy(), torch.cat(rows_of).numpy()
    found: list[TokenScores] = []
    for row in range(len(rows)):
        nats, best_nats, other_nats, best_id = values[:, number == row]
        found.append(
            TokenScores(nats.astype("f4"), best_id.astype("i4"), best_nats.astype("f4"), other_nats.astype("f4"))
        )
    return found


def _labelled(
    decoder: Any, head: Head, rows: Sequence[ScoredRow], device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Blocks of labelled tokens, row after row: ``(row numbers on the CPU, logits, labels)``."""
    width = max(len(row.input_ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        ids[number, :length] = torch.tensor(row.input_ids)
        targets[number, : length - 1] = torch.tensor(row.labels[1:])  # position i predicts token i + 1
    where = (targets != IGNORED).nonzero()
    # Padding stands on the right, where no labelled position looks. Without a mask attention takes its fast path.
    hidden = decoder(input_ids=ids.to(device), attention_mask=None, use_cache=False)[0]
    for block in where.split(LOGITS_AT_ONCE_GPU if device.type == "cuda" else LOGITS_AT_ONCE):
        logits = head(hidden[block[:, 0], block[:, 1]]).float()
        yield block[:, 0], logits, targets[block[:, 0], block[:, 1]].to(device)
