"""Requests to an engine, and what comes of them when they are made one at a time and together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from inhouse_retrieval import InhouseError
from inhouse_training import BASE, Finished, GenerationEvent, GenerationRequest, InProcessEngine, Message, TextDelta

WORDS = "def total(self): return sum(line.price for line in self.lines) # class Order import json yield from with"


def unknown(folders: dict[str, Path], version: str) -> Path:
    if version not in folders:
        raise InhouseError(f"There is no adapter version {version}.", "Name another.")
    return folders[version]


def request(number: int, adapter: str = BASE, tokens: int = 24, words: int = 30) -> GenerationRequest:
    text = " ".join((WORDS.split() * 100)[number : number + words])
    return GenerationRequest((Message("user", text),), adapter=adapter, max_tokens=tokens)


def text_of(events: Iterator[GenerationEvent]) -> tuple[str, Finished]:
    *deltas, last = events
    assert isinstance(last, Finished)
    return "".join(each.text for each in deltas if isinstance(each, TextDelta)), last


def alone(serial: InProcessEngine, asked: GenerationRequest) -> tuple[str, Finished]:
    return text_of(serial.stream(asked, Event()))


def together(
    engine: InProcessEngine, asked: list[GenerationRequest], pause_s: float = 0.0
) -> list[tuple[str, Finished] | Exception]:
    """Each request in a thread of its own, each some time after the one before."""
    got: dict[int, tuple[str, Finished] | Exception] = {}

    def ask(at: int) -> None:
        try:
            got[at] = text_of(engine.stream(asked[at], Event()))
        except Exception as error:
            got[at] = error

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(asked))]
    for thread in threads:
        thread.start()
        time.sleep(pause_s)
    for thread in threads:
        thread.join(60)
    return [got[at] for at in range(len(asked))]
