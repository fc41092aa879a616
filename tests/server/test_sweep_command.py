"""`inhouse sweep` as a user meets it: what it would try, what it says when it cannot, and a sweep from start to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inhouse_retrieval import Repository
from inhouse_server.cli import main
from inhouse_training import BaseModel, load_recipe, load_tokenizer

from ..training.conftest import TINY, make_tiny
from ..training.history import make_history

pytestmark = pytest.mark.usefixtures("base_model")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_history(tmp_path_factory.mktemp("sweep") / "shop", commits=30)


@pytest.mark.long
def test_a_dry_run_tells_what_would_be_tried_and_writes_nothing(
    shop: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("sweep", "--dry-run", "--trials", "7", "--price", "2", "--card", "t4-16gb", "--repo", str(shop.root))
    assert main([*asked, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["forecast"]["trials"] == 7 and plan["forecast"]["cost"] > 0
    assert plan["space"]["ranks"] == [4, 8, 16, 32] and set(plan["space"]["mixes"]) == {"recipe", "edits", "text"}
    assert plan["selection_changes"] >= 5 and plan["judging_changes"] >= 5
    assert main([*asked]) == 0
    told = capsys.readouterr().out
    assert "would try 7 settings, 1 at once" in told and "are left to judge what comes of it" in told
    assert not (shop.root / ".inhouse").exists()


def test_what_cannot_be_is_said(shop: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "cpu-trail", "--repo", str(shop.root)]) == 2
    assert "Did you mean 'cpu-trial'?" in capsys.readouterr().err
    for option, value in (("--card", "h100"), ("--price", "2")):
        assert main(["sweep", option, value, "--repo", str(shop.root)]) == 2
        assert f"{option} goes with --dry-run." in capsys.readouterr().err
    short = make_history(tmp_path / "short", commits=14)
    assert main(["sweep", "--dry-run", "--repo", str(short.root)]) == 1
    assert "too short to choose a recipe by" in capsys.readouterr().err


@pytest.mark.long
def test_a_sweep_writes_a_recipe_that_can_be_retrained_with(
    shop: Repository, base_model: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(TINY.format(budget=1500, rate=1e-3))
    tiny = make_tiny(tmp_path / "tiny", load_tokenizer(base_model))
    (shop.root / "inhouse.toml").write_text(f'base_model = "{tiny}"\n')
    try:
        assert main(["sweep", str(recipe), "--trials", "2", "--timeout", "2h", "--repo", str(shop.root)]) == 0
        told = capsys.readouterr().out
        written = next(line.removeprefix("recipe: ") for line in told.splitlines() if line.startswith("recipe: "))
        assert "gains most over the base model with retrieval" in told and "Traceback" not in told
        assert load_recipe(written).selected_until
        assert main(["retrain", "--dry-run", "--json", "--recipe", written, "--repo", str(shop.root)]) == 0
        assert json.loads(capsys.readouterr().out)["decision"] == "train"
    finally:
        (shop.root / "inhouse.toml").unlink()
