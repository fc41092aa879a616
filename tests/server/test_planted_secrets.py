"""Secrets of every kind, put everywhere that is read: none comes out anywhere, and each is told by kind and place."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from inhouse_retrieval import Index, Repository, redact, redactions_in
from inhouse_retrieval.pull_requests.forge import cleaned
from inhouse_server.answers import Question, Selection
from inhouse_server.assistant import Assistant
from inhouse_server.json_contracts import index_json
from inhouse_server.settings import AnswerSettings
from inhouse_training import BaseModel, Message, Registry, build_dataset, load_tokenizer
from inhouse_training.cut import cut_repository
from inhouse_training.recipe import parse_recipe
from tests.planted_secrets import SENTENCES, Planted, fragments, planted_secrets
from tests.retrieval.trees import commit_all, git, write
from tests.server.test_review_reading import ScriptedEngine
from tests.training.conftest import TINY

PLANTED = planted_secrets()


def test_there_are_more_kinds_than_forty() -> None:
    assert len({planted.kind for planted in PLANTED}) == len(PLANTED) > 100


@pytest.mark.parametrize("seed", ["2", "3", "4"])
def test_each_kind_is_taken_out_and_lines_stay(seed: str) -> None:
    for planted in planted_secrets(seed):
        texts = [planted.text]
        texts.append("\n".join("+" + line for line in planted.text.split("\n")))
        texts.append(planted.text.replace("\n", "\\n"))
        for text in texts:
            clean, found = redact(f"before\n{text}\nafter\n")
            assert found, planted.kind
            assert not _leaks(clean, [planted]), planted.kind
            assert clean.count("\n") == text.count("\n") + 3
            assert redact(clean) == (clean, ()) and redactions_in(clean) == found


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("seed", ["2", "3", "4"])
def test_each_kind_is_taken_out_of_what_people_write(seed: str, sentence: str) -> None:
    for planted in planted_secrets(seed):
        text = sentence.format(planted.text)
        clean, found = redact(text)
        assert found and not _leaks(clean, [planted]), planted.kind
        assert clean.count("\n") == text.count("\n") and redact(clean) == (clean, ())


def test_a_key_that_was_cut_is_taken_out_as_far_as_it_goes() -> None:
    key = PLANTED[1]
    lines = key.text.split("\n")
    for part in (lines[:4], lines[-4:], ["+" + line for line in lines[:4]], ["-" + line for line in lines[-4:]]):
        clean = redact("\n".join(part))[0]
        assert not any(body in clean for body in key.pieces), part


def _leaks(text: str, planted: Iterable[Planted]) -> list[str]:
    lowered = text.lower()
    return [each.kind for each in planted if any(fragment in lowered for fragment in fragments(each))]


@pytest.fixture
def house(tmp_path: Path) -> Repository:
    """A repository with every secret in its code, pages, settings, messages and conversations, and a wiki beside it."""
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    texts = [planted.text for planted in PLANTED]
    everything = "\n".join(texts)
    write(root, {"docs/keys.md": f"# Keys\n\n{everything}\n"})
    for number in range(12):
        said = "\n\n".join(texts[number::12])
        code = f"def step_{number}():\n    '''\n{said}\n    '''\n    return {number}\n"
        write(root, {f"shop/step_{number}.py": code})
        commit_all(root, f"Step {number} (#{number + 1})\n\n{said}", date=f"2025-03-{number + 1:02}T12:00:00Z")
    talk = {"messages": [{"role": "user", "content": everything}, {"role": "assistant", "content": everything}]}
    write(tmp_path, {"shop.wiki/Home.md": f"# Home\n\n{everything}\n", "talks.jsonl": json.dumps(talk) + "\n"})
    write(root, {".env": everything})
    return Repository.open(root).with_wiki(["docs", "../shop.wiki"]).with_conversations(["../talks.jsonl"])


@pytest.mark.long
def test_no_secret_comes_out_anywhere(
    house: Repository,
    tmp_path: Path,
    base_model: BaseModel,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    state = tmp_path / "state"
    everything = "\n".join(planted.text for planted in PLANTED)
    engine = ScriptedEngine(reply="Noon.")
    with Index.open(house, state) as index:
        report = index.refresh()
        settings = AnswerSettings(prompt_tokens=4000)
        assistant = Assistant(lambda: engine, index, Registry(state / "adapters"), settings)
        question = Question(
            f"What is this?\n{everything}",
            history=(Message("user", everything), Message("assistant", everything)),
            selection=Selection("shop/step_1.py", 1, 2, everything),
            open_documents={"shop/step_0.py": everything, "unsaved.py": everything},
        )
        list(assistant.ask(question, Event()))
        [asked] = engine.asked
        assert not _leaks(" ".join(turn.content for turn in asked.messages), PLANTED)
        for planted in PLANTED[::9]:
            for passage in index.search(planted.text, 5).passages:
                assert not _leaks(passage.text, PLANTED)

    recipe = parse_recipe(TINY.format(budget=1_000_000, rate=1e-3), "tiny", "tiny.toml")
    shares = {"edit_share": 0.1, "file_share": 0.2, "completion_share": 0.1}
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=shares)})
    tokenizer = load_tokenizer(base_model)
    dataset = build_dataset(house, tokenizer, recipe, cut_repository(house, recipe), state / "dataset")
    rows: Any = dataset.rows
    assert {row["kind"] for row in rows} >= {"file", "page", "conversation", "change", "edit"}
    assert not _leaks("".join(tokenizer.decode(row["input_ids"]) for row in rows), PLANTED)

    # What a forge says is cleaned before it is kept.
    assert not _leaks(json.dumps(cleaned({"body": everything, "comments": [{"body": everything}]})), PLANTED)
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {"catalog.sqlite", "chroma.sqlite3", "rows.arrow", "redacted.jsonl"} <= {path.name for path in files}
    for path in files:
        assert not _leaks(path.read_bytes().decode("latin-1"), PLANTED), path
    assert not _leaks(caplog.text + "".join(capsys.readouterr()), PLANTED)

    # What was taken out is told, by kind and place.
    places = {(path, line) for path, line, _ in report.redactions}
    written = (house.root / "shop" / "step_3.py").read_text().split("\n")
    for planted in PLANTED[3::12]:
        first = written.index(planted.text.split("\n")[0]) + 1
        assert any(("shop/step_3.py", first + more) in places for more in range(9)), planted.kind
    assert not _leaks(json.dumps(index_json(report)), PLANTED)
    told = [json.loads(line) for line in (dataset.directory / "redacted.jsonl").read_text().splitlines()]
    assert any(found["name"] == "docs/keys.md" and found["secret"] == "AWS access key" for found in told)
    assert sum(dataset.manifest["redactions"].values()) == len(told) > 2 * len(PLANTED)
