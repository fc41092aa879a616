"""From past pull requests to the table, with a model of two random layers, and with the real one from the command."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from inhouse_retrieval import Repository
from inhouse_server.review.house_score import HOUSE_SCORE
from inhouse_server.review.line_measurement import gather, house_names, report_lines
from inhouse_server.review.line_scores import RANDOM, SCORES
from inhouse_server.review.wanting import judged_changes
from inhouse_training import AdapterManifest, BaseModel, Registry, TransformersEngine, load_tokenizer
from inhouse_training.snapshot_search import SnapshotSearch
from tests.training.adapters import random_adapter
from tests.training.conftest import make_tiny

from .command_line import inhouse
from .dated import Dated

HOUSE = "def fetch_json(path): ...\n\n\nfetch_json(1)\nfetch_json(2)\nfetch_json(3)\n"


def client(name: str, keys: str) -> str:
    filler = "".join(f"    note(identifier, {number})\n" for number in range(20))
    return f"def load_{name}(identifier):\n{filler}    return fetch_json('{name}', identifier, {keys})\n"


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Dated:
    """Four pull requests, three of which had a line changed."""
    dated = Dated(tmp_path_factory.mktemp("lines") / "shop")
    dated.start = dated.commit(0, "House (#1)", {"house.py": HOUSE})
    for number in range(4):
        dated.commit(
            10 * number + 1, f"Client {number} (#{2 * number + 2})", {f"c{number}.py": client(f"c{number}", "1")}
        )
        if number:
            dated.commit(
                10 * number + 2, f"Fix {number} (#{2 * number + 3})", {f"c{number}.py": client(f"c{number}", "2")}
            )
    dated.commit(99, "Later", {"notes.md": "x\n"})
    return dated


def test_every_line_is_scored_once_and_every_score_has_its_row(
    dated: Dated, base_model: BaseModel, tmp_path: Path
) -> None:
    tokenizer: Any = load_tokenizer(base_model)
    base = BaseModel("tiny", make_tiny(tmp_path / "tiny", tokenizer), "0" * 64, "")
    adapter = random_adapter(base, tmp_path / "adapter")
    engine = TransformersEngine(base, lambda name: adapter, device="cpu", dtype=torch.float32)
    repository = Repository.open(dated.root)
    judged = judged_changes(repository, dated.start, 50).changes
    with closing(SnapshotSearch(repository, dated.start)) as search:
        material = gather(tokenizer, judged, house_names(repository, dated.start), search, 160)
    assert sorted(kind for kind in material.planted if kind) == ["helper"] * 7
    house = tokenizer.encode("- File: house.py\nContent:\n" + HOUSE.rstrip("\n") + "\n\n")
    for row, below in zip(material.rows, material.below, strict=True):
        above = len(below.input_ids) - len(row.row.input_ids)
        assert list(below.input_ids[:above]) in ([], house), "the precedents of the snapshot, and no later file"
        assert below.input_ids[above:] == row.row.input_ids and below.labels[above:] == row.row.labels
    assert any(
        len(below.input_ids) > len(row.row.input_ids) for row, below in zip(material.rows, material.below, strict=True)
    )
    for row, kind in zip(material.rows, material.planted, strict=True):
        assert ("getattr(" in tokenizer.decode(row.row.input_ids)) == bool(kind)
    report = report_lines(repository, engine, tokenizer, "tuned", dated.start, 50, 160)
    assert report.evaluation.lines == sum(len(lines) for each in judged for lines in each.lines.values()) == 91
    assert (report.evaluation.requests, report.evaluation.with_both, report.evaluation.wanting) == (7, 3, 3)
    assert report.truncated > 0 and report.too_long == 0
    assert {result.score for result in report.evaluation.results} == {RANDOM, *(score.name for score in SCORES)}
    assert all(0 <= result.pooled.mean <= 1 for result in report.evaluation.results)
    assert HOUSE_SCORE is None and not report.decision.on and report.calibration is None
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.long
def test_the_command_judges_the_current_adapter_and_says_that_the_score_is_off(
    dated: Dated, base_model: BaseModel, tmp_path: Path
) -> None:
    asked = ("eval", "review", "--lines", "--repo", str(dated.root))
    untrained = inhouse(*asked)
    assert untrained.returncode == 1 and "inhouse retrain" in untrained.stderr
    registry = Registry(dated.root / ".inhouse" / "adapters")
    manifest = AdapterManifest(base_model.name, base_model.sha256, dated.start)
    registry.promote(registry.add(random_adapter(base_model, tmp_path / "adapter"), manifest).version, "by hand")
    told = inhouse(*asked).stdout
    assert "7 later pull requests; 3 have lines of both kinds" in told
    assert "house score: off" in told
