"""What `inhouse eval model` measures: later texts, completion, abstention, and the code against an outdated page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.cli.app import app
from inhouse_server.cli.evaluation_text import evaluation_lines
from inhouse_training import BASE, BaseModel, RowScore, ScoredRow, TokenScores, TransformersEngine, load_model
from inhouse_training.cut import cut_repository
from inhouse_training.dataset import build_dataset
from inhouse_training.evaluation import forgetting_row
from inhouse_training.facts import PARAMETERS, PLACE, VALUE, file_facts, holds_span
from inhouse_training.forgetting_texts import FORGETTING_TEXTS
from inhouse_training.measures import Likelihood, Shared, bits_by_byte, paired_difference
from inhouse_training.measures.abstention import abstains, names_to_ask, real_question
from inhouse_training.measures.answered import ask_all, grade_all
from inhouse_training.measures.completion import (
    NEXT_LINE,
    SCOPE,
    added_line_numbers,
    completed,
    completions,
    edit_similarity,
    exact_match,
    file_completions,
)  # fmt: skip
from inhouse_training.measures.conflicts import altered_values, answers_by_code, answers_by_page, find_conflicts
from inhouse_training.measures.formats import FORMAT_CHECKS
from inhouse_training.measures.general import general_likelihoods
from inhouse_training.measures.later_texts import LaterText, later_changes, later_files, later_row
from inhouse_training.measures.model import evaluate_version, score_texts, score_validation, trained_files
from inhouse_training.measures.recall import (
    KNOWN_FILES,
    RECALL_TOKENS,
    exact_prefix,
    known_files,
    measure_recall,
)  # fmt: skip
from inhouse_training.measures.report import write_evaluation_report
from inhouse_training.measures.spans import known_questions, later_questions
from inhouse_training.probes.answers import read_house
from inhouse_training.prompts import IGNORED, NOT_HERE, literal_ids
from inhouse_training.recipe import EvaluationSettings, Recipe
from inhouse_training.registry import AdapterManifest, Registry
from inhouse_training.runs import dataset_of, open_run, start_run
from inhouse_training.snapshot_search import SnapshotSearch

from .adapters import random_adapter
from .history import commit, make_history

SETTINGS = EvaluationSettings(prompt_tokens=320, scored_tokens=16)


def test_bits_per_byte_are_the_same_likelihood_by_another_measure() -> None:
    assert bits_by_byte([RowScore(8 * math.log(2), 2)], [4]) == [RowScore(pytest.approx(8), 4)]
    scores = {"base": (RowScore(6.0, 2), RowScore(9.0, 3)) * 3, "candidate": (RowScore(4.0, 2), RowScore(6.0, 3)) * 3}
    found = Likelihood("later_files", (10,) * 6, {"closed_book": scores}).metrics()
    assert found["closed_book"]["base"] == {"nats_per_token": 3.0, "bits_per_byte": round(0.75 / math.log(2), 4)}
    assert found["closed_book"]["gain"]["over_base"]["nats_per_token"]["mean"] == 1.0
    assert found["closed_book"]["gain"]["over_base"]["bits_per_byte"]["mean"] == round(0.25 / math.log(2), 4)
    one = {label: each[:1] for label, each in scores.items()}
    # The interval of one item would have no width.
    assert Likelihood("later_files", (10,), {"closed_book": one}).metrics()["closed_book"]["gain"] == {}
    assert Likelihood("later_files", (), {"closed_book": {"base": (), "candidate": ()}}).metrics()["items"] == 0


def test_differences_of_grades_are_paired() -> None:
    sure = paired_difference([0, 0.5] * 20, [0.5, 1] * 20)
    assert (sure.mean, sure.low, sure.high) == (0.5, 0.5, 0.5)
    unsure = paired_difference([0, 1] * 20, [1, 0] * 20)
    assert unsure.low < 0 == unsure.mean < unsure.high


def test_only_what_came_later_is_scored_the_same_with_and_without_passages(
    history: Repository, tokenizer: Any, tiny_recipe: Recipe, tiny_base: BaseModel
) -> None:
    cut = cut_repository(history, tiny_recipe)
    changes = later_changes(cut.held_out)
    assert len(changes) == 11 and changes[0].header.endswith(f"{cut.held_out[0].title}\n")
    assert "update_" in changes[0].text and cut.held_out[0].title not in changes[0].text
    search = SnapshotSearch(history, cut.snapshot)
    item = LaterText("a.py", "update invoice handler", "- File: a.py\nContent:\n", "größe = 'ü'\n")
    (closed, size), (opened, again) = (later_row(tokenizer, item, each, SETTINGS) for each in (None, search))
    assert size == again == len(item.text.encode())
    assert len(closed.input_ids) < len(opened.input_ids) <= 320 + 16
    for row in (closed, opened):
        assert tokenizer.decode([label for label in row.labels if label != IGNORED]) == item.text
    assert tokenizer.decode(closed.input_ids).startswith(item.header)

    def no_adapter(version: str) -> Path:
        raise AssertionError(version)

    engine = TransformersEngine(tiny_base, no_adapter)
    names = {"base": BASE, "candidate": BASE}
    found = score_texts(engine, tokenizer, "later_changes", changes[:5], search, names, SETTINGS)
    metrics = found.metrics()
    for mode in ("closed_book", "with_retrieval"):
        # A random model: about the logarithm of the vocabulary.
        assert 9 < metrics[mode]["base"]["nats_per_token"] < 12
        assert metrics[mode]["gain"]["over_base"]["bits_per_byte"] == {"mean": 0, "low": 0, "high": 0}
    search.close()


def test_files_that_were_added_later_are_found_once(tmp_path: Path, tiny_recipe: Recipe) -> None:
    repository = make_history(tmp_path / "shop", commits=12)
    commit(repository.root, "Add a clock", clock_py="NOW = 1\n")
    commit(repository.root, "Wind the clock", clock_py="NOW = 2\nTHEN = 1\n")
    (found,) = later_files(cut_repository(repository, tiny_recipe).held_out)
    assert (found.name, found.text, found.query) == ("clock.py", "NOW = 1", "Add a clock clock.py")


def test_what_is_known_by_heart_is_what_a_greedy_continuation_writes(tiny_base: BaseModel, tokenizer: Any) -> None:
    def no_adapter(version: str) -> Path:
        raise AssertionError(version)

    engine = TransformersEngine(tiny_base, no_adapter, device="cpu", dtype=torch.float32)
    opening = literal_ids(tokenizer, "- File: numbers.txt\nContent:\n")
    model = load_model(tiny_base, "cpu", torch.float32)
    made = model.generate(torch.tensor([opening]), do_sample=False, max_new_tokens=RECALL_TOKENS, pad_token_id=0)
    written = made[0, len(opening) :].tolist()
    other = [*written[:17], written[17] + 1, *written[18:]]
    rows = [ScoredRow((*opening, *ids), (*[IGNORED] * len(opening), *ids)) for ids in (written, other)]
    found = [exact_prefix(row, scores) for row, scores in zip(rows, engine.score_tokens(rows), strict=True)]
    assert found == [RECALL_TOKENS, 17]

    counting = "".join(f"line {number}\n" for number in range(1, 40))
    known = [("numbers.txt", counting), ("short.txt", "line 1\n")]
    later = [LaterText("new.py", "", "- File: new.py\nContent:\n", counting)]
    recall = measure_recall(engine, tokenizer, known, later, {"base": BASE, "candidate": BASE})
    assert recall.prefixes[KNOWN_FILES]["base"] == (0,)  # the other file is too short
    metrics = recall.metrics()
    assert metrics["measures"] == "memory, not quality"
    assert metrics["later_files"]["prefix_tokens"] == {
        "base": 0, "candidate": 0, "difference": {}
    }  # fmt: skip


def test_the_first_mistake_ends_what_is_known() -> None:
    row = ScoredRow((9, 1, 2, 3), (IGNORED, 1, 2, 3))
    scores = {"nats": np.zeros(3, "f4"), "best_nats": np.zeros(3, "f4"), "other_nats": np.zeros(3, "f4")}
    assert exact_prefix(row, TokenScores(best=np.array([1, 7, 3], "i4"), **scores)) == 1
    assert exact_prefix(row, TokenScores(best=np.array([1, 2, 3], "i4"), **scores)) == 3


def test_known_files_are_read_as_the_version_learned_them(tmp_path: Path) -> None:
    repository = make_history(tmp_path / "shop", commits=3)
    snapshot = commit(repository.root, "Wait", conf_py="RETRIES = 30\n")
    commit(repository.root, "Wait longer", conf_py="RETRIES = 45\n", fresh_py="A = 1\n")
    found = known_files(repository, snapshot, ["fresh.py", "conf.py", "conf.py"])
    assert found == [("conf.py", "RETRIES = 30\n")]


def test_a_version_is_asked_for_the_files_of_its_own_run(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, tokenizer: Any, tmp_path: Path
) -> None:
    earlier = make_history(tmp_path / "earlier", commits=14)
    datasets = {}
    for repository in (history, earlier):  # two runs of one state folder
        run = open_run(repository, tmp_path, tiny_recipe, tiny_base)
        start_run(run)
        datasets[repository] = build_dataset(repository, tokenizer, tiny_recipe, run.cut, run.dataset)
    for dataset in datasets.values():
        version = AdapterManifest("tiny", "", dataset.manifest["snapshot"], dataset=dataset.manifest)
        found = dataset_of(tmp_path, version)
        assert found is not None and found.directory == dataset.directory
        assert "README.md" in trained_files(found)

    (datasets[earlier].directory / "rows.arrow").write_bytes(b"damaged")
    assert dataset_of(tmp_path, AdapterManifest("tiny", "", "", dataset=datasets[earlier].manifest)) is None
    assert dataset_of(tmp_path, AdapterManifest("tiny", "", "")) is None


def test_general_text_is_scored_in_blocks_that_hold_all_of_it(tiny_base: BaseModel, tokenizer: Any) -> None:
    def no_adapter(version: str) -> Path:
        raise AssertionError(version)

    engine = TransformersEngine(tiny_base, no_adapter, dtype=torch.float32)
    english, python = general_likelihoods(engine, tokenizer, {"base": BASE, "candidate": BASE})
    assert (english.kind, python.kind) == ("general_english", "general_python")
    rows = [forgetting_row(tokenizer, text) for text in FORGETTING_TEXTS["English"]]
    whole, blocks = engine.score(rows), english.scores["closed_book"]["base"]
    assert sum(each.tokens for each in blocks) == sum(each.tokens for each in whole)
    assert sum(each.nats for each in blocks) == pytest.approx(sum(each.nats for each in whole), rel=1e-4)
    first = (len(tokenizer.decode([row.input_ids[0]]).encode()) for row in rows)
    assert sum(english.sizes) + sum(first) == sum(len(text.encode()) for text in FORGETTING_TEXTS["English"])


def test_conversations_that_were_kept_for_validation_are_scored(
    history: Repository, tiny_base: BaseModel, tokenizer: Any, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    def no_adapter(version: str) -> Path:
        raise AssertionError(version)

    data = tiny_recipe.data.model_copy(update={"validation_conversations": 0.5})
    recipe = tiny_recipe.model_copy(update={"data": data})
    dataset = build_dataset(history, tokenizer, recipe, cut_repository(history, recipe), tmp_path / "dataset")
    assert dataset.validation is not None
    engine = TransformersEngine(tiny_base, no_adapter, dtype=torch.float32)
    found = score_validation(engine, tokenizer, dataset.validation, {"base": BASE, "candidate": BASE})
    scores = found.scores["closed_book"]["base"]
    learned = [sum(label != IGNORED for label in row["labels"]) for row in dataset.validation]
    assert found.kind == "validation_conversations" and [score.tokens for score in scores] == learned
    assert found.metrics()["items"] == len(dataset.validation) > 1


PATCH = "@@ -1,3 +1,4 @@\n one\n-two\n+deux\n+trois\n four\n@@ -9 +10,2 @@ def f():\n nine\n+dix"


def test_added_lines_have_their_numbers_in_the_new_file() -> None:
    assert added_line_numbers(PATCH) == [2, 3, 11]


def test_the_next_line_and_the_rest_of_a_new_definition_are_asked_for() -> None:
    old, fresh = (
        "def old():\n    return 1\n",
        "def fresh(path):\n    size = measure(path)\n    check(size)\n    return size\n",
    )
    text = f"import os\n\n\n{old}\n\n{fresh}"
    line, scope = file_completions("Measure", "a.py", text, [8, 9, 10, 11])
    assert (line.kind, line.wanted) == (NEXT_LINE, "    check(size)")
    assert line.before.text.endswith("size = measure(path)") and "check(size)" not in line.before.text
    assert (scope.kind, scope.wanted) == (SCOPE, "    size = measure(path)\n    check(size)\n    return size")
    assert scope.before.text.endswith("def fresh(path):")
    # A definition that was there before is no new scope.
    assert [each.kind for each in file_completions("Measure", "a.py", text, [9, 10])] == [NEXT_LINE]


def test_completions_come_from_later_changes(history: Repository, tiny_recipe: Recipe) -> None:
    cut = cut_repository(history, tiny_recipe)
    found = completions(history, cut.held_out, 4)
    assert [each.kind for each in found] == [NEXT_LINE] * 4 + [SCOPE] * 4
    noun = cut.held_out[0].title.rpartition(" ")[2]
    assert f"update_{noun}" in found[4].question and "return HouseReply.accepted" in found[4].wanted


@pytest.mark.parametrize(
    ("kind", "answer", "code"),
    [
        (NEXT_LINE, "Sure:\n```python\n    check(size)\nreturn\n```\nDone.", "    check(size)"),
        (NEXT_LINE, "    size = measure(path)\n    check(size)", "    check(size)"),
        (SCOPE, "```\na()\n\nb()", "a()\nb()"),
        (NEXT_LINE, "", ""),
    ],
)
def test_the_code_of_an_answer(kind: str, answer: str, code: str) -> None:
    assert completed(kind, answer, "def fresh(path):\n    size = measure(path)") == code


def test_exact_match_and_edit_similarity() -> None:
    assert exact_match("  a = b\n", "a = b") == 1 and exact_match("a = b", "a = c") == 0
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert (edit_similarity("a", ""), edit_similarity("", ""), edit_similarity(" a", "a")) == (0, 1, 1)


def test_it_is_said_in_the_words_of_the_product_that_a_name_is_not_here(
    history: Repository, tiny_recipe: Recipe
) -> None:
    assert abstains(NOT_HERE) == 1 == abstains("That is not in\nthis repository.")
    assert abstains("It is defined in this repository.") == 0
    cut = cut_repository(history, tiny_recipe)
    names = names_to_ask(history, cut, 3, seed=1)
    assert len(names) == 3
    for each in names:
        assert each.name not in history.git("grep", "-h", "", cut.snapshot).decode()
        assert f"`{each.real}`" in real_question(each) and each.name not in real_question(each)


def test_a_value_that_a_past_change_altered_makes_a_conflict(tmp_path: Path, tiny_recipe: Recipe) -> None:
    repository = make_history(tmp_path / "shop", commits=3)
    commit(repository.root, "Wait", conf_py='RETRIES = 30\nREGION = "north"\nGONE = 11\n')
    commit(repository.root, "Wait longer", conf_py='RETRIES = 45\nREGION = "south"\nGONE = 12\n')
    commit(repository.root, "Turn back", conf_py='RETRIES = 45\nREGION = "south"\nGONE = 13  # odd\n')
    for number in range(8):
        commit(repository.root, f"Change {number}", notes_py=f"number = {number}\n")
    cut = cut_repository(repository, tiny_recipe)
    found = {each.name: each for each in find_conflicts(repository, cut.snapshot, cut.training, 9)}
    assert {name: (each.old, each.new) for name, each in found.items()} == {
        "GONE": ("12", "13"), "RETRIES": ("30", "45"), "REGION": ("north", "south"),
    }  # fmt: skip
    page, code = sorted(found["RETRIES"].passages, key=lambda passage: passage.source != "wiki")
    assert "`RETRIES` in `conf.py` is `30`" in page.text and page.newer_code == "conf.py" and page.updated
    assert (code.source, code.start_line, code.text) == ("code", 1, "RETRIES = 45")
    graded = [(answers_by_code(found["RETRIES"], said), answers_by_page(found["RETRIES"], said)) for said in (
        "It is 45.", "`RETRIES` is `30`", "It was 30 and is 45.", "450 or 1.45",
    )]  # fmt: skip
    assert graded == [(1, 0), (0, 1), (0, 0), (0, 0)]


def test_values_that_cannot_be_told_apart_make_none() -> None:
    assert list(altered_values('@@ -1,2 +1,2 @@\n-LIMIT = 1\n+LIMIT = 2\n-name = "a b"\n+name = "a b c"')) == []
    assert list(altered_values("@@ -1 +1 @@\n-  limit: 10,\n+  limit: 20,")) == [("limit", "10", "20")]


def test_every_adapter_answers_the_same_questions_with_and_without_passages(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe
) -> None:
    cut = cut_repository(history, tiny_recipe)
    search = SnapshotSearch(history, cut.snapshot)

    def no_adapter(version: str) -> Path:
        raise AssertionError(version)

    answered = ask_all(
        TransformersEngine(tiny_base, no_adapter), history, cut, search, {"base": BASE, "candidate": BASE},
        tiny_recipe, 1, lambda stage, done, total: None,
    )  # fmt: skip
    search.close()
    metrics = {each.name: each.metrics() for each in grade_all(answered)}
    assert {"next_line_exact_match", "scope_edit_similarity", "abstention_on_made_up_names"} <= set(metrics)
    assert {"known_span_quoted", "later_place_quoted", "identifiers_that_exist", "answers_that_loop"} <= set(metrics)
    for name, each in metrics.items():
        assert set(each) - {"with_retrieval"} == {"better", "closed_book"}
        for mode in ("closed_book", "with_retrieval")[: 1 + (name != "format_followed")]:
            assert each[mode]["base"] == each[mode]["candidate"]
    # A random model's words are no completion and no admission.
    assert metrics["next_line_exact_match"]["closed_book"] == {
        "base": 0, "candidate": 0, "items": 1, "difference": {}
    }  # fmt: skip
    loops = metrics["answers_that_loop"]
    assert loops["closed_book"]["items"] == loops["with_retrieval"]["items"] + 1
    assert metrics["next_line_edit_similarity"]["closed_book"]["base"] < 0.5
    # It ends nothing within eight tokens, and what general requests are answered with is no repository's.
    assert metrics["answers_without_end"]["better"] == "lower"
    assert "with_retrieval" not in metrics["format_followed"]
    # What later changes added is in the prompt when passages are shown, and only then.
    assert metrics["later_place_quoted"]["closed_book"]["span_in_prompt"] == 0
    assert metrics["later_place_quoted"]["with_retrieval"]["span_in_prompt"] == 1
    assert grade_all([]) == []


CODE = """TIMEOUT = 30
retries = 7
GREETING = 'hello'
GREETING = 'bye'


