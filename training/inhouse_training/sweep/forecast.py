"""What a sweep will take, told beforehand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import Progress, Repository, no_progress

from ..base_model import BaseModel
from ..forecast import Forecast, forecast_training
from ..machines import Machine
from ..plan import count_planned
from ..recipe import Recipe
from .job import SweepPlan
from .leg import LEGS
from .space import OWN_MIX, own_choice, recipe_of


@dataclass(frozen=True, slots=True)
class SweepForecast:
    """All trials together, if none is given up early.

    Attributes:
        trials: in all.
        at_once: trials that run at the same time, one on each GPU.
        largest: the forecast of the trial that takes most memory.
        seconds, cost: of training alone; scoring each trial comes on top.
    """

    trials: int
    at_once: int
    largest: Forecast
    seconds: float | None
    cost: float | None

    def to_json(self) -> dict[str, Any]:
        """As ``inhouse sweep --dry-run --json`` has it."""
        return {**asdict(self), "largest": self.largest.to_json(), "scorings_of_a_trial": len(LEGS)}


def forecast_sweep(
    plan: SweepPlan,
    repository: Repository,
    state_dir: Path,
    recipe: Recipe,
    base: BaseModel,
    machine: Machine,
    trials: int,
    at_once: int,
    price: float | None = None,
    progress: Progress = no_progress,
) -> SweepForecast:
    """Predict a sweep; the rows are those of the recipe's own mix, and every rank is taken as often as the others.

    Args:
        price: of the machine for an hour.
    """
    rows = count_planned(plan.directory / "datasets" / OWN_MIX, plan.cut, repository, state_dir, recipe, base, progress)
    own = own_choice(recipe)
    forecasts = [
        forecast_training(recipe_of(recipe, plan.space, {**own, "rank": rank}), base, rows, machine)
        for rank in plan.space.ranks
    ]
    times = [forecast.seconds for forecast in forecasts if forecast.seconds is not None]
    seconds = sum(times) / len(times) * trials / at_once if times else None
    cost = seconds / 3600 * price if seconds is not None and price is not None else None
    largest = max(forecasts, key=lambda each: each.memory.total if each.memory is not None else 0)
    return SweepForecast(trials, at_once, largest, seconds, cost)
