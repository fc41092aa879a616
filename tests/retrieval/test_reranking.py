"""The reranker: a small cross-encoder with random weights, its deadline, and what an evaluation says about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inhouse_retrieval import Encoder, Index, InhouseError, Passage, Repository, Reranker, RerankerChoice
from inhouse_retrieval.benchmark import RerankerGain, Score
from inhouse_retrieval.reranking import behind_newer_code

QUESTION = "who books a courier?"


@pytest.fixture
def passages() -> list[Passage]:
    texts = [
        "def book(): pass",
        "Couriers come at noon.",
        "SELECT 1",
        "a basket",
        "vouchers",
        "tax",
        "refunds",
        "holiday",
    ]
    return [Passage(f"{at}.txt", 1, 1, text, "code", "", "", 1 / (at + 1), ()) for at, text in enumerate(texts)]


def loaded(folder: Path, deadline_ms: int = 60_000, seconds_a_look: float = 0.0) -> Reranker:
    """With a clock that moves only when it is looked at."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds_a_look
        return now

    reranker = Reranker(RerankerChoice(str(folder), max_tokens=128, deadline_ms=deadline_ms), clock)
    reranker.load()
    return reranker


def test_passages_come_in_the_order_of_the_model_s_scores(cross_encoder: Path, passages: list[Passage]) -> None:
    from sentence_transformers import CrossEncoder

    exact = CrossEncoder(str(cross_encoder), device="cpu", max_length=128)
    scores = exact.predict([(QUESTION, f"{each.path}\n{each.text}") for each in passages])
    anew = loaded(cross_encoder).rerank(QUESTION, passages)
    assert [each.path for each in anew.passages] == [passages[at].path for at in scores.argsort()[::-1]]
    assert anew.passages != tuple(passages)
    assert (anew.scored, anew.looked_at) == (8, 8)


def test_what_is_not_scored_in_time_keeps_its_place(cross_encoder: Path, passages: list[Passage]) -> None:
    half = loaded(cross_encoder, deadline_ms=2500, seconds_a_look=1.0).rerank(QUESTION, passages)
    assert (half.scored, half.looked_at) == (4, 8)
    assert half.passages[4:] == tuple(passages[4:]) and set(half.passages[:4]) == set(passages[:4])
    none = loaded(cross_encoder, deadline_ms=500, seconds_a_look=1.0).rerank(QUESTION, passages)
    assert (none.scored, none.passages) == (0, tuple(passages))


def test_a_search_says_how_far_the_reranker_came(
    cross_encoder: Path, repository: Repository, state: Path, encoder: Encoder
) -> None:
    with Index.open(repository, state, encoder, reranker=loaded(cross_encoder)) as index:
        index.refresh(embed=False)
        found, without = index.search("courier basket", 3), index.search("courier basket", 3, rerank=False)
        assert (found.reranked, found.to_rerank) == (2, 2)
        assert {each.path for each in found.passages} == {each.path for each in without.passages}
        assert (without.reranked, without.to_rerank) == (0, 0)
        assert len(index.search("courier basket", 1).passages) == 1
    with Index.open(repository, state, encoder, reranker=Reranker(RerankerChoice(str(cross_encoder)))) as index:
        early = index.search("courier basket", 3)
        assert (early.reranked, early.to_rerank) == (0, 2), "it is still loading, and nobody waits for that"
        assert early.passages == without.passages
        index.load_reranker()
        assert index.search("courier basket", 3).passages == found.passages


def test_a_page_stays_behind_the_newer_code_that_it_describes(passages: list[Passage]) -> None:
    page = replace(passages[0], source="wiki", newer_code="3.txt")
    ordered = behind_newer_code([page, *passages[1:]])
    assert [each.path for each in ordered[:4]] == ["1.txt", "2.txt", "3.txt", "0.txt"]
    assert behind_newer_code(passages) == tuple(passages)


def test_what_cannot_be_had_is_said(cross_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InhouseError, match="no reranker 'nothing' on this machine"):
        Reranker(RerankerChoice("nothing"))
    with pytest.raises(InhouseError, match="no reranker in"):
        Reranker(RerankerChoice(str(tmp_path)))
    with pytest.raises(InhouseError, match="trust_remote_code names"):
        Reranker(RerankerChoice(str(cross_encoder), trust_remote_code="another"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InhouseError, match="cannot be loaded"):
        Reranker(RerankerChoice(str(tmp_path))).load()


@pytest.mark.parametrize(
    ("mrr", "recall", "said"),
    [
        ((0.01, 0.05), (-0.01, 0.02), "wins"),
        ((0.01, 0.05), (-0.03, -0.01), "loses"),
        ((-0.02, 0.05), (-0.01, 0.02), "no difference"),
    ],
)
def test_the_verdict(mrr: tuple[float, float], recall: tuple[float, float], said: str) -> None:
    gains = {name: Score(sum(ends) / 2, *ends) for name, ends in (("MRR", mrr), ("R@10", recall))}
    assert said in RerankerGain(gains, 1.0).verdict
