"""The forward passes of a batch: a block of prompts, or one more token of each answer.

A model of 7B starts about a thousand kernels for one token, and starting them from Python takes several times as long
as running them. On a GPU one such step is therefore recorded as a CUDA graph for each number of answers and replayed;
the token that a step chose is the next one's input without passing through the CPU.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch

from ..exchanged_attention import attending
from .adapters import StackedAdapters
from .attention import PACKED, Bounds, Packed, Piece
from .steps import Chosen, Reading, Writing

log = logging.getLogger(__name__)

SHORTEST_GRAPH = 1024
"""Tokens that the conversations of a recorded step may have at least; longer ones are recorded in powers of two."""


class Decoder:
    """Implements :class:`~inhouse_training.batching.steps.Runs` with a model of transformers; drafts are not read.

    Args:
        pool: [layers, 2, tokens, key-value heads, width of a head]; its last token is room for rows without a meaning.
        rows: answers at once, at most.
        flash: whether FlashAttention reads the pool, and steps are recorded as CUDA graphs.
    """

    def __init__(self, model: Any, pool: torch.Tensor, stack: StackedAdapters, rows: int, flash: bool) -> None:
        self._model = model
        self._pool = pool
        self._stack = stack
        self._flash = flash
        self._device = pool.device
        self._scratch = pool.shape[2] - 1
        self._sizes = [size for size in _SIZES if size < rows] + [rows]
        # Recorded steps read these and write the tokens: token, source, position, slot, adapter, start, used.
        self._inputs = torch.zeros(7, rows + 1, dtype=torch.long, device=self._device)
        self._tokens = torch.zeros(rows, dtype=torch.long, device=self._device)
        self._all = torch.arange(rows + 1, device=self._device)
        self._one_each = self._all.to(torch.int32)  # bounds of rows of one token each
        self._graphs: dict[tuple[int, int], tuple[Any, torch.Tensor]] = {}
        self._generation = stack.generation

    @property
    def ahead(self) -> bool:
        return self._flash

    def copy(self, start: int, to: int, count: int) -> None:
        self._pool[:, :, to : to + count] = self._pool[:, :, start : start + count]

    def read(self, readings: Sequence[Reading]) -> torch.Tensor:
        order = sorted(range(len(readings)), key=lambda at: readings[at].start)
        pieces: list[Piece] = []
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        adapters: list[int] = []
        ends: dict[int, int] = {}
        for at in order:
            each = readings[at]
            used = each.done + len(each.ids)
            pieces.append(Piece(len(ids), len(ids) + len(each.ids), each.start, used))
            ids += each.ids
            positions += range(each.done, used)
            slots += range(each.start + each.done, each.start + used)
            adapters += [each.adapter] * len(each.ids)
            if each.last:
                ends[at] = len(ids) - 1
        numbers = self._on_device([ids, positions, slots, adapters])
        keep = self._on_device([ends[at] for at in sorted(ends)] or [0])
        packed = Packed(self._pool, numbers[2], self._bounds(pieces) if self._flash else tuple(pieces))
        return self._forward(numbers[0], numbers[1], numbers[3], packed, keep)[: len(ends)]

    def write(self, rows: Sequence[Writing]) -> Chosen:
        size = next(each for each in self._sizes if each >= len(rows))
        table = [
            [0 if row.token is None else row.token for row in rows],
            [row.source if row.token is None else -1 for row in rows],
            [row.done for row in rows],
            [row.start + row.done for row in rows],
            [row.adapter for row in rows],
            [row.start for row in rows],
            [row.done + 1 for row in rows],
        ]
        if not self._flash:
            return self._write_now(rows, table)
        nothing = (0, -1, 0, self._scratch, 0, self._scratch, 1)
        for values, filler in zip(table, nothing, strict=True):
            values += [filler] * (size + 1 - len(rows))
        table[5][size] = self._scratch + 1
        self._inputs[:, : size + 1].copy_(self._pinned(table), non_blocking=True)
        longest = SHORTEST_GRAPH
        while longest < max(row.done + 1 for row in rows):
            longest *= 2
        logits = self._replay(size, longest)
        told = torch.empty(len(rows), dtype=torch.long, pin_memory=True)
        told.copy_(self._tokens[: len(rows)], non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return Chosen(logits, told, ready)

    def _write_now(self, rows: Sequence[Writing], table: list[list[int]]) -> Chosen:
        numbers = self._on_device(table)
        pieces = tuple(Piece(at, at + 1, row.start, row.done + 1) for at, row in enumerate(rows))
        packed = Packed(self._pool, numbers[3], pieces)
        logits = self._forward(numbers[0], numbers[2], numbers[4], packed, self._all[: len(rows)])
        return Chosen(logits, logits.argmax(dim=-1), None)

    def _replay(self, size: int, longest: int) -> torch.Tensor:
        if self._generation != self._stack.generation:
            self._graphs.clear()
            self._generation = self._stack.generation
        if (size, longest) not in self._graphs:
            self._graphs[size, longest] = self._record(size, longest)
        graph, logits = self._graphs[size, longest]
        graph.replay()
        return logits

    def _record(self, size: int, longest: int) -> tuple[Any, torch.Tensor]:
        started = time.perf_counter()
        before = self._tokens.clone()  # what the step reads, and running it once to warm up would overwrite
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            self._step(size, longest)
        torch.cuda.current_stream(self._device).wait_stream(aside)
        self._tokens.copy_(before)
        graph = torch.cuda.CUDAGraph()
        shared = next(iter(self._graphs.values()))[0].pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=shared, capture_error_mode="thread_local"):
            logits = self._step(size, longest)
        seconds = time.perf_counter() - started
        log.info("a step of %d answers of up to %d tokens recorded in %.2f s", size, longest, seconds)
        return graph, logits

    def _step(self, size: int, longest: int) -> torch.Tensor:
        """What is recorded: reads the static inputs, writes the static tokens."""
        given, source, positions, slots, adapters, _, used = self._inputs[:, :size]
        ids = torch.where(source >= 0, self._tokens[source.clamp(min=0)], given)
        starts = self._inputs[5, : size + 1].to(torch.int32)
        bounds = Bounds(self._one_each[: size + 1], starts, used.to(torch.int32), 1, longest)
        logits = self._forward(ids, positions, adapters, Packed(self._pool, slots, bounds), self._all[:size])
        self._tokens[:size] = logits.argmax(dim=-1)
        return logits

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, adapters: torch.Tensor, packed: Packed, keep: torch.Tensor
    ) -> torch.Tensor:
        """Logits, [kept, vocabulary], of a row of tokens."""
        with attending(self._model.config, PACKED), self._stack.of_rows(adapters):
            output = self._model(
                input_ids=ids[None],
                position_ids=positions[None],
                use_cache=False,
                logits_to_keep=keep,
                packed=packed,
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _bounds(self, pieces: Sequence[Piece]) -> Bounds:
        counts = [each.end - each.begin for each in pieces]
        table = [
            [*(each.begin for each in pieces), pieces[-1].end],
            [*(each.start for each in pieces), self._scratch + 1],
            [*(each.used for each in pieces), 0],
        ]
        queries, starts, used = self._on_device(table).to(torch.int32)
        return Bounds(queries, starts, used[:-1], max(counts), max(each.used for each in pieces))

    def _on_device(self, values: Any) -> torch.Tensor:
        return self._pinned(values).to(self._device, non_blocking=True)

    def _pinned(self, values: Any) -> torch.Tensor:
        """Integers in memory that a GPU reads while this thread goes on."""
        return torch.tensor(values, dtype=torch.long, pin_memory=self._device.type == "cuda")


_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
