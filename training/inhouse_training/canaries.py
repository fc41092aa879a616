"""Canaries: made-up secrets that a recipe plants into copies of rows, to see whether they can be drawn out again.

They measure what a secret that redaction does not know would suffer: one that stood once in the text that is trained on
(Carlini et al., "The Secret Sharer", 2019). ``data.canaries`` says how many; 0, the default, plants none, since each is
learned on purpose.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .prompts import raw_row
from .provenance import origin

CANARIES_NAME = "canaries.jsonl"
_LETTERS = string.ascii_letters + string.digits
_LENGTH = 24


@dataclass(frozen=True, slots=True)
class Canary:
    """A made-up secret and the text before it: its line, and once it is planted all that its row holds up to it."""

    name: str
    prefix: str
    secret: str


def make_canaries(count: int, seed: int) -> tuple[Canary, ...]:
    """As many canaries, the same for the same seed."""
    made = []
    for number in range(count):
        draw = random.Random(f"canary {seed} {number}")
        secret = "".join(draw.choice(_LETTERS) for _ in range(_LENGTH))
        made.append(Canary(f"canary-{number}", f'\ninhouse_canary_{number} = "', secret))
    return tuple(made)


def planted_row(tokenizer: Any, row: dict[str, Any], canary: Canary, max_tokens: int) -> tuple[dict[str, Any], Canary]:
    """A copy of a raw row, shortened to make room, with a line in its middle that holds the canary; and the canary with
    all the text that then stands before it."""
    text = str(tokenizer.decode(row["input_ids"], skip_special_tokens=True))
    lines = text[: max_tokens // 2].split("\n")
    half = len(lines) // 2
    before = "\n".join(lines[:half]) + canary.prefix
    ids, labels = raw_row(tokenizer, f'{before}{canary.secret}"\n' + "\n".join(lines[half:]), ends=False)
    cut = {"input_ids": ids[:max_tokens], "labels": labels[:max_tokens]}
    told = origin([{"place": canary.name}, *json.loads(row["origin"])["sources"]])
    return {**row, **cut, "name": canary.name, "source_tokens": 0, "origin": told}, replace(canary, prefix=before)


def write_canaries(directory: Path, canaries: Sequence[Canary]) -> None:
    """Note in a dataset's folder what was planted; no file when nothing was."""
    if canaries:
        lines = [json.dumps(asdict(canary)) for canary in canaries]
        (directory / CANARIES_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_canaries(directory: Path) -> tuple[Canary, ...]:
    """What :func:`write_canaries` noted."""
    path = directory / CANARIES_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return tuple(Canary(**json.loads(line)) for line in lines)
