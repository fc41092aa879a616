"""Recipes: every shipped one loads, and a mistake is told with its line and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError
from inhouse_training.recipe import load_recipe, parse_recipe, recipe_names
from inhouse_training.synthesis.rows import wanted_kinds


def test_every_shipped_recipe_loads_and_says_how_to_launch_it() -> None:
    assert recipe_names() == ["article", "cpu-trial", "default-7b", "gpu-trial", "small-gpu"]
    for name in recipe_names():
        assert load_recipe(name).name == name
        text = (Path(__file__).parents[2] / "training" / "recipes" / f"{name}.toml").read_text()
        assert text.startswith("# ")
        assert f"inhouse retrain --recipe {name}" in text.split("base_model")[0]


def test_the_article_is_repeated_with_its_own_numbers() -> None:
    article = load_recipe("article")
    assert (article.lora.rank, article.optimizer.learning_rate, article.data.max_tokens) == (768, 2e-5, 8192)
    assert article.optimizer.schedule == "cosine"
    assert article.optimizer.warmup == 0
    assert wanted_kinds(article.data) == ("qa",), "its first kind: a model's questions and answers about wiki pages"
    assert article.data.validation_conversations == 0, "an option; the time split is the default"


@pytest.mark.parametrize(
    ("content", "problem", "remedy"),
    [
        ("[data]\nmax_tokns = 5", "line 4: there is no key 'data.max_tokns'", "'max_tokens'"),
        ("[daata]\nmax_tokens = 512", "line 3: there is no key 'daata'", "'data'"),
        ('[lora]\nrank = "high"', "line 4: lora.rank", ""),
        ("[data]\nmax_tokens = 8", "line 4: data.max_tokens", ""),
        ("[trainer]\nkind = 'magic'", "line 4: trainer.kind", ""),
        ("[data\n", "not valid TOML", ""),
        ("[evaluation]\n[trainer]\n[data]\nfile_share = nan", "line 6: data.file_share", ""),
        ("[optimiser]\n", "there is no key 'optimiser'", "'optimizer'"),
        ("[sweep]\nlearning_rates = [1e-4, inf]", "line 4: sweep.learning_rates", ""),
        ("[sweep]\nalphas = [nan]", "line 4: sweep.alphas", ""),
        ("[sweep.mixes]\ntext = { file_share = nan }", "sweep.mixes.text.file_share", ""),
        ("[lora]\ntargets = []", "line 4: lora.targets", ""),
    ],
)
def test_mistakes_are_plain(content: str, problem: str, remedy: str) -> None:
    with pytest.raises(InhouseError) as told:
        parse_recipe(f'base_model = "x"\noptimizer = {{ learning_rate = 1e-3 }}\n{content}\n', "mine", "mine.toml")
    assert problem in told.value.problem
    assert remedy in told.value.remedy


@pytest.mark.parametrize("line", ["seed = -1", "seed = 4294967296", "seed = true"])
def test_a_seed_is_one_that_numpy_takes(line: str) -> None:
    def content(seed: str) -> str:
        return f'base_model = "x"\n{seed}\n[optimizer]\nlearning_rate = 1e-3\n'

    with pytest.raises(InhouseError, match=r"mine\.toml, line 2: seed: "):
        parse_recipe(content(line), "mine", "mine.toml")
    assert parse_recipe(content("seed = 4294967295"), "mine", "mine.toml").seed == 2**32 - 1


@pytest.mark.parametrize("key", ["learning_rate", "weight_decay", "max_grad_norm", "warmup"])
@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
def test_no_number_is_infinite(key: str, number: str) -> None:
    rate = "" if key == "learning_rate" else "learning_rate = 1e-3\n"
    with pytest.raises(InhouseError, match=rf"line \d: optimizer\.{key}: "):
        parse_recipe(f'base_model = "x"\n[optimizer]\n{rate}{key} = {number}\n', "mine", "mine.toml")


def test_a_recipe_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InhouseError, match="Did you mean 'cpu-trial'"):
        load_recipe("cpu-tral")
    with pytest.raises(InhouseError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_a_recipe_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text('base_model = "x"\n[optimizer]\nlearning_rate = 1e-4\n')
    assert load_recipe(file).name == "ours"
    file.write_text('base_model = "x"\n')
    with pytest.raises(InhouseError, match="'optimizer' is missing"):
        load_recipe(file)


def test_shares_are_parts_of_one() -> None:
    content = 'base_model = "x"\n[data]\nfile_share = 1.0\n[optimizer]\nlearning_rate = 1e-3\n'
    with pytest.raises(InhouseError, match=r"add up to 1\.6"):
        parse_recipe(content, "greedy", "greedy.toml")
