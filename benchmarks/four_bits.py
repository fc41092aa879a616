"""A model in 4 bit on a card of few GiB: training by Unsloth, judging and answering, each held to that much.

    python benchmarks/four_bits.py --base FOLDER --dataset FOLDER [--recipe small-gpu] [--rows 60] [--gib 15]
        [--without-bfloat16] [--out FILE]

``--base`` and ``--dataset`` are those of ``trainers_on_gpu.py``. Every process may have ``--gib`` GiB of the card, by
torch's own bound, so what does not fit such a card ends for want of memory here, too. ``--without-bfloat16`` says of
the card that it does not multiply bfloat16, as a T4: everything is then in float16, and answers are made without
FlashAttention. It prints for training tokens a second, losses and the most that the card had in use; for judging nats
of rows that were trained on; for answering, alone and several together, tokens a second.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from trainers_on_gpu import memory_watched, ready_base, run, some_rows

SMALL_CARD = """
import torch
torch.cuda.set_per_process_memory_fraction({share})
_told = torch.cuda.mem_get_info
def mem_get_info(*given):
    free, total = _told(*given)
    return max(0, min(free, {bytes} - torch.cuda.memory_reserved())), {bytes}
torch.cuda.mem_get_info = mem_get_info
if {without}:
    torch.cuda.is_bf16_supported = lambda including_emulation=True: False
    torch.backends.cuda.is_flash_attention_available = lambda: False
"""
"""Run at the start of every process; what is free is what such a card would have left."""
_TOKENS = 64
_TOGETHER = 4


def hold_to(gib: float, without: bool, scratch: Path) -> None:
    """Bound this process and those that it starts."""
    import torch

    size = int(gib * 2**30)
    share = size / torch.cuda.get_device_properties(0).total_memory
    said = SMALL_CARD.format(share=share, bytes=size, without=without)
    scratch.mkdir()
    (scratch / "sitecustomize.py").write_text(said)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(scratch), *filter(None, [os.environ.get("PYTHONPATH")])])
    exec(said, {})


def judged(engine: Any, adapter: str, dataset: Path, most: int) -> dict[str, Any]:
    """Nats per token of rows, and several prompts answered in batches."""
    import datasets

    from inhouse_training.engine import Message, ScoredRow

    stored = datasets.Dataset.from_file(str(dataset / "rows.arrow"))
    rows = [ScoredRow(tuple(row["input_ids"][:most]), tuple(row["labels"][:most])) for row in stored.select(range(24))]
    began = time.monotonic()
    scores = engine.score(rows, adapter)
    scored = time.monotonic()
    prompts = [[Message("user", "What does this do? " + "token " * (20 * n))] for n in range(1, 17)]
    answers = engine.answer_all(prompts, _TOKENS, adapter)
    return {
        "nats": round(sum(each.nats for each in scores) / sum(each.tokens for each in scores), 4),
        "scored_tokens": sum(len(row.input_ids) for row in rows),
        "score_seconds": round(scored - began, 1),
        "answers": len(answers),
        "answer_seconds": round(time.monotonic() - scored, 1),
    }


def ask(engine: Any, adapter: str, number: int) -> tuple[float, int]:
    """Seconds and tokens of an answer."""
    from inhouse_training.engine import Finished, GenerationRequest, Message

    said = (Message("user", f"Question {number}: " + "how does this work? " * (60 + number)),)
    began = time.monotonic()
    *_, last = engine.stream(GenerationRequest(said, adapter, _TOKENS), threading.Event())
    assert isinstance(last, Finished)
    return time.monotonic() - began, last.completion_tokens


def answered(base: Any, adapter: Path) -> dict[str, Any]:
    """Several at a time, with and without the adapter at once."""
    from inhouse_training.batching.engine import BatchedEngine
    from inhouse_training.engine import BASE

    engine = BatchedEngine(base, lambda version: adapter, weights="4bit", streams=_TOGETHER)
    wanted = [(which, number) for number, which in enumerate(("one", BASE) * (_TOGETHER // 2))]
    ask(engine, "one", 0)
    made: dict[tuple[str, int], tuple[float, int]] = {}

    def one(which: tuple[str, int]) -> None:
        made[which] = ask(engine, *which)

    for which in wanted[:2]:
        one(which)
    single = sum(made[which][1] for which in wanted[:2]) / sum(made[which][0] for which in wanted[:2])
    for _ in range(2):  # the first time records its steps
        began = time.monotonic()
        threads = [threading.Thread(target=one, args=(which,)) for which in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - began
    pool = engine._pool.shape[2]
    engine.close()
    return {
        "alone_tokens_per_second": round(single, 1),
        "together_tokens_per_second": round(sum(made[which][1] for which in wanted) / seconds, 1),
        "pool_tokens": pool,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--recipe", default="small-gpu")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--gib", type=float, default=15.0)
    parser.add_argument("--without-bfloat16", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        base = ready_base(arguments.base, scratch)
        rows = some_rows(arguments.dataset, arguments.rows, scratch / "rows")
        hold_to(arguments.gib, arguments.without_bfloat16, scratch / "card")
        told = measure(base, rows, arguments.recipe, scratch)
    if arguments.out:
        arguments.out.write_text(json.dumps(told, indent=1) + "\n")


def measure(base: Any, rows: Path, name: str, scratch: Path) -> dict[str, Any]:
    import torch

    from inhouse_training import TransformersEngine
    from inhouse_training.engine import BASE
    from inhouse_training.recipe import load_recipe

    recipe = load_recipe(name)
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"max_passes": 1})})
    told: dict[str, Any] = {}

    def say(part: str, figures: dict[str, Any]) -> None:
        told[part] = figures
        print(json.dumps({part: figures}), flush=True)

    say("training", run("unsloth", base, rows, recipe, scratch / "run"))
    adapter = scratch / "run" / "adapter"
    with memory_watched() as most:
        engine = TransformersEngine(base, lambda version: adapter, weights="4bit")
        say("engine", {"dtype": str(engine._causal.dtype), "weights_gib": round(engine.held_memory().model / 2**30, 2)})
        for which in (BASE, "one"):
            say(f"judging, {which}", judged(engine, which, rows, recipe.data.max_tokens))
        say("judging took", {"peak_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2)})
        engine.close()
        del engine
    say("judging, card", {"card_gib": round(most[0] / 1024, 1)})
    torch.cuda.reset_peak_memory_stats()
    say("answering", answered(base, adapter))
    say("answering took", {"peak_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2)})
    return told


if __name__ == "__main__":
    main()
