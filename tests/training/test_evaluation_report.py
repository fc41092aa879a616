"""The report of `inhouse eval model`: what it says, and that nothing a model wrote is anything but text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from inhouse_server.cli.evaluation_text import evaluation_lines
from inhouse_training.decay import Decay, DecayBin
from inhouse_training.engine import RowScore
from inhouse_training.evaluation import Evaluation, Interval
from inhouse_training.measures import Likelihood
from inhouse_training.measures.answered import Answered
from inhouse_training.measures.model import ModelEvaluation
from inhouse_training.measures.recall import Recall
from inhouse_training.measures.report import write_evaluation_report
from inhouse_training.measures.tasks import Task
from inhouse_training.probes.answers import Checked

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(1)> ````\n# heading\n| a | b |\n\x1b[31m\u202e `x` [a](http://b)"


def answered(question: str, mode: str, base: float, candidate: float, text: str = "said") -> Answered:
    said = {"base": f"{base} {text}", "candidate": f"{candidate} {text}"}
    checked = {label: Checked(1, ("<b>invented</b>",), True, False, False) for label in said}
    task = Task("known_value", question, {"known_value_quoted": lambda answer: float(answer.split()[0])}, HOSTILE)
    return Answered(task, mode, True, said, checked)


def scores(*nats: float) -> Mapping[str, tuple[RowScore, ...]]:
    return {
        "base": tuple(RowScore(each, 2) for each in nats),
        "candidate": tuple(RowScore(each / 2, 2) for each in nats),
    }


@pytest.fixture
def evaluation(tmp_path: Path) -> ModelEvaluation:
    both = {"closed_book": scores(*[8.0, 6.0] * 3), "with_retrieval": scores(*[6.0, 4.0] * 3)}
    judged = Evaluation(
        tuple("abcdef"), {mode: dict(each) for mode, each in both.items()}, {"base": {}, "candidate": {}}
    )
    gain = Interval(0.5, 0.25, 0.75)
    return ModelEvaluation(
        tmp_path, "a|base", "cpu-trial", "c0ffee" * 4, datetime(2026, 1, 2, tzinfo=UTC),
        {"base": "base", "candidate": "v1"},
        judged,
        (Likelihood("later_edits", (8,) * 6, both), Likelihood("general_english", (4,), {"closed_book": scores(1.0)})),
        (
            answered("same?", "closed_book", 1, 1),
            answered("better?", "closed_book", 0, 1, HOSTILE),
            answered("better?", "with_retrieval", 1, 1, HOSTILE),
            answered("worse?", "closed_book", 1, 0),
            *(answered(f"{number}?", "closed_book", 0, 0) for number in range(3)),
        ),
        Recall({"known_files": {"base": (0, 3), "candidate": (40, 3)}, "later_files": {"base": (), "candidate": ()}}),
        Decay("with_retrieval", (DecayBin(0, 9, 5, gain, gain),), None, ""),
        {"scoring": 3.0, "asking": 4.0},
        (f"Left out: {HOSTILE}",),
    )  # fmt: skip


def test_the_report_has_figures_intervals_plots_and_examples(evaluation: ModelEvaluation) -> None:
    path = write_evaluation_report(evaluation)
    assert path.parent == evaluation.directory / "evaluation-v1"
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    assert [each.text for each in page.find_all("h2")] == [
        "Likelihood: bits per byte (nats per token), lower is better",
        "Answers",
        "Memory, which is not quality",
        "Decay: loss on later changes by days since the snapshot",
        "Known value, best beside the base",
        "Known value, worst beside the base",
    ]
    assert all(each["src"].startswith("data:image/svg+xml;base64,") for each in page.find_all("img"))
    assert len(page.find_all("img")) == 3
    rows = [[cell.text for cell in row.find_all("td")] for row in page.find_all("table")[0].find_all("tr")[1:]]
    bits = "1.262 (3.500)", "0.631 (1.750)"
    assert rows[0][:5] == ["later edits", "question alone", "6", *bits]
    assert rows[0][5].startswith("+0.631 (+0.5")
    assert rows[2][5] == "too few items"
    # The best beside the base model, and the worst: no choice flatters.
    asked = [each.find_next("pre").text for each in page.find_all("h3") if each.text == "Asked"]
    assert asked == ["better?", "worse?"]
    assert "Later edits, with passages: " in page.find("ul").text
    markdown = (path.parent / "report.md").read_text(encoding="utf-8")
    assert "| later edits | question alone | 6 | 1.262 (3.500) | 0.631 (1.750) | +0.631" in markdown
    assert all((path.parent / each["src"]).exists() for each in _markdown(markdown).find_all("img"))


def test_answers_that_are_all_the_same_have_no_interval(evaluation: ModelEvaluation) -> None:
    same = tuple(answered(f"{number}?", "closed_book", 0.25, 0.25) for number in range(6))
    judged = replace(evaluation, answered=same)
    (line,) = [line for line in evaluation_lines(judged.metrics()) if line.startswith("known value quoted")]
    assert line.endswith("difference to base none, the same on all 6")
    assert "| the same on all 6 |" in write_evaluation_report(judged).with_name("report.md").read_text(encoding="utf-8")


def test_what_a_model_wrote_is_text_and_nothing_else(evaluation: ModelEvaluation) -> None:
    path = write_evaluation_report(evaluation)
    text = path.read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert "default-src 'none'" in page.find("meta", attrs={"http-equiv": True})["content"]
    assert not page.find_all(["script", "b", "a"]) and not page.find_all(onerror=True)
    shown = HOSTILE.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert any(each.text == f"1 {shown}" for each in page.find_all("pre"))
    rendered = _markdown((path.parent / "report.md").read_text(encoding="utf-8"))
    assert not rendered.find_all(["script", "b", "a"]) and not rendered.find_all(onerror=True)
    assert "heading" not in {each.text for each in rendered.find_all(["h1", "h2"])}
    assert any(each.text == f"1 {shown}\n" for each in rendered.find_all("code"))
    for content in (text, (path.parent / "report.md").read_text(encoding="utf-8")):
        assert "\x1b" not in content and "\u202e" not in content


def _markdown(text: str) -> BeautifulSoup:
    return BeautifulSoup(MarkdownIt("commonmark", {"html": True}).enable("table").render(text), "html.parser")
