"""The steps of several answers in 8 bits: one forward pass for those of each version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from ..batching.steps import Chosen, Reading, Writing
from .model import BLOCK, Blocks, Piece
from .versions import ModelsInMemory


class PagedDecoder:
    """Implements :class:`~inhouse_training.batching.steps.Runs`. Every conversation begins with a block.

    Args:
        blocks: of which the pool is the first part.
    """

    ahead = False

    def __init__(self, models: ModelsInMemory, blocks: Blocks) -> None:
        self._models = models
        self._blocks = blocks

    def copy(self, start: int, to: int, count: int) -> None:
        # The rest of the last block is overwritten before it is read.
        self._blocks.copy(start // BLOCK, to // BLOCK, -(-count // BLOCK))

    def read(self, readings: Sequence[Reading]) -> torch.Tensor:
        pieces = [
            Piece(each.ids, each.done, each.start // BLOCK, [len(each.ids) - 1] if each.last else [])
            for each in readings
        ]
        return self._forward(pieces, [each.adapter for each in readings])

    def write(self, rows: Sequence[Writing]) -> Chosen:
        pieces = []
        for row in rows:
            assert row.token is not None, "only a decoder that goes ahead is asked for what it chose itself"
            ids = [row.token, *row.draft]
            pieces.append(Piece(ids, row.done, row.start // BLOCK, range(len(ids))))
        logits = self._forward(pieces, [row.adapter for row in rows])
        return Chosen(logits, logits.argmax(dim=-1), None)

    def _forward(self, pieces: Sequence[Piece], versions: Sequence[int]) -> torch.Tensor:
        """Logits [kept, vocabulary] in the order of the pieces, each of which is of a version."""
        of_version: dict[int, list[int]] = defaultdict(list)
        for at, version in enumerate(versions):
            of_version[version].append(at)
        found: dict[int, torch.Tensor] = {}
        for version, places in of_version.items():
            logits = self._models.of_row(version).forward([pieces[at] for at in places])
            found.update(zip(places, logits.split([len(pieces[at].kept) for at in places]), strict=True))
        if len(of_version) == 1:
            return logits
        return torch.cat([found[at] for at in range(len(pieces))])
