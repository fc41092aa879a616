"""What was tried and what is tried next: Optuna's study of a sweep, in an SQLite file in its folder.

Only the process of the sweep itself opens it. A trial that was running when that process was killed is taken up again
first, with the same values, so that its training goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inhouse_retrieval import StateUnwritable

from .leg import LegResult
from .space import Choice, Space

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

_NAME = "sweep"
_FORGETTING, _REASON = "forgetting", "reason"
STARTUP_TRIALS = 5
"""Trials that are drawn at random, and never given up early, before what they came to decides."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial that has ended.

    Attributes:
        state: ``"finished"``, ``"pruned"`` or ``"failed"``.
        gain: over the base model, at the end or when it was given up; ``None`` when it failed.
        reason: why it failed, as a sentence.
    """

    number: int
    choice: Choice
    state: str
    gain: float | None
    reason: str


@contextlib.contextmanager
def plain_storage_errors(file: Path) -> Iterator[None]:
    """Tell in sentences when the file of a study cannot be read or written.

    Raises:
        StateUnwritable: it cannot.
    """
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except StorageInternalError as error:
        told = str(error.__cause__ or error).splitlines()[0]
        raise StateUnwritable(
            f"{file} cannot be read or written: {told}.",
            "Free some space or correct its permissions; the sweep goes on.",
        ) from error


class Study:
    """The trials of one sweep.

    Args:
        file: of the SQLite database.
        first: tried before anything else: the recipe as it is.
    """

    def __init__(self, file: Path, space: Space, first: Choice, seed: int) -> None:
        import optuna
        from sqlalchemy import URL

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        choices = optuna.distributions.CategoricalDistribution
        self._space: dict[str, Any] = {
            "rank": choices(space.ranks),
            "alpha": choices(space.alphas),
            "learning_rate": optuna.distributions.FloatDistribution(*space.learning_rates, log=True),
            "batch": choices(space.batches),
            "mix": choices(tuple(space.mixes)),
        }
        self._states = optuna.trial.TrialState
        self._study = optuna.create_study(
            storage=optuna.storages.RDBStorage(URL.create("sqlite", database=str(file)).render_as_string()),
            study_name=_NAME,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_min_trials=3),
            load_if_exists=True,
        )
        # A sampler does not remember how far it was: with the same seed it would draw the same trials again.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(self._study.trials), n_startup_trials=STARTUP_TRIALS
        )
        if all(trial.state == self._states.FAIL for trial in self._study.trials):  # none yet, or none that counts
            self._study.enqueue_trial(dict(first))
        self._take_up()

    def _take_up(self) -> None:
        """Put what was running when the sweep was killed at the head of the queue."""
        for trial in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            if len(trial.params) == len(self._space):
                self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=self._states.FAIL)

    def ask(self) -> Trial:
        """The next trial; ``params`` has its values."""
        return self._study.ask(self._space)

    def goes_on(self, trial: Trial, leg: LegResult) -> bool:
        """Whether a trial is worth going on with after a leg that was not its last."""
        trial.report(leg.score.gain.mean, leg.percent)
        return not trial.should_prune()

    def finished(self, trial: Trial, leg: LegResult, pruned: bool = False) -> None:
        """Note what a trial came to, at its end or where it was given up."""
        # What the gate would reject for what it forgot ranks behind whatever it would not.
        trial.set_constraint(_FORGETTING, leg.score.excess)
        if pruned:
            # Optuna takes the last report as its value.
            self._study.tell(trial, state=self._states.PRUNED)
        else:
            self._study.tell(trial, leg.score.gain.mean)

    def failed(self, trial: Trial, reason: str) -> None:
        """Note that a trial came to nothing."""
        trial.set_user_attr(_REASON, reason)
        self._study.tell(trial, state=self._states.FAIL)

    def tried(self) -> list[Tried]:
        """The trials that have ended, in the order in which they began."""
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state in (self._states.COMPLETE, self._states.PRUNED):
                state = "finished" if trial.state == self._states.COMPLETE else "pruned"
                found.append(Tried(trial.number, trial.params, state, _value(trial), ""))
            elif trial.state == self._states.FAIL and _REASON in trial.user_attrs:
                found.append(Tried(trial.number, trial.params, "failed", None, trial.user_attrs[_REASON]))
        return found


def within_bounds(tried: Sequence[Tried], results: dict[int, LegResult]) -> list[Tried]:
    """The finished trials that forgot no more than the gate allows, best first."""
    fair = [trial for trial in tried if trial.state == "finished" and results[trial.number].score.excess <= 0]
    return sorted(fair, key=lambda trial: (-(trial.gain or 0.0), trial.number))


def _value(trial: FrozenTrial) -> float | None:
    return trial.value if trial.value is not None else max(trial.intermediate_values.items(), default=(0, None))[1]
