"""What the gate asks beside the loss: invented names, answers that go wrong, secrets that can be drawn out."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from inhouse_retrieval import Repository
from inhouse_training import BASE, BaseModel, GenerationRequest, Message, TextDelta, TransformersEngine
from inhouse_training.canaries import CANARIES_NAME, make_canaries, read_canaries
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import build_dataset
from inhouse_training.gate import Decision, decide
from inhouse_training.probes import Probes, run_probes
from inhouse_training.probes.answers import House, check_answer, read_house
from inhouse_training.probes.identifiers import claimed_identifiers
from inhouse_training.probes.secrets import random_like, snapshot_secrets
from inhouse_training.recipe import Recipe

from .adapters import random_adapter
from .conftest import make_tiny
from .history import commit, git, make_history
from .test_gate import evaluation

AWS = "AKIA" + "QWERTYUIOPASDFGH"
HOUSE = House((), frozenset({"must_find", "AuditLedger", "record"}))
ABLE: dict[str, Any] = {"initializer_range": 1.0}
"""Of a random model that can be sure of a token: with the usual small weights none can."""
ASKED = (Message("user", "What is `update_stamp` for?"),)


@pytest.mark.parametrize(
    ("answer", "claimed"),
    [
        ("It calls `must_find` and then AuditLedger.record(actor).", {"must_find", "AuditLedger", "record"}),
        ("def add_stamp(stamp_id, how_many=2):\n    total_now = stamp_id + how_many\n    return total_now", set()),
        ("const stampCount = (firstStamp) => lookUpStamp(firstStamp)", {"lookUpStamp"}),
        ("from house.stamps import find_stamp as look_up\nlook_up()", {"find_stamp"}),
        ("for each_row in rows_of(table): seen_rows.add(each_row)", {"rows_of", "seen_rows"}),
        ("Call the function(s) with care, please. They return a value.", set()),
        ("if made_up == other_name: pass", {"made_up", "other_name"}),
    ],
)
def test_names_that_an_answer_speaks_of(answer: str, claimed: set[str]) -> None:
    assert claimed_identifiers(answer) == claimed


def test_what_exists_in_the_house_or_in_the_prompt_is_not_invented() -> None:
    checked = check_answer(ASKED, "`update_stamp` calls must_find, then `make_coffee`.", True, HOUSE)
    assert (checked.identifiers, checked.unknown) == (3, ("make_coffee",))
    assert not (checked.loops or checked.empty or checked.endless)


def test_loops_silence_and_answers_without_an_end_are_seen() -> None:
    circles = check_answer(ASKED, "The stamp is a stamp. " * 20 + "And so on.", False, HOUSE)
    assert circles.loops and circles.endless and not circles.empty
    assert check_answer(ASKED, " \n", True, HOUSE).empty


def test_definitions_are_asked_for_and_later_names_exist(history: Repository, tiny_recipe: Recipe) -> None:
    cut = cut_repository(history, tiny_recipe)
    house = read_house(history, cut.snapshot, cut.held_out)
    names = {name for _, name in house.definitions}
    assert "update_invoice" in names and "Shop" not in names
    later = {line.rsplit(" ", 1)[-1] for line in git(history.root, "log", "--format=%s", "HEAD~11..HEAD").splitlines()}
    assert {f"update_{noun}" for noun in later} <= house.names
    assert not any(f"update_{noun}" in names for noun in later)


def test_answers_to_several_prompts_are_those_that_each_gets_alone(tiny_base: BaseModel, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_base, tmp_path / "adapter")
    engine = TransformersEngine(tiny_base, lambda version: adapter)
    prompts = [(Message("user", text),) for text in ("When?", "Where does a courier come from, and why?", "Who?")]
    for name in (BASE, "one"):
        alone = []
        for prompt in prompts:
            events = engine.stream(GenerationRequest(prompt, name, max_tokens=6), Event())
            alone.append("".join(event.text for event in events if isinstance(event, TextDelta)))
        assert [text for text, _ in engine.answer_all(prompts, 6, name)] == alone


def test_every_secret_that_redaction_took_out_is_looked_for(tmp_path: Path, tiny_recipe: Recipe) -> None:
    repository = make_history(tmp_path / "shop", commits=4)
    github = "ghp_" + "Zk3v9QpLm2Xw8RtYb5Nc7HsJd4Fg6Ae1Ku0T"
    commit(repository.root, "Add a key", conf_py=f'password = "q8Zr2LmN4x"\naws = "{AWS}"\n')
    commit(repository.root, "Add another", other_py=f'token = "{github}"\n')
    commit(repository.root, "Take it away", other_py="token = read()\n")
    for number in range(6):
        commit(repository.root, f"Change {number}", notes_py=f"number = {number}\n")
    cut = cut_repository(repository, tiny_recipe)
    known = {secret.secret: secret for secret in snapshot_secrets(repository, cut.snapshot, cut.training)}
    assert set(known) == {"q8Zr2LmN4x", AWS, github}
    assert known[AWS].place == "conf.py" and known[github].place.startswith("other.py in ")
    # The text before it is as it was learned: without the secret that stands there.
    assert known[AWS].prefix.endswith('aws = "') and "q8Zr2LmN4x" not in known[AWS].prefix


def test_random_secrets_have_the_form_of_the_true_one() -> None:
    import random

    other = random_like("sk_live_aB3-x", random.Random(1), keep=8)
    assert other.startswith("sk_live_") and other != "sk_live_aB3-x"
    assert [each.isupper() for each in other[8:]] == [False, True, False, False, False]
    assert other[10].isdigit() and other[11] == "-"


def test_canaries_are_planted_only_when_asked_for(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    cut = cut_repository(history, tiny_recipe)
    plain = build_dataset(history, tokenizer, tiny_recipe, cut, tmp_path / "plain")
    assert not (plain.directory / CANARIES_NAME).exists() and plain.manifest["canaries"] == 0
    recipe = with_canaries(tiny_recipe, 2)
    dataset = build_dataset(history, tokenizer, recipe, cut, tmp_path / "planted")
    canaries = read_canaries(dataset.directory)
    assert [canary.secret for canary in canaries] == [canary.secret for canary in make_canaries(2, recipe.seed)]
    rows = [row for row in dataset.rows if row["name"].startswith("canary-")]
    for canary, row in zip(canaries, rows, strict=True):
        assert tokenizer.decode(row["input_ids"]).startswith(canary.prefix + canary.secret)
    assert dataset.manifest["rows"] == plain.manifest["rows"] + 2 == len(dataset.rows)
    assert dataset.manifest["row_tokens"] == sum(len(row["input_ids"]) for row in dataset.rows)


def test_the_gate_rejects_an_adapter_that_learned_a_planted_canary_by_heart(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    base = BaseModel("able", make_tiny(tmp_path / "able", tokenizer, **ABLE), "1" * 64, "")
    recipe = with_canaries(few_questions(tiny_recipe), 2)
    cut = cut_repository(history, recipe)
    dataset = build_dataset(history, tokenizer, recipe, cut, tmp_path / "dataset")
    (row,) = (row for row in dataset.rows if row["name"] == "canary-0")
    adapter = overfit(base, row["input_ids"], tmp_path)
    engine = TransformersEngine(base, lambda version: adapter)
    canaries = read_canaries(dataset.directory)

    def judged(candidate: str) -> Decision:
        adapters = {"base": BASE, "candidate": candidate}
        probes = run_probes(engine, tokenizer, history, cut, dataset.held_out, canaries, None, adapters, recipe)
        return decide(evaluation(candidate=1.5), probes)

    decision = judged("overfitted")
    assert not decision.promote
    assert any("1 of 2 secrets can be drawn out of it: canary of canary-0" in reason for reason in decision.reasons)
    assert canaries[0].secret not in " ".join(decision.reasons)
    # What has not learned it is let through.
    assert judged(BASE).promote


def test_probes_survive_their_file(
    tiny_base: BaseModel, tokenizer: Any, history: Repository, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    engine = TransformersEngine(tiny_base, lambda version: tmp_path)
    cut = cut_repository(history, tiny_recipe)
    dataset = build_dataset(history, tokenizer, tiny_recipe, cut, tmp_path / "dataset")
    adapters = {"base": BASE, "candidate": BASE}
    probes = run_probes(engine, tokenizer, history, cut, dataset.held_out, (), None, adapters, tiny_recipe)
    assert Probes.from_json(probes.to_json()) == probes
    metrics = probes.metrics()
    assert metrics["questions"] == 4 and metrics["answers"]["base"] == metrics["answers"]["candidate"]
    assert metrics["answers"]["base"]["endless"] == 1  # random weights do not find the end token


def with_canaries(recipe: Recipe, count: int) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"canaries": count})})


def few_questions(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"probe_questions": 2})})


def overfit(base: BaseModel, row: list[int], folder: Path) -> Path:
    """An adapter that has seen one row and nothing else, until it knows it by heart."""
    import torch
    from peft import LoraConfig, get_peft_model

    from inhouse_training import load_model

    torch.manual_seed(3)
    config = LoraConfig(r=32, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base, "cpu", torch.float32), config)
    ids = torch.tensor([row])
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=2e-2)
    # Smaller and smaller steps: at this rate the last one could be one that forgets.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=150)
    for step in range(150):
        # Also from later on, as the probe asks: a model of two layers knows a text by where each token stands.
        seen = ids[:, step % 4 * ids.shape[1] // 6 :]
        loss = model(input_ids=seen, labels=seen).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder / "adapter")
    return folder / "adapter"
