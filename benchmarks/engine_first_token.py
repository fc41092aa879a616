"""Time to the first token of the in-process engine on a CPU, its prompt near 2,000 tokens; no index, no HTTP.

    taskset -c 0,1 python benchmarks/engine_first_token.py

For a machine on which only the engine can run; retrieval adds what `inhouse search` takes. Asks once to warm up
and five times to measure, each time with another prompt so that no cache helps. Prints median and range, the type of
the weights, and whether the processor has AMX.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from threading import Event

from inhouse_training import GenerationRequest, Message, TextDelta, TransformersEngine, resolve_base_model

TOKENS = 2_000


def main() -> None:
    import torch  # after inhouse_training, which decides how its threads wait

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    engine = TransformersEngine(resolve_base_model(), lambda version: Path(version), device="cpu")
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(Path("training/inhouse_training").glob("*.py")))
    times: list[float] = []
    sizes: list[int] = []
    for number in range(6):
        text = code[number * 9_000 :]
        size = TOKENS * 4
        while engine.count_tokens([Message("user", text[:size])]) > TOKENS:
            size -= 100
        messages = (Message("user", text[:size]),)
        began = time.perf_counter()
        for event in engine.stream(GenerationRequest(messages, max_tokens=2), Event()):
            if isinstance(event, TextDelta):
                break
        times.append(time.perf_counter() - began)
        sizes.append(engine.count_tokens(messages))
    measured = times[1:]
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    print(f"{cores} cores of {model.partition(': ')[2]}; AMX {'yes' if 'amx_bf16' in flags else 'no'}")
    print(f"weights in {next(engine._causal.parameters()).dtype}; prompts of {min(sizes)} to {max(sizes)} tokens")
    print(f"first token: median {statistics.median(measured):.2f} s, {min(measured):.2f} to {max(measured):.2f} s, n=5")


if __name__ == "__main__":
    main()
