"""What a sweep tries, the changes that it chooses by, and the recipe that it writes."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_training import BaseModel, Recipe, load_recipe
from inhouse_training.cut import cut_repository, held_out_change, selection_cut
from inhouse_training.judging import not_selected_by
from inhouse_training.machines import CARDS, Machine
from inhouse_training.memory import GIB
from inhouse_training.recipe import parse_recipe, recipe_names
from inhouse_training.recipe_text import recipe_text
from inhouse_training.sweep.space import OWN_MIX, own_choice, recipe_of, space_around, what_fits

from .conftest import TINY
from .history import make_history

ARTICLE = BaseModel("mistralai/Mistral-7B-Instruct-v0.2", Path(), "", "")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_swept_and_is_itself_the_first_trial(name: str) -> None:
    recipe = load_recipe(name)
    space, own = space_around(recipe), own_choice(recipe)
    assert own["rank"] in space.ranks and own["alpha"] in space.alphas and own["batch"] in space.batches
    assert space.learning_rates[0] <= own["learning_rate"] <= space.learning_rates[1]
    assert recipe_of(recipe, space, own) == recipe
    assert len(space.mixes) >= 2 and space.mixes[OWN_MIX] == recipe.data
    if "edits" in space.mixes:
        assert space.mixes["edits"].edit_share > recipe.data.edit_share


def test_a_trial_changes_what_is_swept_and_nothing_else() -> None:
    recipe = load_recipe("gpu-trial")  # 8 rows at a time
    space = space_around(recipe)
    small = recipe_of(recipe, space, {"rank": 16, "alpha": 1.5, "learning_rate": 2e-4, "batch": 4, "mix": "text"})
    assert (small.lora.rank, small.lora.alpha) == (16, 24)
    assert (small.optimizer.batch_rows, small.optimizer.accumulate, small.optimizer.learning_rate) == (4, 1, 2e-4)
    assert small.data.edit_share == recipe.data.edit_share / 2
    large = recipe_of(recipe, space, {**own_choice(recipe), "batch": 16})
    assert (large.optimizer.batch_rows, large.optimizer.accumulate) == (8, 2)
    assert large.trainer == recipe.trainer and large.evaluation == recipe.evaluation and large.data == recipe.data


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ('[sweep]\nmixes = { more = { edits = 0.5 } }', "names 'edits'"),
        ('[sweep]\nmixes = { "../up" = { edit_share = 0.5 } }', "not named by letters"),
        ("[sweep]\nlearning_rates = [1e-3, 1e-4]", "begins with the lowest"),
        ("[sweep]\nranks = [0]", "greater than or equal to 1"),
        ('[sweep]\nrank = [8]', "no key 'sweep.rank'"),
        ("[sweep]\nbatches = [3]", "A batch of 3 rows cannot be made of 2"),
        ("[sweep.mixes.more]\nedit_share = 0.9", "The mix 'more' of the sweep is not valid"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_said(said: str, problem: str) -> None:
    with pytest.raises(InhouseError) as told:
        space_around(parse_recipe(TINY.format(budget=6000, rate=1e-3) + said, "tiny", "tiny.toml"))
    assert problem in str(told.value)


def test_what_a_recipe_would_sweep_does_not_make_its_run_another_one() -> None:
    text = TINY.format(budget=6000, rate=1e-3)
    plain, swept = (parse_recipe(each, "tiny", "t") for each in (text, f"{text}[sweep]\nranks = [2, 64]"))
    assert plain.model_dump() == swept.model_dump()
    assert space_around(swept).ranks == (2, 4, 64)


def test_ranks_that_do_not_fit_the_card_are_left_out_with_a_sentence() -> None:
    recipe = load_recipe("article")
    recipe = recipe.model_copy(update={"sweep": recipe.sweep.model_copy(update={"ranks": (512, 1536)})})
    space = what_fits(recipe, space_around(recipe), ARTICLE, CARDS["a100-40gb"])
    assert space.ranks == (512, 768) and space_around(recipe).ranks == (512, 768, 1536)
    assert any("is left out: it would take about" in sentence for sentence in space.left_out)
    with pytest.raises(InhouseError, match="needs about"):
        what_fits(recipe, space, ARTICLE, Machine("a watch", True, GIB, 0.1))


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_is_written_reads_as_it_was(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).model_copy(update={"selected_until": "a" * 40})
    file = tmp_path / f"{name}.toml"
    file.write_text(recipe_text(recipe, ("The best of 20 trials\nof a sweep",)), encoding="utf-8")
    assert load_recipe(file).model_dump() == recipe.model_dump()
    assert file.read_text().startswith("# The best of 20 trials\n# of a sweep\n")
    assert "sweep" not in tomllib.loads(file.read_text())


def test_what_chooses_never_judges(history: Repository, tiny_recipe: Recipe) -> None:
    cut, selection = selection_cut(history, tiny_recipe)
    judging = cut_repository(history, tiny_recipe)
    chose = {change.commit for change in selection}
    judged = {change.commit for change in judging.held_out}
    assert len(chose) >= 5 and not chose & judged
    # The trials learn from before both, and know both as held out, so that copies of either are found.
    assert {change.commit for change in cut.held_out} == chose | judged
    assert cut.snapshot == selection[-1].parent
    # What chose is older than what judges: the next adapter learns it.
    assert chose < {change.commit for change in judging.training}


def test_a_history_too_short_to_choose_by_is_said(tmp_path: Path, tiny_recipe: Recipe) -> None:
    short = make_history(tmp_path / "short", commits=14)
    assert cut_repository(short, tiny_recipe)
    with pytest.raises(InhouseError, match="too short to choose a recipe by") as told:
        selection_cut(short, tiny_recipe)
    assert "comes with inhouse" in told.value.remedy


def test_a_recipe_is_not_judged_by_what_chose_it(history: Repository, tiny_recipe: Recipe) -> None:
    cut = cut_repository(history, tiny_recipe)
    held_out = tuple(change for change in map(held_out_change, cut.held_out) if change is not None)
    assert not_selected_by(history, tiny_recipe, cut, held_out) == held_out
    # A sweep before more changes were read chose by the three oldest of them.
    chosen = tiny_recipe.model_copy(update={"selected_until": held_out[-3].commit})
    assert not_selected_by(history, chosen, cut, held_out) == held_out[:-3]
    # By a sweep that chose before the snapshot, nothing is lost.
    before = tiny_recipe.model_copy(update={"selected_until": cut.training[0].commit})
    assert not_selected_by(history, before, cut, held_out) == held_out
    all_but_two = tiny_recipe.model_copy(update={"selected_until": held_out[2].commit})
    with pytest.raises(InhouseError, match="was chosen by all but 2 of the changes"):
        not_selected_by(history, all_but_two, cut, held_out)
    assert not_selected_by(history, chosen, replace(cut, snapshot="0" * 40), held_out) == held_out
