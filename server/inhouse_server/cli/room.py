"""Room for a retraining: beside the owner process, or in its place until the candidate is judged."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_server.cli.backend import OwnerBackend
from inhouse_server.cli.terminal import tell
from inhouse_server.owner import find_owner

if TYPE_CHECKING:
    from inhouse_training import AskedWeights, BaseModel, Device, Owner, Recipe, Room

LEASE_S = 30.0
"""So long after a retraining was killed the owner loads its model again."""
_PATIENCE_S = 600.0
"""For the answers under way to end."""
_LOOK_AGAIN_S = 0.2

Measure = Callable[[], "tuple[Device, ...]"]


def owner_here(state_dir: Path, may_ask: bool) -> Owner | None:
    """The running owner, with what it holds; ``None`` where none runs.

    Args:
        may_ask: ``[retrain] step_aside``.
    """
    from inhouse_training import HeldMemory, Owner

    found = find_owner(state_dir)
    if found is None:
        return None
    try:
        told = OwnerBackend(found).memory()
    except InhouseError as error:
        tell(f"What the owner process holds is not known: {error.problem}")
        return None
    why_not = "" if may_ask else "[retrain] step_aside = false keeps it from being asked to step aside."
    if not told["lends"]:
        why_not = "Its model is answered by another server, so it has none to give up."
    return Owner(told["pid"], HeldMemory(told["device"], told["held"], told["model"]), why_not)


def room_here(
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    may_ask: bool,
    measure: Measure | None = None,
    weights: AskedWeights = "auto",
) -> Room:
    """Where a retraining would take its memory from now; nobody is asked for anything yet.

    Args:
        measure: tells what is free; of this machine by default.
        weights: those that the candidate is judged with.

    Raises:
        InhouseError: the GPU does not answer, or the recipe asks for GPUs that are not there.
    """
    from inhouse_training import devices_here, plan_room

    owner = owner_here(state_dir, may_ask)  # first: it may still be loading
    return plan_room(recipe, base, (measure or devices_here)(), owner, weights)


class RoomForTraining:
    """Makes room when it is asked to, and lets the owner come back at the end of its block, however that ends.

    Args:
        may_ask: whether the owner may be asked to step aside.
        measure, weights: as :func:`room_here` takes them.
        lease_s: for how long the owner believes that it is needed without hearing of it.
    """

    def __init__(
        self,
        state_dir: Path,
        recipe: Recipe,
        base: BaseModel,
        may_ask: bool,
        progress: Progress = no_progress,
        measure: Measure | None = None,
        lease_s: float = LEASE_S,
        weights: AskedWeights = "auto",
    ) -> None:
        self._state_dir = state_dir
        self._plan: Callable[[], Room] = lambda: room_here(state_dir, recipe, base, may_ask, measure, weights)
        self._progress = progress
        self._lease_s = lease_s
        self._lease = secrets.token_hex(8)
        self._made = False
        self._over = threading.Event()
        self._renewing: threading.Thread | None = None

    def make(self) -> None:
        """Have room for training and judging; the first call does it and says how.

        Raises:
            InhouseError: it does not fit, or the owner does not step aside.
        """
        if self._made:
            return
        room = self._plan()
        if room.decision == "refuse":
            raise InhouseError(room.told, room.remedy)
        tell(room.told)
        if room.decision == "step aside":
            self._have_it_step_aside()
            after = self._plan()  # it took what it said, and nobody else took what it gave
            if after.decision == "refuse":
                raise InhouseError(f"The owner process stepped aside. {after.told}", after.remedy)
        self._made = True

    def _have_it_step_aside(self) -> None:
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        deadline = time.monotonic() + _PATIENCE_S
        asked = self._ask()
        self._renewing.start()
        while asked is not None and not asked["aside"]:
            if time.monotonic() > deadline:
                raise InhouseError(
                    f"The owner process still answers {asked['answering']} question(s) after {_PATIENCE_S:.0f} s.",
                    "Call it again when less is asked.",
                )
            self._progress("waiting for answers to end", 0, None)
            time.sleep(_LOOK_AGAIN_S)
            asked = self._ask()

    def _ask(self) -> dict[str, object] | None:
        """Have the owner step aside, or go on; ``None`` where none runs any more."""
        found = find_owner(self._state_dir)
        return OwnerBackend(found).step_aside(self._lease, self._lease_s) if found is not None else None

    def _renew(self) -> None:
        """Until the end. An owner that was started meanwhile is asked like the one before."""
        while not self._over.wait(self._lease_s / 3):
            try:
                self._ask()
            except InhouseError:
                continue  # it may be stopping; the next one is found then

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is None:
            return
        from inhouse_training import give_back_memory

        self._over.set()
        if self._renewing.is_alive():
            self._renewing.join()
        give_back_memory()
        try:
            if (found := find_owner(self._state_dir)) is not None:
                OwnerBackend(found).come_back(self._lease)
        except InhouseError as lost:
            tell(f"The owner process was not told to come back, and does so within {self._lease_s:.0f} s: {lost}")
