"""The parts of the search that need no index."""

from __future__ import annotations

from inhouse_retrieval.search import RRF_K, reciprocal_rank_fusion
from inhouse_retrieval.terms import match_expression, split_identifiers


def test_fusion_prefers_what_both_legs_found() -> None:
    fused = reciprocal_rank_fusion({"dense": [1, 2, 3], "lexical": [4, 2]})
    assert [item for item, _, _ in fused] == [2, 1, 4, 3]
    assert fused[0][2] == ("dense", "lexical")
    assert fused[0][1] == 2 / (RRF_K + 2)
    weighted = reciprocal_rank_fusion({"dense": [1], "lexical": [4]}, {"dense": 1.0, "lexical": 1.5})
    assert [item for item, _, _ in weighted] == [4, 1]


def test_identifiers_are_split_and_kept() -> None:
    assert split_identifiers("getHTTPUserName2(order_id)") == [
        *("gethttpusername2", "get", "http", "user", "name", "2"),
        *("orderid", "order", "id"),
    ]
    assert split_identifiers("größe Ähre 日本") == ["größe", "ähre", "日本"]


def test_questions_become_expressions() -> None:
    assert match_expression("How is the userName checked?") == '"username" OR "user" OR "name" OR "checked"'
    assert match_expression("is it") == '"is" OR "it"'
    assert match_expression('"; DROP * NEAR( -') == '"drop" OR "near"'
    assert match_expression(" ?! ") is None
