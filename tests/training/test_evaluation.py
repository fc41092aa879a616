"""Evaluation on a real engine: what is asked, what is scored, and that only the past is retrieved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from inhouse_retrieval import Repository, index_terms
from inhouse_training import BASE, BaseModel, ScoredRow, TransformersEngine
from inhouse_training.cut import HeldOutChange, cut_repository
from inhouse_training.dataset import build_dataset
from inhouse_training.evaluation import change_row, evaluate, score_rows
from inhouse_training.prompts import IGNORED
from inhouse_training.recipe import EvaluationSettings, Recipe
from inhouse_training.snapshot_search import SnapshotSearch

from .history import git

SETTINGS = EvaluationSettings(prompt_tokens=320, scored_tokens=16)


def no_adapter(version: str) -> Path:
    raise AssertionError(version)


@pytest.fixture(scope="module")
def engine(tiny_base: BaseModel) -> TransformersEngine:
    return TransformersEngine(tiny_base, no_adapter)


@pytest.fixture
def search(history: Repository) -> Iterator[SnapshotSearch]:
    search = SnapshotSearch(history, git(history.root, "rev-parse", "HEAD~11"))
    yield search
    search.close()


def test_words_split_identifiers() -> None:
    terms = index_terms("parseHTTPResponse_for(user_id2)").split()
    assert [term for term in terms if term not in ("parsehttpresponsefor", "userid2")] == [
        "parse", "http", "response", "for", "user", "id", "2"
    ]  # fmt: skip


def test_the_search_knows_the_snapshot_and_nothing_later(history: Repository, search: SnapshotSearch) -> None:
    titles = git(history.root, "log", "--format=%s", "HEAD~11..HEAD").splitlines()
    for title in titles:
        noun = title.rsplit(" ", 1)[-1]
        passages = search(f"update {noun} handler", 8)
        assert passages
        assert not any(f"update_{noun}(" in passage.text for passage in passages)
        for passage in passages:
            whole = history.git("show", f"HEAD~11:{passage.path}").decode()
            assert "\n".join(whole.split("\n")[passage.start_line - 1 : passage.end_line]) == passage.text
    assert search("?!", 8) == []


def test_the_search_knows_no_page_of_a_pull_request(history: Repository, search: SnapshotSearch) -> None:
    """The index may have pages of later pull requests on disk; what evaluation retrieves from is a commit's files."""
    pages = history.root / ".inhouse" / "pull-requests"
    pages.mkdir(parents=True)
    (pages.parent / ".gitignore").write_text("*\n")
    (pages / "9.md").write_text("# Pull request #9: xylophone\n")
    with closing(SnapshotSearch(history, git(history.root, "rev-parse", "HEAD"))) as newest:
        for found in (search("xylophone update handler", 50), newest("xylophone update handler", 50)):
            assert found and {passage.source for passage in found} == {"code"}
            assert not any("xylophone" in passage.text for passage in found)


def test_a_row_asks_as_the_product_does_and_scores_only_what_was_added(
    engine: TransformersEngine, tokenizer: Any, search: SnapshotSearch
) -> None:
    added = "async def one():\n    go()"
    change = HeldOutChange("c" * 40, "Let clerks update a parcel", "handlers/area1.py", added)
    closed = change_row(engine, tokenizer, change, None, SETTINGS)
    opened = change_row(engine, tokenizer, change, search, SETTINGS)
    for row in (closed, opened):
        scored = [label for label in row.labels if label != -100]
        assert tokenizer.decode(scored) == change.added
        assert tuple(scored) == row.input_ids[-len(scored) :]
    question = tokenizer.decode(opened.input_ids)
    assert "Let clerks update a parcel" in question
    assert "handlers/area1.py:" in question
    assert len(closed.input_ids) < len(opened.input_ids) <= SETTINGS.prompt_tokens + SETTINGS.scored_tokens


def test_long_additions_are_cut_at_the_cap(engine: TransformersEngine, tokenizer: Any) -> None:
    change = HeldOutChange("c" * 40, "Grow", "a.py", "x = 1\n" * 50_000)
    row = change_row(engine, tokenizer, change, None, SETTINGS)
    assert sum(label != -100 for label in row.labels) == 16
    assert row.labels[-1] != -100


def test_every_adapter_is_scored_on_the_same_rows(
    engine: TransformersEngine, tokenizer: Any, search: SnapshotSearch, history: Repository,
    tiny_recipe: Recipe, tmp_path: Path,
) -> None:  # fmt: skip
    dataset = build_dataset(history, tokenizer, tiny_recipe, cut_repository(history, tiny_recipe), tmp_path / "d")
    seen: list[tuple[int, int | None]] = []
    result = evaluate(
        engine, tokenizer, dataset.held_out, search, {"base": BASE, "candidate": BASE}, SETTINGS,
        lambda stage, done, total: seen.append((done, total)),
    )  # fmt: skip
    assert len(result.changes) == 11
    assert seen[-1][0] == seen[-1][1]
    for mode in ("closed_book", "with_retrieval"):
        gain = result.gain(mode, "candidate", "base")
        assert (gain.mean, gain.low, gain.high) == (0, 0, 0)
        # A random model knows nothing: every token costs about the logarithm of the vocabulary.
        assert 9 < result.loss(mode, "base") < 12
    assert set(result.forgetting["base"]) == {"English", "Python"}
    metrics = result.metrics()
    assert metrics["held_out"]["changes"] == 11
    assert metrics["gain"]["over_base"] == {"mean": 0, "low": 0, "high": 0}


@pytest.mark.parametrize("window", [None, 8])
def test_rows_are_scored_as_if_alone_and_in_the_order_given(tokenizer: Any, tmp_path: Path, window: int | None) -> None:
    """Batches are padded on the right without a mask, which no attention that looks back alone can see."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MistralConfig(vocab_size=512, num_key_value_heads=1, sliding_window=window, **sizes)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = TransformersEngine(
        BaseModel("tiny", tmp_path, "0" * 64, ""), no_adapter, device="cpu", dtype=torch.float32
    )
    rows = [ScoredRow(ids, (IGNORED, *ids[1:])) for ids in (tuple(range(3, length)) for length in (40, 5, 90, 20, 4))]
    done: list[int] = []
    together = score_rows(engine, rows, BASE, done.append)
    assert sum(done) == 5
    for row, score in zip(rows, together, strict=True):
        (alone,) = engine.score([row])
        assert (score.tokens, score.nats) == (len(row.input_ids) - 1, pytest.approx(alone.nats, rel=1e-5))


def test_a_title_of_many_tokens_is_shortened_until_it_fits(engine: TransformersEngine, tokenizer: Any) -> None:
    for title, path in (("支払いの再試行を請求書の処理に追加する" * 9, "a.py"), ("x", "深い/" * 300 + "ファイル.py")):
        change = HeldOutChange("c" * 40, title, path, "total = 1\n")
        row = change_row(engine, tokenizer, change, None, EvaluationSettings(prompt_tokens=320, scored_tokens=8))
        scored = [label for label in row.labels if label != IGNORED]
        assert tokenizer.decode(scored).startswith("total")
        assert len(row.input_ids) - len(scored) <= 320
