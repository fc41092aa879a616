"""How several GPUs of one machine share a run: how many of them, and how many rows each."""

from __future__ import annotations

from dataclasses import dataclass

from inhouse_retrieval import InhouseError

from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker has of a run.

    Attributes:
        workers: that train together, one on each GPU.
        split: weights, adapter and optimiser are split between them; else each has all.
    """

    workers: int = 1
    split: bool = False


ALONE = Share()


def rows_of_a_worker(recipe: Recipe, workers: int) -> tuple[int, int]:
    """Rows of one worker's forward pass, and how many passes it makes in a step.

    All workers together take the recipe's ``batch_rows`` times ``accumulate`` rows in a step, and none takes more than
    ``batch_rows`` at once.

    Raises:
        InhouseError: the rows of a step cannot be shared evenly.
    """
    optimizer = recipe.optimizer
    step = optimizer.batch_rows * optimizer.accumulate
    if step % workers:
        raise InhouseError(
            f"The rows in a step of the recipe {recipe.name}, {step}, cannot be shared evenly by {workers} GPUs.",
            f"Set optimizer.accumulate to a multiple of {workers}, or trainer.gpus to a number that divides {step}.",
        )
    own = step // workers
    rows = max(rows for rows in range(1, optimizer.batch_rows + 1) if own % rows == 0)
    return rows, own // rows


def workers_of(recipe: Recipe, gpus: int) -> int:
    """How many GPUs train together on a machine that has ``gpus`` of them.

    Raises:
        InhouseError: there are fewer than the recipe asks for, or they cannot share its steps.
    """
    asked = recipe.trainer.gpus
    step = recipe.optimizer.batch_rows * recipe.optimizer.accumulate
    if asked == "all":
        return max(number for number in range(1, max(gpus, 1) + 1) if step % number == 0)
    if asked > 1 and asked > gpus:
        raise InhouseError(
            f"The recipe {recipe.name} asks for {asked} GPUs, and this machine has {gpus}.",
            'Set trainer.gpus to "all" or to what is there.',
        )
    rows_of_a_worker(recipe, asked)
    return asked
