"""Where a retraining takes its memory from: beside the owner process that answers on the same GPU, or in its place.

What is predicted is compared with what is free now, not with what the card has: the owner holds its model there, and
others may hold something, too. Where both do not fit, the owner can be asked to step aside until the candidate is
judged; what that would free, it says itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .base_model import BaseModel
from .devices import Device, HeldMemory
from .forecast import conditions_of
from .machines import Machine
from .memory import GIB, Conditions, predict_judging, predict_memory, shape_of, what_would_fit
from .recipe import Recipe
from .weights import AskedWeights

_BESIDE = 0.88
"""Part of what is free that a run beside an owner may take by prediction, which has been wrong by up to 12 %; and what
the owner's answers take grows with them."""
_MEANWHILE = "Until the candidate is judged, questions are refused with 503; search, hovers and status go on."


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner process of the repository, as a plan needs to know it.

    Attributes:
        memory: what it holds, and would give back.
        why_not: why it is not asked to step aside, as a sentence; empty where it can be.
    """

    pid: int
    memory: HeldMemory
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """What a retraining does about memory.

    Attributes:
        decision: train ``"beside"`` whatever runs there, or let the owner ``"step aside"``, or ``"refuse"``.
        told: that and the figures that it rests on, in sentences.
        remedy: what would help, where it is refused.
        memory: bytes that training then has, of each GPU.
    """

    decision: Literal["beside", "step aside", "refuse"]
    told: str
    remedy: str
    memory: int


def plan_room(
    recipe: Recipe,
    base: BaseModel,
    devices: Sequence[Device],
    owner: Owner | None,
    weights: AskedWeights = "auto",
) -> Room:
    """Decide where the memory of training and judging comes from.

    Beside an owner a margin is left to it. Judging, of which one run was measured, refuses nothing by itself; and on a
    processor nothing is refused, since there the system swaps.

    Args:
        devices: the GPUs that the run may use, or main memory alone, as they are now.
        weights: those that the candidate is judged with.

    Raises:
        InhouseError: there are fewer GPUs than the recipe asks for, or they cannot share its rows.
    """
    needs = _Needs(recipe, base, devices[0], weights)
    used = devices[: needs.workers]
    if owner is not None and not (owner.memory.held and any(each.identity == owner.memory.device for each in used)):
        owner = None  # it is elsewhere
    fullest = min(used, key=lambda device: device.free)
    free, apart = fullest.free, min(_without(device, owner) for device in used)
    may_ask = owner is not None and not owner.why_not and apart > free
    held = _holders(fullest, owner)
    asked = f"The owner process ({owner.pid}) is asked to step aside, which frees {_gib(apart - free)}" if owner else ""
    peak = needs.peak(free)
    if peak is None:
        if may_ask and fullest.gpu:
            return Room("step aside", f"What training takes is not known. {asked}. {_MEANWHILE}", "", apart)
        return Room("beside", f"What training takes is not known; {_gib(free)} are free.", "", free)
    figures = f"about {_gib(peak)} are needed to train and judge, and {_gib(free)} are free"
    answering = owner if owner is not None and owner.memory.model else None
    beside = (
        f"It trains beside the owner process ({answering.pid}), which goes on answering" if answering else "It fits"
    )
    limit = int(_BESIDE * free) if answering else free
    if peak <= limit:
        return Room("beside", f"{beside}: {figures}.", "", free)
    if may_ask and needs.training(apart) <= apart:
        return Room("step aside", f"{asked}: {figures}. {held} {_MEANWHILE}{needs.doubt(apart)}", "", apart)
    if needs.training(free) <= limit:
        return Room("beside", f"{beside}: {figures}.{needs.doubt(free)}", "", free)
    if not fullest.gpu:
        return Room("beside", f"Memory may not do, and the system then swaps or ends it: {figures}. {held}", "", free)
    why_not = f" {owner.why_not}" if owner is not None and owner.why_not else ""
    at_most = apart if may_ask else free
    return Room("refuse", f"It does not fit: {figures}. {held}{why_not}", needs.would_fit(at_most), free)


class _Needs:
    """What a recipe takes, by the memory that it has: with less, more layers are computed again."""

    def __init__(self, recipe: Recipe, base: BaseModel, device: Device, weights: AskedWeights) -> None:
        self._recipe, self._device, self._weights = recipe, device, weights
        self._shape = shape_of(base)
        self.workers = 1
        self.workers = self._conditions(device.total).share.workers

    def _conditions(self, memory: int) -> Conditions:
        memory = memory if self.workers == 1 else self._device.total  # as machines.memory_here has it
        machine = Machine(self._device.name, self._device.gpu, memory, 0.0, measured=True)
        # Compiled layers take less; whether they are compiled depends on the length of the run, which is known later.
        return conditions_of(self._shape, self._recipe, machine, None)

    def training(self, memory: int) -> int:
        """The peak of training on so much, in bytes."""
        assert self._shape is not None
        return predict_memory(self._shape, self._recipe, self._conditions(memory)).total

    def peak(self, memory: int) -> int | None:
        """That of training or of judging, whichever is more; ``None`` where the base model's shape is not known."""
        if self._shape is None:
            return None
        return max(self.training(memory), predict_judging(self._shape, self._recipe, self._device.gpu, self._weights))

    def doubt(self, memory: int) -> str:
        """A sentence where judging may take more than there is."""
        peak = self.peak(memory)
        if peak is None or peak <= memory:
            return ""
        return (
            f" Judging may take {_gib(peak)} and not fit: lower evaluation.prompt_tokens and evaluation.probe_tokens "
            "then; a later call judges without training again."
        )

    def would_fit(self, memory: int) -> str:
        """A sentence on what of the recipe would fit so much."""
        assert self._shape is not None
        found = what_would_fit(self._shape, self._recipe, self._conditions(memory))
        if found is None:
            return "No change of the recipe makes it fit: wait until others end, or take a smaller base model."
        return f"With {found[0]} training takes {_gib(found[1].total)} and would fit; or wait until others end."


def _without(device: Device, owner: Owner | None) -> int:
    """What would be free of a device without the owner's model."""
    own = owner is not None and device.identity == owner.memory.device
    return device.free + (owner.memory.model if own and owner is not None else 0)


def _holders(device: Device, owner: Owner | None) -> str:
    """Who holds the rest of a device, as far as that is known."""
    taken = max(0, device.total - device.free)
    if owner is None or device.identity != owner.memory.device:
        return f"Of {_gib(device.total)} of {device.name}, processes that are not known here hold {_gib(taken)}."
    held = min(owner.memory.held, taken)
    return (
        f"Of {_gib(device.total)} of {device.name}, the owner process holds {_gib(held)}, {_gib(owner.memory.model)} "
        f"of them for its model, and others {_gib(taken - held)}."
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
