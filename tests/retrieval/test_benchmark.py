"""The retrieval benchmark on a small repository whose right answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inhouse_retrieval import Encoder, InhouseError, Repository
from inhouse_retrieval.benchmark import (
    DEFAULT_RUNG,
    LADDER,
    RERANKED,
    BenchmarkQuery,
    bootstrap,
    measures,
    run_benchmark,
    select_queries,
)
from inhouse_retrieval.benchmark_report import write_benchmark_report
from tests.retrieval.test_reranking import loaded
from tests.retrieval.trees import commit_all, git, write

TOPICS = ("voucher", "courier", "invoice", "refund", "basket", "ledger", "stamp", "parcel", "holiday", "greeting")


@pytest.fixture
def busy(root: Path) -> Repository:
    """Ten files, and after a tag one pull request that changes each of them."""
    write(root, {f"src/{topic}.py": f"def update_{topic}(x):\n    return x\n" for topic in TOPICS})
    commit_all(root, "Handle everything (#1)", date="2025-05-01T12:00:00Z")
    git(root, "tag", "before")
    for number, topic in enumerate(TOPICS, start=2):
        write(
            root,
            {f"src/{topic}.py": f"def update_{topic}(x):\n    return x + {number}\n", f"src/new_{topic}.py": "x = 1\n"},
        )
        commit_all(root, f"Count the {topic} twice (#{number})", date=f"2025-07-{number:02}T12:00:00Z")
    write(root, {"src/stamp.py": "x = 2\n"})
    commit_all(root, "Bump left-pad from 1.0 to 1.1 (#90)", date="2025-08-01T12:00:00Z")
    write(root, {"src/late.py": "x = 2\n"})
    commit_all(root, "Add a late file (#91)", date="2025-08-01T12:00:00Z")
    write(root, {"src/stamp.py": "x = 3\n"})
    commit_all(root, "Fix a typo", date="2025-08-01T12:00:00Z")
    return Repository.open(root)


def test_queries_are_later_pull_requests_and_what_they_changed(busy: Repository) -> None:
    for at in ("before", "2025-06-01"):
        chosen = select_queries(busy, at)
        assert chosen.snapshot == busy.commit_id("before")
        assert [query.relevant for query in chosen.queries] == [(f"src/{topic}.py",) for topic in reversed(TOPICS)]
        assert chosen.queries[0].title == "Count the greeting twice"
        assert chosen.left_out == {
            "no pull request": 1,
            "dependency bump, release or revert": 1,
            "changes no file that existed and is indexed": 1,
        }
    with pytest.raises(InhouseError, match="Only 0 usable"):
        select_queries(busy, "HEAD")
    with pytest.raises(InhouseError, match="no commit before"):
        select_queries(busy, "1999-01-01")


def test_the_product_is_measured_on_the_past_alone(
    busy: Repository, tmp_path: Path, encoder: Encoder, cross_encoder: Path
) -> None:
    chosen = select_queries(busy, "before")
    measured = run_benchmark(busy, tmp_path / "benchmark", encoder, chosen)
    assert measured.files == 13 and measured.queries == 10
    assert not list((tmp_path / "benchmark" / "clone").rglob("new_*.py")), "nothing of later days"
    assert list(measured.scores) == list(LADDER)
    assert measured.scores[DEFAULT_RUNG]["R@1"].mean == 1.0
    assert measured.gains["R@10"].low >= 0

    page = write_benchmark_report(measured, "shop", tmp_path)
    assert "data:image/svg+xml;base64," in page.read_text()
    assert "| + history |" in (tmp_path / "retrieval.md").read_text()
    assert measured.reranker is None
    reranker = loaded(cross_encoder)
    ladder = {"all": LADDER[DEFAULT_RUNG]}
    again = run_benchmark(busy, tmp_path / "benchmark", encoder, chosen, ladder=ladder, reranker=reranker)
    assert again.scores["all"]["MRR"] == measured.scores[DEFAULT_RUNG]["MRR"]
    assert again.reranker is not None and again.reranker.scored == 1.0
    difference = again.scores[RERANKED]["MRR"].mean - again.scores["all"]["MRR"].mean
    assert again.reranker.gains["MRR"].mean == pytest.approx(difference, abs=1e-3) and difference < 0, "it is random"
    assert "The reranker loses: leave it off; R@10 " in write_benchmark_report(again, "shop", tmp_path).read_text()


def test_measures_are_what_they_are_called() -> None:
    queries = [BenchmarkQuery("c", "t", "", ("a", "b")), BenchmarkQuery("c", "t", "", ("z",))]
    values = measures([["x", "a", "y", "b"], []], queries)
    assert values["R@1"].tolist() == [0.0, 0.0]
    assert values["R@5"].tolist() == [1.0, 0.0] == values["hit@10"].tolist() == values["all@10"].tolist()
    assert values["MRR"].tolist() == [0.5, 0.0]
    assert values["nDCG@10"][0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)), abs=1e-6)


def test_intervals_hold_the_mean_and_narrow_with_more_queries() -> None:
    few, many = (np.random.default_rng(1).random(size) for size in (20, 2000))
    for values in (few, many):
        score = bootstrap(values)
        assert score.low < score.mean < score.high
    assert bootstrap(many).high - bootstrap(many).low < bootstrap(few).high - bootstrap(few).low
    assert bootstrap(np.ones(5)).low == 1.0
