"""Replay: the base model's own words about general things, learned again beside the repository.

Fine-tuning on one repository makes a model worse at everything else. Samples of the model itself, mixed into the run,
hold it in place without any other data (self-generated replay, arXiv 2605.26097). They are drawn once for a base model
and kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from inhouse_retrieval import Progress, no_progress

from .base_model import BaseModel, cache_dir, load_model, load_tokenizer
from .devices import MakeRoom, as_it_is, give_back_memory
from .engine import Message
from .prompts import chat_ids, chat_row, end_of_turn_ids, raw_row, without_end
from .recipe import Recipe
from .replay_prompts import CHAT, OPENINGS
from .weights import weights_here

NEW_TOKENS = 192
_BATCH = 64
_SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class ReplayText:
    """One sample of the base model.

    Attributes:
        chat: whether ``prompt`` was a question; otherwise ``text`` carries it on.
        ended: whether the model came to its end.
    """

    prompt: str
    text: str
    chat: bool
    ended: bool

    @property
    def name(self) -> str:
        """Stable, and short enough for a list."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def replay_source(
    base: BaseModel, recipe: Recipe, progress: Progress, make_room: MakeRoom = as_it_is
) -> Callable[[], Sequence[ReplayText]]:
    """What :func:`build_dataset` asks for the base model's texts, only when the recipe has a share for them."""
    return partial(replay_texts, base, recipe.data.replay_samples, progress, make_room, recipe.trainer.load_in_4bit)


def replay_texts(
    base: BaseModel,
    samples: int,
    progress: Progress = no_progress,
    make_room: MakeRoom = as_it_is,
    in_4bit: bool = False,
) -> tuple[ReplayText, ...]:
    """``samples`` texts for each of the fixed prompts, from the cache or drawn now.

    Drawing takes seconds on a GPU and some twenty minutes for each sample on two CPU cores. The model's memory is given
    back: what is trained afterwards is trained by another process.

    Args:
        in_4bit: whether the base model is in 4 bit where a GPU draws; what was drawn otherwise is used all the same.

    Raises:
        InhouseError: the base model cannot be loaded.
        Cancelled: ``progress`` raised it; the rounds that were drawn are kept.
    """
    texts: list[ReplayText] = []
    model: Any = None
    try:
        for number in range(samples):
            path = _cached(base, number)
            drawn = _read(path)
            if drawn is None:
                if model is None:
                    make_room()
                    model = load_model(base, weights=weights_here("auto", in_4bit))
                drawn = list(_draw(base, model, number, samples, progress))
                _keep(path, drawn)
            texts += drawn
    finally:
        if model is not None:
            del model
            give_back_memory()
    return tuple(texts)


def _read(path: Path) -> list[ReplayText] | None:
    """What was drawn before; ``None`` when nothing was, or the file is damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [ReplayText(**json.loads(line)) for line in lines] or None
    except (OSError, ValueError, TypeError):
        return None


def _keep(path: Path, texts: Sequence[ReplayText]) -> None:
    """Write all or nothing: several repositories share the cache, and two of them may draw at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".partial", delete=False) as file:
        file.writelines(json.dumps(asdict(text)) + "\n" for text in texts)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def replay_row(tokenizer: Any, text: ReplayText) -> tuple[list[int], list[int]]:
    """``(input_ids, labels)`` of one sample: an answer, or plain text."""
    if text.chat:
        ids, labels = chat_row(tokenizer, replay_messages(text))
        return (ids, labels) if text.ended else without_end(tokenizer, ids, labels)
    return raw_row(tokenizer, text.prompt + text.text, ends=text.ended)


def replay_messages(text: ReplayText) -> tuple[Message, ...]:
    """The sample as a conversation; empty for plain text."""
    return (Message("user", text.prompt), Message("assistant", text.text)) if text.chat else ()


def _cached(base: BaseModel, number: int) -> Path:
    asked = json.dumps([base.sha256, CHAT, OPENINGS, NEW_TOKENS, _SEED])
    return cache_dir() / "replay" / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}-{number}.jsonl"


def _draw(base: BaseModel, model: Any, number: int, samples: int, progress: Progress) -> Iterator[ReplayText]:
    import torch

    tokenizer = load_tokenizer(base)
    ends = sorted(end_of_turn_ids(tokenizer))
    asked = [(text, True, chat_ids(tokenizer, [Message("user", text)], True)) for text in CHAT]
    asked += [(text, False, raw_row(tokenizer, text, ends=False)[0]) for text in OPENINGS]
    torch.manual_seed(_SEED + number)
    for begin in range(0, len(asked), _BATCH):
        progress("drawing general text", number * len(asked) + begin, samples * len(asked))
        batch = asked[begin : begin + _BATCH]
        width = max(len(ids) for _, _, ids in batch)
        filler = ends[0]
        ids = torch.tensor([[filler] * (width - len(row)) + row for _, _, row in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for _, _, row in batch], device=model.device)
        with torch.inference_mode():
            # At temperature 1 and with nothing cut off, samples hold the model's own distribution in place.
            out = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                max_new_tokens=NEW_TOKENS, eos_token_id=ends, pad_token_id=filler,
            )  # fmt: skip
        for (prompt, chat, _), row in zip(batch, out[:, width:].tolist(), strict=True):
            stop = next((at for at, token in enumerate(row) if token in ends), None)
            text = tokenizer.decode(row[:stop], skip_special_tokens=True)
            if text.strip():
                yield ReplayText(prompt, text, chat, stop is not None)
