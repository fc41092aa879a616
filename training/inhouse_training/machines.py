"""What a run is planned for: this machine, or a card that could be rented."""

from __future__ import annotations

import difflib
import os
import time
from dataclasses import dataclass

from inhouse_retrieval import InhouseError

from .devices import main_memory
from .half import multiplies_bfloat16, training_type
from .memory import GIB

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes; ``tflops`` is what a matrix product reaches in the type that training uses.

    Attributes:
        measured: whether ``tflops`` was measured here, or comes from a table.
        bfloat16: whether a GPU multiplies bfloat16 itself.
    """

    name: str
    gpu: bool
    memory: int
    tflops: float
    measured: bool = False
    bfloat16: bool = True


CARDS = {
    # H100: measured for docs/measurements.md. The others: 0.8 of what their data sheets say for dense bf16 (T4: fp16).
    "h100": Machine("h100", True, 79 * GIB, 798.0),
    "h200": Machine("h200", True, 139 * GIB, 798.0),
    "a100-80gb": Machine("a100-80gb", True, 79 * GIB, 250.0),
    "a100-40gb": Machine("a100-40gb", True, 39 * GIB, 250.0),
    "l4-24gb": Machine("l4-24gb", True, 22 * GIB, 97.0),
    "rtx4090-24gb": Machine("rtx4090-24gb", True, 23 * GIB, 132.0),
    "t4-16gb": Machine("t4-16gb", True, 15 * GIB, 52.0, bfloat16=False),
}
"""Cards to plan for, by name. Their memory is what torch sees."""
_MATRIX = 1024
_SECONDS = 0.3


def named_card(name: str) -> Machine:
    """A card of :data:`CARDS`.

    Raises:
        InhouseError: there is none of that name.
    """
    if name not in CARDS:
        near = difflib.get_close_matches(name, CARDS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(CARDS)}."
        raise InhouseError(f"There is no card called {name!r}.", hint)
    return CARDS[name]


def this_machine() -> Machine:
    """The GPU of this machine, or its processor. How fast it multiplies is measured, for a third of a second."""
    import torch

    if torch.cuda.is_available():
        name, native = torch.cuda.get_device_properties(0).name, multiplies_bfloat16()
        dtype = getattr(torch, training_type(True, native))
        return Machine(name, True, memory_here(), _tflops("cuda", dtype), True, native)
    return Machine(f"{os.cpu_count()} cores", False, memory_here(), _tflops("cpu", torch.float32), True)


def memory_here(workers: int = 1) -> int:
    """What this process may have of the GPU, in bytes: what is free, and what it holds already. Without a GPU the
    memory of this machine, or what its container may use of it.

    Args:
        workers: that train together. Several go by the whole card: they must come to the same, and would read what is
            free at different moments.
    """
    import torch

    if not torch.cuda.is_available():
        return main_memory().total
    if workers > 1:
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as ``VISIBLE`` names them; none on a machine without."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return tuple(named[:count] if named else map(str, range(count)))


def _tflops(device: str, dtype: object) -> float:
    import torch

    size = _MATRIX * (8 if device == "cuda" else 1)
    left = torch.ones(size, size, device=device, dtype=dtype)
    done, started = 0, time.perf_counter()
    left @ left  # the first product pays for loading the library
    while done == 0 or time.perf_counter() - started < _SECONDS:
        if done == 0:
            started = time.perf_counter()
        left @ left
        done += 1
        if device == "cuda":
            torch.cuda.synchronize()
    return float(2 * size**3 * done / (time.perf_counter() - started) / 1e12)