@cached
def read_invoice(path, *, limit=10):
    return path


def read():
    pass


def send_invoice(path):
    limit = 44


class InvoiceError(ShopError, ValueError):
    pass
"""


def test_questions_are_read_off_the_code() -> None:
    found = [(each.kind, each.name, each.line, each.span) for each in file_facts("shop/a.py", CODE)]
    assert found == [
        (VALUE, "TIMEOUT", 1, "30"),  # 7 says too little, and GREETING has two values
        (PLACE, "read_invoice", 8, "shop/a.py"),  # not its decorator
        (PARAMETERS, "read_invoice", 8, "path, *, limit=10"),
        (PLACE, "send_invoice", 16, "shop/a.py"),  # one parameter is soon guessed
        (PLACE, "InvoiceError", 20, "shop/a.py"),  # its bases are no parameters
    ]
    assert list(file_facts("README.md", "TIMEOUT = 30\n")) == []


@pytest.mark.parametrize("value", ["hunter2-Kx81pQz77", "[REDACTED password or token]"])
def test_neither_a_secret_nor_its_mark_is_asked_for(value: str) -> None:
    text = f'''GREETING = "hello"
API_TOKEN = "{value}"
def open_shop(user, password="{value}"):
    pass
'''
    found = [(each.kind, each.name) for each in file_facts("shop/a.py", text)]
    assert found == [(VALUE, "GREETING"), (PLACE, "open_shop")]


@pytest.mark.parametrize(
    ("line", "parameters"),
    [
        ("const sendParcel = async (from: Depot, to: Depot): Promise<void> => {", "from: Depot, to: Depot"),
        ("function sendParcel<From, To>(from: From, to: To) {", "from: From, to: To"),
        ("const sendParcel = ({ from, to }: Parcel) => {", "{ from, to }: Parcel"),
        ("const sendParcel = (from, to), other = () => {", None),
        ("const sendParcel = curry(from, to, () => {", None),
    ],
)
def test_parameters_of_arrow_functions_and_generic_ones_are_read(line: str, parameters: str | None) -> None:
    text = f"{line}\n  await ship(from);\n  return to;\n}}\n"
    found = [each.span for each in file_facts("parcel.ts", text) if each.kind == PARAMETERS]
    assert found == ([parameters] if parameters else [])


@pytest.mark.parametrize(
    ("kind", "span", "answer", "right"),
    [
        (VALUE, "30", "It is 30.", True),
        (VALUE, "30", "It is 300.", False),
        (PLACE, "shop/a.py", "`./shop/a.py:7` does.", True),
        (PLACE, "a.py", "It is in shop/a.py.", False),
        (PLACE, "shop/a.py", "shop/a.pyi", False),
        (PARAMETERS, "path, *, limit=10", "def read_invoice(path,\n    *, limit = 10)", True),
        (PARAMETERS, "path, *, limit=10", "(path, limit=10)", False),
        (PARAMETERS, "path, *, limit=10", "It is path, *, limit=10.", True),
        (PARAMETERS, "path, *, limit=10", "(path, *, limit=10, order=None)", False),
        (PARAMETERS, "path, *, limit=10", "(self, path, *, limit=10)", False),
        (PARAMETERS, "a, b", "def f(data, bytes)", False),
        (VALUE, "30", "It is -30, or 30,000.", False),
    ],
)
def test_an_answer_is_right_when_it_holds_the_span(kind: str, span: str, answer: str, right: bool) -> None:
    assert holds_span(kind, span, answer) is right


def test_later_code_is_asked_about_with_the_place_between_two_others(tmp_path: Path, tiny_recipe: Recipe) -> None:
    repository = make_history(tmp_path / "shop", commits=3)
    for number in range(8):
        noun = f"crate{number}"
        commit(repository.root, f"Pack {noun}", **{f"pack{number}_py": f"SIZE_{noun} = {number + 40}\n\n" * 9 + (
            f"def pack_the_{noun}(first, second):\n    return first\n"
        )})  # fmt: skip
    cut = cut_repository(repository, tiny_recipe)
    house = read_house(repository, cut.snapshot, ())
    found = later_questions(repository, cut.snapshot, cut.held_out, house, 3)
    assert [each.kind for each in found] == [PLACE] * 3 + [PARAMETERS] * 3  # each value is given nine times
    for each in found:
        assert len(each.passages) == 3
        assert sum(holds_span(each.kind, each.span, f"{p.path}\n{p.text}") for p in each.passages) >= 1
        assert len({p.path for p in each.passages}) == 3, "else the path is above each of them"
    places = [[p.path for p in each.passages].index(each.span) for each in found[:3]]
    assert len(set(places)) > 1
    assert later_questions(repository, repository.head(), cut.held_out, house, 3)[3:] == [], "it is said there already"
    known = known_questions(repository, cut.snapshot, house, 3)
    assert {each.span for each in known if each.kind == PLACE} <= {path for path, _ in house.definitions}
    assert not {each.question for each in known} & {each.question for each in found}


@pytest.mark.parametrize(
    ("request_part", "good", "bad"),
    [
        ("one word", "Paris.", "It is Paris."),
        ("JSON object", '{"name": "Ada", "age": 36}', '{"name": "Ada"}'),
        ("JSON list", "[1, 2.5, 3]", "[1, 2]"),
        ("three fruits", "- fig\n- pear\n- plum", "fig\npear\nplum"),
        ("fenced code block", "```python\ndef add(a, b):\n    return a + b\n```", "def add(a, b):\n    return a + b"),
        ("capital letters", "THE SEA IS WIDE.", "The sea is wide."),
        ("ten words", "Bread is baked.", " ".join(["bread"] * 11)),
        ("ten words", "Bread.", ""),
        ("DONE", "A tree is tall. DONE", "A tree is tall. Done with it"),
        ("Markdown table", "| Name | Age |\n|---|---|\n| A | 1 |\n| B | 2 |", "Name, Age"),
        ("numbered list", "1. ox\n2. cow\n3. hen", "ox, cow, hen"),
        ("YYYY-MM-DD", "2030-01-01", "1 January 2030"),
    ],
)
def test_whether_an_answer_has_the_form_that_was_asked_for(request_part: str, good: str, bad: str) -> None:
    (check,) = [each for each in FORMAT_CHECKS if request_part in each.request]
    assert check.follows(good) and not check.follows(bad)


def test_identifiers_are_counted_over_all_answers() -> None:
    counts = {"base": ((0, 0), (1, 2)) * 3, "candidate": ((3, 3), (1, 1)) * 3}
    metrics = Shared("identifiers_that_exist", {"closed_book": counts}, True).metrics()
    assert (metrics["closed_book"]["base"], metrics["closed_book"]["candidate"]) == (0.5, 1.0)
    assert metrics["closed_book"]["difference"]["to_base"]["mean"] == 0.5


@pytest.mark.parametrize("spelling", [["eval", "model"], ["eval"]])
def test_the_model_is_evaluated_by_either_name(spelling: list[str], base_model: BaseModel, history: Repository) -> None:
    done = CliRunner().invoke(app, [*spelling, "--repo", str(history.root), "--adapter", "v7"])
    assert isinstance(done.exception, InhouseError)
    assert "no adapter version" in str(done.exception)


@pytest.mark.long
def test_a_version_is_judged_beside_the_current_one_and_the_base(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "adapters")
    snapshot = cut_repository(history, tiny_recipe).snapshot
    manifest = AdapterManifest("tiny", tiny_base.sha256, snapshot, dataset={"rows_sha256": "of a run that is gone"})
    old, new = (registry.add(random_adapter(tiny_base, tmp_path / str(r), r=r), manifest).version for r in (4, 8))
    registry.promote(old)
    result = evaluate_version(history, tmp_path, tiny_recipe, tiny_base, new, generate=5)
    metrics = result.metrics()
    assert result.remarks == (
        f"The data that {new} was trained on are gone: which files it knows by heart was not measured.",
    )
    assert metrics["memory"]["known_files"]["items"] == 0
    for mode in ("closed_book", "with_retrieval"):
        assert set(metrics["likelihood"]["later_edits"][mode]) == {"base", "current", "candidate", "gain"}
        assert set(metrics["answers"]["next_line_exact_match"][mode]["difference"]) == {"to_base", "to_current"}
    edits = metrics["likelihood"]["later_edits"]
    assert edits["closed_book"]["candidate"]["nats_per_token"] == metrics["held_out"]["closed_book"]["candidate"]
    assert sum(each["changes"] for each in metrics["decay"]["bins"]) == edits["items"] == 11
    lines = list(evaluation_lines(metrics))
    assert any(line.startswith("later edits, 11, with passages: base ") for line in lines)
    assert lines[-1].endswith(" s of asking")
    assert write_evaluation_report(result).parent.name == f"evaluation-{new}"
