"""What is free, of each GPU or of this machine's main memory, and what this process holds of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError

MAIN_MEMORY = ""
"""Stands where a GPU has its identity."""
MakeRoom = Callable[[], None]
"""Called before a retraining loads a model: when it returns, there is room for it."""
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or this machine's main memory. Sizes in bytes.

    Attributes:
        identity: a GPU's UUID, the same in every process, or :data:`MAIN_MEMORY`.
        free: what a process that begins now could have.
    """

    name: str
    identity: str
    total: int
    free: int

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.identity != MAIN_MEMORY


@dataclass(frozen=True, slots=True)
class HeldMemory:
    """What a process holds of the device that its model is on, in bytes.

    Attributes:
        device: the identity of that device.
        held: all of it, as far as the process can tell: of a GPU, without the half gigabyte of its context.
        model: the part that is free once the model is gone: weights, adapters, keys and values, recorded graphs. An
            encoder or a reranker stays.
    """

    device: str
    held: int
    model: int


def as_it_is() -> None:
    """Makes no room: what is free has to do."""


def devices_here() -> tuple[Device, ...]:
    """The GPUs that this process may use, as they are now; without any, this machine's main memory.

    GPUs are asked by a process of their own, since a context stays as long as its process and takes half a gigabyte,
    which training would miss. That of the asking process counts as taken, so a little more is free than it says.

    Raises:
        InhouseError: the GPUs do not answer.
    """
    import torch

    if not torch.cuda.is_available():
        return (main_memory(),)
    command = [sys.executable, "-m", "inhouse_training.devices"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise InhouseError(f"The GPU does not say what is free of its memory: {said}.", "`nvidia-smi` may say more.")
    return tuple(Device(**each) for each in json.loads(done.stdout.splitlines()[-1]))


def _gpus() -> Iterable[Device]:
    import torch

    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield Device(found.name, gpu_identity(number), total, free)


def gpu_identity(number: int | None) -> str:
    """The UUID of one of this process's GPUs; of the current one by default."""
    import torch

    return str(torch.cuda.get_device_properties(torch.cuda.current_device() if number is None else number).uuid)


def main_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> Device:
    """The memory that this machine, or the container that this process is in, has and has left.

    Args:
        meminfo, cgroup: where Linux tells of it. Without the former, all that is installed counts as free.
    """
    installed = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        installed, free = (1024 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError):
        pass  # not Linux, or an old one
    try:
        most, used = (int((cgroup / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        figures = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return Device("this machine", MAIN_MEMORY, installed, free)
    # Files that were read and are not in use are given up when memory is wanted.
    left = most - used + int(figures.get("inactive_file", 0))
    return Device("this container", MAIN_MEMORY, min(installed, most), max(0, min(free, left)))


def held_by_this_process(model: int, device: Any = None) -> HeldMemory:
    """What this process holds of a device.

    Args:
        model: bytes of the model's tensors, of those that it is known to have.
        device: that the model is on, as torch has it; ``None`` where there is no model, and then it is the GPU if this
            process has used one.
    """
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_initialized() if device is None else device.type == "cuda"
    if torch is None or not on_gpu:
        return HeldMemory(MAIN_MEMORY, _resident(), model)
    held, in_use = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    # What the allocator holds in reserve goes with the model; what is in use and none of the model's stays.
    gone = max(model, held - (in_use - model)) if model else 0
    return HeldMemory(gpu_identity(None if device is None else device.index), held, gone)


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back_memory() -> None:
    """Give the memory of tensors that nobody has any more back to the device, where others can take it; what is free in
    glibc's heap goes back to the system."""
    import ctypes
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # musl has none
        library.malloc_trim(0)


if __name__ == "__main__":
    print(json.dumps([asdict(each) for each in _gpus()]))  # noqa: T201  (read by devices_here)
