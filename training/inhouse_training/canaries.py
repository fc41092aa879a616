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
from dataclasses import asdict, dataclass
from pathlib import Path

CANARIES_NAME = "canaries.jsonl"
_LETTERS = string.ascii_letters + string.digits
_LENGTH = 24


@dataclass(frozen=True, slots=True)
class Canary:
    """A made-up secret and the line that it was planted in, up to it."""

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


def planted(text: str, canary: Canary, room: int) -> str:
    """The middle of ``text``, at most ``room`` characters, with a line that holds the canary."""
    lines = text[:room].split("\n")
    half = len(lines) // 2
    return "\n".join(lines[:half]) + f'{canary.prefix}{canary.secret}"\n' + "\n".join(lines[half:])


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
