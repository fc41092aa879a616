"""First tokens of a burst of questions to the engines of a CPU; no index, no HTTP.

    python benchmarks/burst_on_cpu.py [--questions 32] [--prompt 500] [--tokens 64] [--engines 8bit-together …]

The engines run one after the other, in this order: with weights in 8 bits answers made together and one at a time, with
full weights together. All questions are asked at the same moment by one caller, each with another prompt of this
repository's own code; one second later another caller asks one. Of each it is known when the engine began with it and
when its first token came, so what the first token waited for is told apart: for a place among those that are made at
once, and for prompts to be read. ``writing_alone`` is one question more after all of these, with nothing beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from inhouse_training import Finished, GenerationRequest, Message, TextDelta, resolve_base_model
from inhouse_training.engine_choice import Batched, load_engine
from inhouse_training.in_process_engine import InProcessEngine
from inhouse_training.weights import Weights

ENGINES: dict[str, tuple[Batched, Weights]] = {
    "8bit-together": ("on", "8bit"),
    "8bit-one-at-a-time": ("off", "8bit"),
    "full-together": ("on", "full"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds from the question to the engine's beginning, the first token and the end; tokens read and written."""

    begun: float
    first: float
    ended: float
    prompt: int
    made: int


def ask(engine: InProcessEngine, text: str, caller: str, tokens: int) -> Answer:
    asked = time.perf_counter()
    begun: list[float] = []
    first = 0.0
    request = GenerationRequest(
        (Message("user", text),),
        max_tokens=tokens,
        caller=caller,
        begun=lambda: begun.append(time.perf_counter() - asked),
    )
    for event in engine.stream(request, Event()):
        if isinstance(event, TextDelta) and not first:
            first = time.perf_counter() - asked
        if isinstance(event, Finished):
            ended = time.perf_counter() - asked
            return Answer(begun[0], first or ended, ended, event.prompt_tokens, event.completion_tokens)
    raise AssertionError("a stream ends with Finished")


def prompts(engine: InProcessEngine, count: int, tokens: int) -> list[str]:
    """Pieces of code that begin differently, so that nothing read for one serves another."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(Path("training/inhouse_training").glob("*.py")))
    cut = []
    for number in range(count):
        text = f"Question {number}: what does this do?\n{code[number * 4_000 :]}"
        size = tokens * 5
        while engine.count_tokens([Message("user", text[:size])]) > tokens:
            size -= 20
        cut.append(text[:size])
    return cut


def told(answers: Sequence[Answer]) -> dict[str, float]:
    def p95(values: Sequence[float]) -> float:
        return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]

    first = [each.first for each in answers]
    reading = [each.first - each.begun for each in answers]
    figures = {
        "first_token_median_s": statistics.median(first),
        "first_token_p95_s": p95(first),
        "until_begun_median_s": statistics.median(each.begun for each in answers),
        "until_begun_p95_s": p95([each.begun for each in answers]),
        "begun_to_first_token_median_s": statistics.median(reading),
        "begun_to_first_token_p95_s": p95(reading),
        "all_ended_s": max(each.ended for each in answers),
    }
    return {name: round(value, 2) for name, value in figures.items()}


def measure(engine: InProcessEngine, questions: int, prompt: int, tokens: int) -> dict[str, object]:
    warm, modest, alone, *texts = prompts(engine, questions + 3, prompt)
    ask(engine, warm, "warm", tokens)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda text=text: answers.append(ask(engine, text, "eager", tokens))) for text in texts
    ]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    other = ask(engine, modest, "modest", tokens)
    for thread in threads:
        thread.join()
    by_itself = ask(engine, alone, "alone", tokens)
    return {
        "answers_at_once": engine.streams,
        "prompt_tokens": sum(each.prompt for each in answers),
        "written_tokens": sum(each.made for each in answers),
        "burst": told(answers),
        "another_caller": told([other]),
        "writing_alone": told([by_itself]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    arguments = parser.parse_args()
    import torch  # after inhouse_training, which decides how its threads wait

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    found = {}
    for name in arguments.engines:
        engine = load_engine(resolve_base_model(), Path, *ENGINES[name])
        found[name] = measure(engine, arguments.questions, arguments.prompt, arguments.tokens)
        engine.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
