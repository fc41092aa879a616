"""What a sweep tries: values around the recipe's own, without those that do not fit the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from inhouse_retrieval import InhouseError

from ..base_model import BaseModel
from ..forecast import forecast_training
from ..machines import Machine
from ..memory import GIB
from ..recipe import DataSettings, Recipe

Choice = Mapping[str, Any]
"""One point of the space: ``rank``, ``alpha`` (times the rank), ``learning_rate``, ``batch`` and ``mix``."""

OWN_MIX = "recipe"
"""The mix of the recipe itself."""
_MORE_EDITS, _MORE_TEXT = "edits", "text"
_EDITS_AT_FIRST = 0.15
_TEXT = ("file_share", "page_share", "change_share")


@dataclass(frozen=True, slots=True)
class Space:
    """Everything that a trial may be.

    Attributes:
        alphas: multiples of the rank.
        learning_rates: lowest and highest.
        batches: rows in an optimiser step.
        mixes: name -> settings of the data.
        left_out: what was asked for but does not fit, each a sentence.
    """

    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    learning_rates: tuple[float, float]
    batches: tuple[int, ...]
    mixes: dict[str, DataSettings]
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What identifies a sweep, beside the recipe and the repository."""
        return {
            "ranks": list(self.ranks),
            "alphas": list(self.alphas),
            "learning_rates": list(self.learning_rates),
            "batches": list(self.batches),
            "mixes": {name: data.model_dump(mode="json") for name, data in self.mixes.items()},
        }


def space_around(recipe: Recipe) -> Space:
    """What the recipe's ``[sweep]`` says, or its own values and some around them.

    Raises:
        InhouseError: the shares of a mix add up to more than 1, or a batch cannot be made of the recipe's rows.
    """
    asked, rank, rate = recipe.sweep, recipe.lora.rank, recipe.optimizer.learning_rate
    batch = recipe.optimizer.batch_rows * recipe.optimizer.accumulate
    low, high = asked.learning_rates or (rate / 5, rate * 5)
    space = Space(
        ranks=_with(rank, asked.ranks or (max(1, rank // 4), max(1, rank // 2), rank * 2)),
        alphas=_with(recipe.lora.alpha / rank, asked.alphas),
        learning_rates=(min(low, rate), max(high, rate)),
        batches=_with(batch, asked.batches or (max(1, batch // 2), batch * 2)),
        mixes={OWN_MIX: recipe.data} | _mixes(recipe),
    )
    for wanted in space.batches:
        rows = recipe.optimizer.batch_rows
        if max(wanted, rows) % min(wanted, rows):
            raise InhouseError(
                f"A batch of {wanted} rows cannot be made of {rows} rows at a time, as the recipe has it.",
                "Name multiples of optimizer.batch_rows in sweep.batches.",
            )
    return space


def own_choice(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it is, as a point of the space."""
    return {
        "rank": recipe.lora.rank,
        "alpha": recipe.lora.alpha / recipe.lora.rank,
        "learning_rate": recipe.optimizer.learning_rate,
        "batch": recipe.optimizer.batch_rows * recipe.optimizer.accumulate,
        "mix": OWN_MIX,
    }


def recipe_of(recipe: Recipe, space: Space, choice: Choice) -> Recipe:
    """The recipe with the values of one trial; its name stays."""
    rows = min(recipe.optimizer.batch_rows, choice["batch"])
    lora = {"rank": choice["rank"], "alpha": max(1, round(choice["rank"] * choice["alpha"]))}
    optimizer = {
        "learning_rate": choice["learning_rate"],
        "batch_rows": rows,
        "accumulate": choice["batch"] // rows,
    }
    return recipe.model_copy(
        update={
            "data": space.mixes[choice["mix"]],
            "lora": recipe.lora.model_copy(update=lora),
            "optimizer": recipe.optimizer.model_copy(update=optimizer),
        }
    )


def what_fits(recipe: Recipe, space: Space, base: BaseModel, machine: Machine) -> Space:
    """The space without the ranks that do not fit the machine's memory.

    Raises:
        InhouseError: none of them fits.
    """
    fitting: list[int] = []
    told: list[str] = []
    refusal = ""
    for rank in space.ranks:
        changed = recipe_of(recipe, space, {**own_choice(recipe), "rank": rank})
        forecast = forecast_training(changed, base, None, machine)
        if not forecast.refusal:
            fitting.append(rank)
            continue
        refusal = refusal or forecast.refusal
        if forecast.memory is not None:
            told.append(
                f"Rank {rank} is left out: it would take about {forecast.memory.total / GIB:.1f} GiB, and "
                f"{machine.name} has {machine.memory / GIB:.1f}."
            )
    if not fitting:
        raise InhouseError(refusal, "Sweep another recipe, or on a machine with more memory.")
    return Space(tuple(fitting), space.alphas, space.learning_rates, space.batches, space.mixes, tuple(told))


def _with(own: Any, others: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(sorted({own, *others}))


def _mixes(recipe: Recipe) -> dict[str, DataSettings]:
    found = {}
    for name, shares in (recipe.sweep.mixes or _usual_mixes(recipe.data)).items():
        try:
            found[name] = DataSettings.model_validate({**recipe.data.model_dump(), **shares})
        except ValidationError as error:
            raise InhouseError(
                f"The mix {name!r} of the sweep is not valid: {error.errors()[0]['msg']}.",
                "Correct its shares in sweep.mixes: with those of [data] that it leaves as they are, they add up to 1 "
                "at most.",
            ) from error
    return found


def _usual_mixes(data: DataSettings) -> dict[str, dict[str, float]]:
    """Twice the past edits, or some where there are none; half of the past edits given to files and changes.

    Most of an edit's row is its prompt: doubling its share of what is learned makes it most of what is read.
    """
    stated = {name: getattr(data, name) for name in DataSettings.model_fields if name.endswith("_share")}
    shares = {name: share for name, share in stated.items() if share}
    others = {name: share for name, share in shares.items() if name not in ("edit_share", "replay_share")}
    given = min(data.edit_share or _EDITS_AT_FIRST, sum(others.values()) / 2)
    fewer = {name: share * (1 - given / sum(others.values())) for name, share in others.items()}
    mixes = {_MORE_EDITS: {**fewer, "edit_share": data.edit_share + given}}
    text = {name: share for name, share in shares.items() if name in _TEXT}
    if data.edit_share and text:
        given = data.edit_share / 2 / sum(text.values())
        grown = {name: share * (1 + given) for name, share in text.items()}
        mixes[_MORE_TEXT] = {**grown, "edit_share": data.edit_share / 2}
    return mixes
