"""What a candidate is judged by: the adapter that it competes with, and changes that nobody knows who is compared."""

from __future__ import annotations

from inhouse_retrieval import InhouseError, Repository

from .base_model import BaseModel
from .cut import LEAST_HELD_OUT, Cut, HeldOutChange, held_out_change
from .recipe import Recipe
from .registry import Registry
from .runs import Run, read_json


def current_before(registry: Registry, base: BaseModel, run: Run) -> tuple[str | None, str]:
    """The adapter that the candidate competes with, and a sentence when the current one cannot.

    It is not the candidate itself, when a run was killed just after its promotion.
    """
    noted = read_json(run.directory / "candidate.json")
    current = registry.current()
    if noted is not None and noted["version"] == current:
        current = noted["current"]
    if current is None:
        return None, ""
    try:
        registry.verify(current)
    except InhouseError as error:
        return None, f"It was not compared with the current adapter: {error.problem}"
    if registry.get(current).manifest.base_sha256 != base.sha256:
        return None, f"It was not compared with the current adapter {current}, which belongs to another base model."
    return current, ""


def judging_changes(
    repository: Repository, registry: Registry, recipe: Recipe, cut: Cut, current: str | None
) -> tuple[HeldOutChange, ...]:
    """The changes that judge the candidate of a cut.

    Args:
        current: the adapter that it competes with.

    Raises:
        InhouseError: too few are left.
    """
    held_out = tuple(change for change in map(held_out_change, cut.held_out) if change is not None)
    return not_selected_by(repository, recipe, cut, _unseen(repository, registry, cut, held_out, current))


def _unseen(
    repository: Repository, registry: Registry, cut: Cut, held_out: tuple[HeldOutChange, ...], current: str | None
) -> tuple[HeldOutChange, ...]:
    """The held-out changes that the current adapter did not see either: it may be of a later snapshot, when the recipe
    or the kind of change that counts is another than it was.

    Raises:
        InhouseError: too few are left to judge by.
    """
    if current is None:
        return held_out
    snapshot = registry.get(current).manifest.snapshot
    listed = repository.git("rev-list", f"{cut.snapshot}..{snapshot}", allow_failure=True)
    seen = set(listed.decode("ascii").split())  # empty when that history was rewritten: none of it is left
    unseen = tuple(change for change in held_out if change.commit not in seen)
    if len(unseen) < LEAST_HELD_OUT:
        raise InhouseError(
            f"The current adapter {current} was trained on all but {len(unseen)} of the changes that would judge the "
            f"candidate, and {LEAST_HELD_OUT} are needed.",
            "Retrain when more changes have landed, or roll back to compare with the base model alone.",
        )
    return unseen


def not_selected_by(
    repository: Repository, recipe: Recipe, cut: Cut, held_out: tuple[HeldOutChange, ...]
) -> tuple[HeldOutChange, ...]:
    """The held-out changes without those by which a sweep chose the recipe: a choice looks better there than it is.

    A sweep chooses by older changes than are held out; they are among them all the same when the recipe's
    ``data.changes`` was raised since.

    Raises:
        InhouseError: too few are left to judge by.
    """
    if not recipe.selected_until:
        return held_out
    # Nothing is listed when that history was rewritten: none of it is left.
    listed = repository.git("rev-list", f"{cut.snapshot}..{recipe.selected_until}", allow_failure=True)
    chose = set(listed.decode("ascii").split())
    left = tuple(change for change in held_out if change.commit not in chose)
    if len(left) < LEAST_HELD_OUT:
        raise InhouseError(
            f"The recipe {recipe.name} was chosen by all but {len(left)} of the changes that would judge the "
            f"candidate, and {LEAST_HELD_OUT} are needed.",
            "Retrain when more changes have landed, or sweep again.",
        )
    return left
