"""The reading reviewer: whatever a model says, only what is proven is shown, and what was not read is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest
from jsonschema import validate

from inhouse_retrieval import Passage, PullRequest, PullRequestStore, Repository, ReviewComment, read_pull_requests
from inhouse_server.review.change import Change
from inhouse_server.review.diff import read_change
from inhouse_server.review.finding import Review
from inhouse_server.review.past_remarks import PastRemarks
from inhouse_server.review.reading import parse_reply
from inhouse_server.review.renderers.text import headline
from inhouse_server.review.reviewer import Reader, know_house, review
from inhouse_training import (
    BASE,
    BaseModel,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    RowScore,
    ScoredRow,
    TextDelta,
    load_tokenizer,
)
from inhouse_training.review_prompt import SCHEMA
from inhouse_training.reviews import Review as PastReview
from inhouse_training.reviews import read_reviews, review_row
from tests.server.conftest import git

OLD = "def pay(amount):\n    return amount\n"
NEW = "def pay(amount):\n    total = amount * 1.19\n    log(total)\n    return total\n"


NONE = PastRemarks(())


class ScriptedEngine:
    """Answers with what it is told to, as a model would stream it; a word is a token."""

    base_model = "scripted"
    context_tokens = 4096

    def __init__(self, *rows: dict[str, object], reply: str = "") -> None:
        self.reply = reply or json.dumps({"findings": list(rows)})
        self.asked: list[GenerationRequest] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        self.asked.append(request)
        for at in range(0, len(self.reply), 7):
            yield TextDelta(self.reply[at : at + 7])
        yield Finished("stop", 1, 1)

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        raise AssertionError("a review does not score")


def row(
    quote: str, better: str = "", problem: str = "The rate is a magic number.", confidence: int = 9
) -> dict[str, object]:
    return {"quote": quote, "problem": problem, "better": better, "confidence": confidence}


@pytest.fixture
def change(tmp_path: Path) -> Change:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    (tmp_path / "pay.py").write_text(OLD)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "Pay")
    (tmp_path / "pay.py").write_text(NEW)
    return read_change(Repository.open(tmp_path))


def read_by(
    engine: ScriptedEngine, change: Change, tmp_path: Path, prompt_tokens: int = 2_000, remarks: PastRemarks = NONE
) -> Review:
    found = Passage("tax.py", 1, 1, "RATE = 1.19", "code", "", "", 1.0, ("dense",))
    reader = Reader(engine, BASE, lambda query, limit: [found], remarks, prompt_tokens, 200)
    return review(change, know_house(Repository.open(tmp_path), change.base_commit), 5, reader)


def test_a_proven_remark_is_shown_with_its_precedent(change: Change, tmp_path: Path) -> None:
    engine = ScriptedEngine(row("total = amount * 1.19", "total = amount * RATE"))
    reviewed = read_by(engine, change, tmp_path)
    [finding] = reviewed.findings
    assert (finding.path, finding.start_line, finding.rule) == ("pay.py", 2, "reading")
    assert finding.replacement == "    total = amount * RATE\n"
    assert [place.path for place in finding.precedents] == ["tax.py"]
    assert (reviewed.base_model, reviewed.coverage.seen) == ("scripted", 1)
    asked = engine.asked[0]
    assert asked.schema == SCHEMA and "RATE = 1.19" in asked.messages[1].content
    assert "+    total = amount * 1.19" in asked.messages[1].content


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (row("price = cost / 2 + 17"), "the quoted code is not in the hunk"),
        (row("def pay(amount):"), "it is about lines that did not change"),
        (row("total = amount * 1.19", confidence=2), "the model itself was not sure"),
        (row("total = amount * 1.19", problem="<!-- hidden -->"), "the model itself was not sure"),
    ],
)
def test_what_cannot_be_proven_is_dropped_and_counted(
    change: Change, tmp_path: Path, said: dict[str, object], reason: str
) -> None:
    reviewed = read_by(ScriptedEngine(said), change, tmp_path)
    assert reviewed.findings == ()
    assert reviewed.dropped == {reason: 1}


def test_a_remark_stays_when_only_its_replacement_fails(change: Change, tmp_path: Path) -> None:
    reviewed = read_by(ScriptedEngine(row("total = amount * 1.19", "total = (amount")), change, tmp_path)
    assert reviewed.findings[0].replacement is None
    assert reviewed.dropped == {"it does not parse": 1}


def test_no_json_and_no_room_are_told(change: Change, tmp_path: Path) -> None:
    assert read_by(ScriptedEngine(reply="LGTM!"), change, tmp_path).dropped == {"the reply was no JSON": 1}
    reviewed = read_by(ScriptedEngine(), change, tmp_path, prompt_tokens=10)
    assert reviewed.coverage.seen == 0
    assert reviewed.coverage.unseen == ("pay.py:1 it is longer than the prompt (10 tokens)",)


def test_a_secret_of_the_change_never_reaches_the_model(tmp_path: Path, change: Change) -> None:
    key = "AKIA" + "QWERTYUIOPASDFGH"
    (tmp_path / "pay.py").write_text(NEW + f"KEY = '{key}'\n")
    engine = ScriptedEngine()
    read_by(engine, read_change(Repository.open(tmp_path)), tmp_path)
    told = "".join(message.content for asked in engine.asked for message in asked.messages)
    assert "REDACTED" in told and key not in told


def commented(path: str, line: str, text: str, role: str = "member", number: int = 7) -> PullRequest:
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    comment = ReviewComment(path, 3, "new", f"@@ -1,2 +1,3 @@\n def pay():\n+{line}", role, moment, text)
    return PullRequest(number, "Round at the end", "", None, None, moment, "", "", (), review_comments=(comment,))


def test_what_reviewers_said_about_similar_code_is_read(change: Change, tmp_path: Path) -> None:
    remarks = PastRemarks(
        [
            commented("pay.py", "    rate = 3", "Rates live in <!-- x -->tax.py."),
            commented("other.py", "    total = amount * 1.21", "Round totals."),
            commented("other.py", "    connect(host, port)", "Close it."),
            commented("pay.py", "    total = amount", "Coverage is 12 %.", role="bot"),
        ]
    )
    engine = ScriptedEngine()
    read_by(engine, change, tmp_path, remarks=remarks)
    told = engine.asked[0].messages[1].content
    assert "Rates live in tax.py." in told and "Round totals." in told, "the same file, or the same words"
    assert "Close it." not in told and "Coverage" not in told and "<!--" not in told
    assert remarks.about("pay.py", "x", 5, title="Round at the end") == [], "not what was said of this very change"


def test_a_finding_names_the_changes_in_which_a_reviewer_remarked_on_such_code(change: Change, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with PullRequestStore.in_state(tmp_path / "state") as store:
        for number, path, line in ((7, "pay.py", "    log(total)"), (8, "other.py", "x = connect(host)")):
            store.put(commented(path, line, "Logs are audited.", number=number), str(number))
    house = know_house(Repository.open(tmp_path), change.base_commit, state_dir=tmp_path / "state")
    engine = ScriptedEngine(row("log(total)", problem="Logged twice."), row("return total", problem="Not rounded."))
    reader = Reader(engine, BASE, lambda query, limit: [], NONE, 2_000, 200)
    logged, rounded = sorted(review(change, house, 5, reader).findings, key=lambda finding: finding.start_line)
    assert logged.changes == ("#7 Round at the end (a reviewer's remark on pay.py)",)
    [place] = logged.precedents
    assert (place.path, place.start_line, place.note) == (
        "pay.py", 3, "a reviewer remarked on this line in #7 Round at the end"
    )  # fmt: skip
    assert "audited" not in str(logged), "what was said was written by anyone"
    assert (rounded.changes, rounded.precedents) == ((), ())


def test_remarks_come_from_what_was_synced(tmp_path: Path) -> None:
    assert PastRemarks.of(tmp_path).about("pay.py", "rate", 3) == []
    with PullRequestStore.in_state(tmp_path) as store:
        store.put(commented("pay.py", "rate = 3", "Rates live in tax.py."), "1")
    assert [remark.text for remark in PastRemarks.of(tmp_path).about("pay.py", "rate", 3)] == ["Rates live in tax.py."]


def test_a_hunk_longer_than_the_prompt_is_partly_seen_and_said_to_be(change: Change, tmp_path: Path) -> None:
    (tmp_path / "pay.py").write_text(
        "".join(f"value_{n} = compute({n})\n" for n in range(399)) + "done = finish_all()\n"
    )
    long = read_change(Repository.open(tmp_path))
    engine = ScriptedEngine(row("value_3 = compute(3)"), row("done = finish_all()"))
    reviewed = read_by(engine, long, tmp_path, 600)
    assert [finding.anchor for finding in reviewed.findings] == ["value_3 = compute(3)"]
    assert reviewed.dropped == {"the quoted code is not in the hunk": 1}, "what was not shown cannot be quoted"
    asked = engine.asked[0].messages
    assert 550 < engine.count_tokens(asked) <= 600, "as much as fits"
    shown = asked[1].content.count("= compute(")
    [told] = reviewed.coverage.partly
    assert told.startswith("pay.py:1 the first ") and f"of {402} lines" in told and shown < 400
    assert (reviewed.coverage.seen, reviewed.coverage.unseen) == (1, ())
    assert "the model read 1 of 1 hunk (1 partly seen)" in headline(reviewed)


def test_a_model_is_trained_on_the_very_prompt_and_the_form_of_answer_that_a_review_uses(
    change: Change, tmp_path: Path, base_model: BaseModel
) -> None:
    engine = ScriptedEngine(row("total = amount * 1.19"))
    reader = Reader(engine, BASE, lambda query, limit: [], NONE, 2_000, 200)
    review(replace(change, title="Pay with tax"), know_house(Repository.open(tmp_path), change.base_commit), 5, reader)
    [asked] = engine.asked

    git(tmp_path, "commit", "--quiet", "--all", "--message", "Pay with tax")
    repository = Repository.open(tmp_path)
    landed = read_pull_requests(repository)[0]
    hunk = landed.files[0].patch.partition("\n+    log(total)")[0]
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    remark = ReviewComment("pay.py", 2, "new", hunk, "member", moment, "The rate lives in tax.py.")
    past = replace(landed, review_comments=(remark,))
    [reviewed] = [each for each in read_reviews(repository, [past], 1) if isinstance(each, PastReview)]
    made = review_row(load_tokenizer(base_model), engine.count_tokens, reviewed, 4096)
    assert made is not None
    system, user, answer = made[2]
    assert (system, user) == tuple(asked.messages)
    validate(json.loads(answer.content), json.loads(SCHEMA))
    [finding] = parse_reply(answer.content) or []
    learned = read_by(ScriptedEngine(reply=answer.content), change, tmp_path).findings
    assert [each.message for each in learned] == ["The rate lives in tax.py."] == [finding["problem"]]
