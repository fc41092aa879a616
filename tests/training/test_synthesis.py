"""Rows that a model writes: what is asked, how often, what of a reply is believed, and what becomes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_training import (
    BaseModel,
    EndpointGenerator,
    EngineGenerator,
    ReplyCache,
    Task,
    build_dataset,
    estimate,
    open_run,
    plan_tasks,
    read_sections,
    stored_replies,
    synthesize,
)
from inhouse_training.dataset import Cut, Dataset, cut_repository
from inhouse_training.documents import Kind
from inhouse_training.prompts import NOT_HERE, SYSTEM
from inhouse_training.recipe import Recipe, parse_recipe
from inhouse_training.synthesis import grounding, raft
from inhouse_training.synthesis.absent import absent_names
from inhouse_training.synthesis.cache import Reply
from inhouse_training.synthesis.generator import ATTEMPTS
from inhouse_training.synthesis.grounding import DroppedItem, Item, ground
from inhouse_training.synthesis.sources import Section

from .chat_server import KEY, ChatServer, Failure, honest
from .history import commit, git, handler, make_history
from .test_leaks import VALIDATION, renamed

KINDS: tuple[Kind, ...] = ("qa", "explanation", "relation", "raft", "absent")
GUIDE = (
    "# Refunds\n\nA refund is signed off by a clerk of the same tenant. Larger refunds wait for two clerks.\n\n"
    "The ledger keeps each refund for seven years, and nobody may change what it keeps afterwards.\n\n"
    "A customer hears of a refund by letter, never by telephone, since telephone calls cannot be audited.\n"
)
DESK = '''"""The desk: where clerks take what customers bring."""

from handlers.area0 import update_invoice


async def take_from_customer(request: HouseRequest, ledger: AuditLedger) -> HouseReply:
    """Take a request at the desk, and pass it on to the handler of invoices."""
    reply = await update_invoice(request, ledger)
    return reply
'''


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with a wiki page and files that use each other; its newest commit adds :data:`VALIDATION`."""
    root = tmp_path_factory.mktemp("written") / "shop"
    make_history(root, commits=6)
    commit(root, "Write the guide", docs__refunds_md=GUIDE, desk_py=DESK)
    for number in range(6):
        commit(root, f"Take {number}", **{f"more__area{number}_py": handler(f"parcel{number}")})
    commit(root, "Plan the couriers", courier_py=VALIDATION)
    return Repository.open(root).with_wiki(["docs"])


@pytest.fixture(scope="session")
def cut(shop: Repository) -> Cut:
    content = 'base_model = "x"\n[optimizer]\nlearning_rate = 1e-3\n'
    return cut_repository(shop, parse_recipe(content, "any", "any.toml"))


@pytest.fixture(scope="session")
def sections(shop: Repository, cut: Cut) -> list[Section]:
    return read_sections(shop, cut)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer().running() as running:
        yield running


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    return with_data(tiny_recipe, max_train_tokens=0, max_tokens=1024)


def with_data(recipe: Recipe, **data: Any) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


def with_shares(recipe: Recipe, share: float = 0.15) -> Recipe:
    usual = {"file_share": 0.1, "conversation_share": 0.1, "change_share": 0.05}
    return with_data(recipe, **usual, **{f"{kind}_share": share for kind in KINDS})


def tasks_of(sections: list[Section], *kinds: Kind) -> list[Task]:
    return plan_tasks(sections, kinds or KINDS, "shop")


def endpoint(server: ChatServer, **options: Any) -> EndpointGenerator:
    return EndpointGenerator(server.url, "writer", KEY, "$WRITER_KEY", **{"concurrency": 3, **options})


def run(tasks: list[Task], server: ChatServer, state: Path, bound: int = 1_000_000, **options: Any) -> Any:
    with ReplyCache(state) as cache:
        return synthesize(tasks, endpoint(server, **options), cache, bound)


# ----------------------------------------------------------------------------------------------------------------------
# What is believed

PAGE = Section("docs/refunds.md", "b1", 11, 17, GUIDE, True, ("Refunds",))
CODE = Section("desk.py", "b2", 1, 10, DESK, False, ("take_from_customer",))


def questions(**item: object) -> list[Item | DroppedItem]:
    usual = {
        "question": "Who signs off a refund?",
        "quote": "A refund is signed off by a clerk of the same tenant.",
        "answer": "A clerk of the same tenant.",
    }
    text = json.dumps({"items": [{**usual, **item}]})
    return ground(Task("questions", (PAGE,), "shop"), Reply(text, True, 1, 1))


def test_a_quotation_is_found_whatever_the_white_space_and_taken_as_the_source_has_it() -> None:
    [item] = questions(quote="  The ledger  keeps each refund\nfor seven years,")
    assert isinstance(item, Item)
    [evidence] = item.evidence
    assert evidence.text == "The ledger keeps each refund for seven years,"
    assert (evidence.first_line, evidence.last_line) == (15, 15)
    [across] = questions(quote="wait for two clerks. The ledger keeps")
    assert isinstance(across, Item)
    assert (across.evidence[0].first_line, across.evidence[0].last_line) == (13, 15)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"quote": "A refund is signed off by the manager of the shop."}, grounding.NOT_IN_SOURCE),
        ({"quote": "a refund is signed off by a clerk of the same tenant."}, grounding.NOT_IN_SOURCE),
        ({"quote": "A refund is"}, grounding.SHORT_QUOTE),
        ({"quote": None}, grounding.INCOMPLETE),
        ({"answer": "  "}, grounding.INCOMPLETE),
        ({"answer": "`sign_off_refund()` of `RefundDesk` does."}, grounding.UNKNOWN_NAMES),
        ({"answer": "A clerk, within 14 days."}, grounding.UNKNOWN_NAMES),
        ({"question": "What does this page say about refunds?"}, grounding.NOT_ALONE),
        ({"question": "A refund: a clerk", "answer": "a refund, a clerk!"}, grounding.NO_ANSWER),
    ],
)
def test_what_is_not_in_the_source_is_dropped_by_reason(item: dict[str, object], reason: str) -> None:
    [dropped] = questions(**item)
    assert isinstance(dropped, DroppedItem) and dropped.reason == reason


def test_a_relation_quotes_each_of_its_files() -> None:
    second = Section("handlers/area0.py", "b3", 1, 20, handler("invoice"), False, ("update_invoice",))

    def told(first_quote: str, second_quote: str) -> list[Item | DroppedItem]:
        item = {"first_quote": first_quote, "second_quote": second_quote, "statement": "The desk passes it on."}
        reply = Reply(json.dumps({"items": [item]}), True, 1, 1)
        return ground(Task("relation", (CODE, second), "shop"), reply)

    here, there = "reply = await update_invoice(request, ledger)", "changes = require_valid(InvoiceChanges, request)"
    [item] = told(here, there)
    assert isinstance(item, Item) and [each.section.path for each in item.evidence] == ["desk.py", "handlers/area0.py"]
    [dropped] = told(here, here)
    assert isinstance(dropped, DroppedItem) and dropped.reason == grounding.NOT_IN_SOURCE


def test_of_a_reply_that_was_cut_the_whole_items_are_used() -> None:
    item = {"quote": "where clerks take what customers bring", "statement": "Clerks take things there."}
    text = json.dumps({"items": [item, item]})[:-30]
    found = ground(Task("explanation", (CODE,), "shop"), Reply(text, False, 1, 1))
    assert [type(each) for each in found] == [Item, DroppedItem]
    assert isinstance(found[1], DroppedItem) and found[1].reason == grounding.CUT


@pytest.mark.parametrize("text", ["", "Sure! Here are some questions.", '{"items": []}', "[" * 100_000, "[null, 3]"])
def test_what_is_no_list_of_items_is_said_to_be_none(text: str) -> None:
    [dropped] = ground(Task("questions", (PAGE,), "shop"), Reply(text, True, 1, 1))
    assert isinstance(dropped, DroppedItem) and dropped.reason == grounding.NOT_AS_ASKED


# ----------------------------------------------------------------------------------------------------------------------
# What is asked, and how often


def test_equal_requests_are_shared_and_a_section_that_only_moved_is_the_same(sections: list[Section]) -> None:
    alone = tasks_of(sections, "qa")
    assert [task.sections[0].path for task in alone] == ["docs/refunds.md"]
    both = tasks_of(sections, "qa", "raft")
    assert len({task.key("m") for task in both}) == len(both) and alone[0] in both
    related = {tuple(section.path for section in task.sections) for task in tasks_of(sections, "relation")}
    assert ("desk.py", "handlers/area0.py") in related
    moved = Task("questions", (Section("docs/refunds.md", "other", 1, 7, GUIDE, True, ()),), "shop")
    assert moved.key("m") == Task("questions", (PAGE,), "shop").key("m")
    assert moved.key("m") != moved.key("another model")


def test_all_is_asked_once_and_several_at_a_time(sections: list[Section], server: ChatServer, tmp_path: Path) -> None:
    tasks = tasks_of(sections)
    three = threading.Barrier(3)

    def write(number: int, prompt: str) -> str:
        if number < 3:
            three.wait(timeout=30)
        return honest(prompt)

    server.write = write
    before = estimate(tasks, stored_replies(tmp_path, "writer"))
    assert (before.open, before.cached) == (len(tasks), 0) and before.tokens > 1000
    report = run(tasks, server, tmp_path)
    assert report.asked == len(tasks) == len(server.asked) and report.dropped == {}
    assert report.grounded == Counter(task.topic for task in tasks)
    assert report.tokens <= before.tokens and server.most_at_once == 3
    again = run(tasks, server, tmp_path)
    assert (again.asked, again.cached, again.grounded) == (0, len(tasks), report.grounded)
    assert len(server.asked) == len(tasks)
    assert estimate(tasks, stored_replies(tmp_path, "writer")).tokens == 0


def test_bad_replies_are_kept_counted_and_not_asked_for_again(
    sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    bad: list[str | tuple[str, str]] = [
        "I would rather not.",
        (honest("a\n```\n" + GUIDE + "```\n")[:20], "length"),
        json.dumps({"items": [{"quote": "We never said any such thing.", "statement": "But so it is."}]}),
    ]
    server.write = lambda number, prompt: bad[number] if number < len(bad) else honest(prompt)
    tasks = tasks_of(sections, "explanation")
    report = run(tasks, server, tmp_path)
    assert report.dropped == {"explanation": {grounding.NOT_AS_ASKED: 1, grounding.CUT: 1, grounding.NOT_IN_SOURCE: 1}}
    assert report.grounded["explanation"] == len(tasks) - 3
    assert run(tasks, server, tmp_path).asked == 0


def test_what_passes_is_waited_for_in_sight_and_what_does_not_is_counted(
    sections: list[Section], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_training.synthesis.generator._FIRST_WAIT_S", 0.001)
    failures = [Failure(429, {"Retry-After": "1"}), Failure(500), Failure(200, body=b"<html>welcome</html>")]
    server.write = lambda number, prompt: (
        failures[number] if number < 3 else Failure(400) if "area1.py" in prompt.split("```")[0] else honest(prompt)
    )
    seen: list[str] = []
    tasks = tasks_of(sections, "explanation")[:5]
    report = run(tasks, server, tmp_path, concurrency=1, progress=lambda stage, done, total: seen.append(stage))
    assert [each.status for each in server.asked[:2]] == [429, 500]
    assert server.asked[1].at - server.asked[0].at >= 1.0
    assert "waiting for the model server (s)" in seen
    assert report.refused.total() == 1 and report.asked == len(tasks) - 1 and not report.failed


def test_a_server_that_is_lost_or_refuses_the_key_is_said_plainly(
    sections: list[Section], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inhouse_training.synthesis.generator._FIRST_WAIT_S", 0.001)
    tasks = tasks_of(sections, "explanation")
    server.write = lambda number, prompt: honest(prompt) if number == 0 else Failure(503)
    with pytest.raises(InhouseError, match="no reply to 5 requests in a row"):
        run(tasks, server, tmp_path)
    assert len(server.answered()) == 1 and len(server.asked) >= 5 * ATTEMPTS
    assert len(stored_replies(tmp_path).by_key) == 1, "what was answered is kept"
    with ReplyCache(tmp_path) as cache, pytest.raises(InhouseError, match="refuses the API key") as refused:
        synthesize(tasks, EndpointGenerator(server.url, "writer", "wrong", "$WRITER_KEY", 1), cache, 10**6)
    assert refused.value.remedy == "Correct $WRITER_KEY."
    server.write = lambda number, prompt: Failure(400, body=b'{"error": {"message": "response_format: unknown"}}')
    with pytest.raises(InhouseError, match=r"none of the first 5 requests: .*response_format: unknown") as all_refused:
        run(tasks, server, tmp_path)
    assert "json_schema = false" in all_refused.value.remedy


def test_the_bound_holds_also_for_requests_under_way(
    sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    tasks = tasks_of(sections, "explanation")
    one = max(task.prompt_tokens + task.reply_tokens for task in tasks)
    report = run(tasks, server, tmp_path, bound=3 * one)
    assert 0 < report.tokens <= 3 * one
    assert 2 <= report.asked < len(tasks) and report.beyond_bound == len(tasks) - report.asked
    assert run(tasks, server, tmp_path, bound=1).asked == 0
    rest = run(tasks, server, tmp_path)
    assert (rest.asked, rest.cached) == (len(tasks) - report.asked, report.asked)


KILLED = """
import sys
from pathlib import Path
from inhouse_retrieval import Repository
from inhouse_training import EndpointGenerator, ReplyCache, plan_tasks, read_sections, synthesize
from inhouse_training.dataset import cut_repository
from inhouse_training.recipe import parse_recipe
root, url, key, state = sys.argv[1:]
recipe = parse_recipe('base_model = "x"\\n[optimizer]\\nlearning_rate = 1e-3\\n', "r", "r")
repository = Repository.open(Path(root)).with_wiki(["docs"])
sections = read_sections(repository, cut_repository(repository, recipe))
tasks = plan_tasks(sections, ("explanation", "raft"), "shop")
with ReplyCache(Path(state)) as cache:
    synthesize(tasks, EndpointGenerator(url, "writer", key, "$KEY", 2), cache, 10**6)
"""


def test_after_kill_9_nothing_that_was_answered_is_asked_again(
    shop: Repository, sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(shop.root), server.url, KEY, str(tmp_path)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)

    def write(number: int, prompt: str) -> str:
        if number == 6:
            child.kill()
            child.wait()
        return honest(prompt)

    server.write = write
    assert child.wait(timeout=60) == -signal.SIGKILL
    assert child.stderr is not None
    child.stderr.close()
    kept = set(stored_replies(tmp_path).by_key)
    assert 3 <= len(kept) <= 6
    first = len(server.asked)
    server.write = lambda number, prompt: honest(prompt)
    run(tasks_of(sections, "explanation", "raft"), server, tmp_path)
    stored = stored_replies(tmp_path)
    assert len(server.asked) - first == len(stored.by_key) - len(kept)
    times = Counter(each.prompt for each in server.asked)
    assert sum(times.values()) - len(times) <= 2 * 2, "at most what was under way is asked twice"


# ----------------------------------------------------------------------------------------------------------------------
# What becomes of it


@pytest.fixture
def build(shop: Repository, cut: Cut, tokenizer: Any, tmp_path: Path) -> Callable[..., Dataset]:
    def built(recipe: Recipe, name: str = "dataset") -> Dataset:
        generated = partial(stored_replies, tmp_path)
        return build_dataset(shop, tokenizer, recipe, cut, tmp_path / name, generated=generated)

    return built


def rows_of(dataset: Dataset, kind: Kind) -> list[tuple[dict[str, Any], list[dict[str, str]]]]:
    found = [row for row in dataset.rows if row["kind"] == kind]
    return [(json.loads(row["origin"]), json.loads(row["messages"])["messages"]) for row in found]


def test_each_kind_becomes_rows_that_say_where_they_come_from(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset]
) -> None:
    run(tasks_of(sections), server, tmp_path)
    dataset = build(with_shares(recipe))
    [(origin, messages)] = rows_of(dataset, "qa")
    assert origin["generator"] == "writer" and origin["split"] == "training"
    assert [source["place"] for source in origin["sources"]] == ["docs/refunds.md:1-7"]
    assert [turn["role"] for turn in messages] == ["system", "user", "assistant"]
    assert messages[0]["content"] == SYSTEM and messages[1]["content"].startswith("What is the longest line of")
    questions = {messages[1]["content"] for _, messages in rows_of(dataset, "relation")}
    assert "How do `desk.py` and `handlers/area0.py` work together?" in questions
    account = dataset.manifest["synthesis"]
    assert account["generator"] == "writer" and account["rows"].keys() == set(KINDS)
    for figures in dataset.manifest["tokens"].values():
        assert figures["read"] == figures["trained"] + figures["held_out"] + sum(figures["dropped"].values())
    again = build(with_shares(recipe), name="again")
    assert again.manifest["rows_sha256"] == dataset.manifest["rows_sha256"]
    assert not set(KINDS) & set(build(recipe, name="without").rows["kind"]), "off by default"


def test_passages_come_in_the_prompt_of_the_product_with_the_true_one_in_most(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run(tasks_of(sections, "raft"), server, tmp_path)
    monkeypatch.setattr(raft, "WITHOUT_TRUE_PASSAGE", 0.4)
    rows = rows_of(build(with_shares(recipe)), "raft")
    answers = 0
    for origin, (system, user, assistant) in rows:
        assert system["content"] == SYSTEM and user["content"].startswith("Passages of the repository:\n\n")
        assert user["content"].rstrip().endswith("?")
        [path] = {source["place"].rpartition(":")[0] for source in origin["sources"]}
        if assistant["content"] == NOT_HERE:
            continue
        answers += 1
        place, quote, *_ = assistant["content"].split("\n")
        assert place.startswith(f"{path}:") and quote.startswith("> ")
        assert quote.removeprefix("> ") in user["content"], "what is quoted was shown"
    assert 0 < answers < len(rows)
    assert any(user["content"].count("\n```\n") >= 4 for _, (_, user, _) in rows), "distractors stand beside it"


def test_a_row_of_a_held_out_file_is_refused(
    shop: Repository,
    cut: Cut,
    sections: list[Section],
    recipe: Recipe,
    server: ChatServer,
    tmp_path: Path,
    build: Callable[..., Dataset],
) -> None:
    later = Cut(shop.head(), cut.as_of, cut.training, ())
    leaked = plan_tasks(read_sections(shop, later), KINDS, "shop")
    assert any(section.path == "courier.py" for task in leaked for section in task.sections)
    run(leaked, server, tmp_path)
    dataset = build(with_shares(recipe))
    assert "courier.py" not in " ".join(dataset.rows["origin"]) and dataset.rows.num_rows > 10
    assert "CourierPlanner" not in " ".join(dataset.rows["messages"])
    ours = {task.key("writer") for task in tasks_of(sections)}
    theirs = {task.key("writer") for task in leaked}
    assert dataset.manifest["synthesis"]["unused_replies"] == len(theirs - ours) > 0


@pytest.mark.parametrize("told", [VALIDATION, renamed(VALIDATION)], ids=["as it is", "renamed identifiers"])
def test_a_model_that_tells_of_a_held_out_change_is_not_learned(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch, told: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(grounding, "_NAME", grounding.re.compile(r"(?!)()()"))  # else its names give it away
    server.write = lambda number, prompt: json.dumps(
        {"items": [{"question": "How?", "quote": "A refund is signed off by a clerk", "answer": told}]}
    )
    run(tasks_of(sections, "qa"), server, tmp_path)
    dataset = build(with_shares(recipe))
    assert dataset.manifest["synthesis"]["dropped"]["qa"] == {"near-copy of a held-out change": 1}
    assert "qa" not in dataset.rows["kind"] and dataset.manifest["overlap"]["leaked"] == 0


def test_what_a_model_says_is_redacted_before_it_is_kept(
    sections: list[Section], server: ChatServer, tmp_path: Path
) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
    server.write = lambda number, prompt: honest(prompt).replace("belongs", f"belongs, with {secret},")
    run(tasks_of(sections, "explanation"), server, tmp_path)
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("synthesis.sqlite*"))
    assert b"[REDACTED GitHub token]" in kept and secret.encode() not in kept and KEY.encode() not in kept


def test_a_kind_takes_no_more_than_its_share_of_the_learned_tokens(
    sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path, build: Callable[..., Dataset]
) -> None:
    run(tasks_of(sections, "explanation"), server, tmp_path)
    small = with_data(recipe, file_share=0.3, explanation_share=0.02)
    dataset = build(small)
    trained = {kind: figures["trained"] for kind, figures in dataset.manifest["tokens"].items()}
    assert 0 < trained["explanation"] <= 0.02 * sum(trained.values())
    assert "over its share of the learned tokens" in dataset.manifest["tokens"]["explanation"]["dropped"]


def test_new_replies_make_another_run_only_where_the_recipe_uses_them(
    shop: Repository, sections: list[Section], recipe: Recipe, server: ChatServer, tmp_path: Path
) -> None:
    base = BaseModel("tiny", Path(), "0" * 64, "")
    run(tasks_of(sections, "qa"), server, tmp_path)

    def told(*kinds: Kind) -> object:
        shares = {f"{kind}_share": 0.1 for kind in kinds}
        return open_run(shop, tmp_path, with_data(recipe, file_share=0.2, **shares), base).inputs.get("synthesis")

    assert told() is None and told("explanation", "absent") is None
    before = told("qa")
    run(tasks_of(sections, "raft"), server, tmp_path)
    assert before and told("qa") != before


def test_names_that_there_are_not_stand_in_no_file(shop: Repository, cut: Cut, sections: list[Section]) -> None:
    made = absent_names(shop, cut.snapshot, sections, 1)
    assert len(made) >= 4 and made == absent_names(shop, cut.snapshot, sections, 1)
    everything = git(shop.root, "grep", "-h", "", cut.snapshot).lower()
    for absent in made:
        assert absent.name.lower() not in everything and absent.real.lower() in everything
        assert absent.name in absent.question
    # One that exists in a file which is never read is found out, too.
    taken = made[0].name
    commit_with = git(shop.root, "commit-tree", "-p", cut.snapshot, "-m", "vendored", tree_with(shop, cut, taken))
    names = {absent.name for absent in absent_names(shop, commit_with, sections, 1)}
    assert taken not in names and len(names) == len(made) - 1


def tree_with(shop: Repository, cut: Cut, name: str) -> str:
    """The snapshot's tree, and a vendored file that uses ``name``."""
    blob = shop.git("hash-object", "-w", "--stdin", given=f"var x = {name.upper()}2;".encode()).decode().strip()
    folder = shop.git("mktree", given=f"100644 blob {blob}\tx.min.js\n".encode()).decode().strip()
    listed = shop.git("ls-tree", cut.snapshot) + f"040000 tree {folder}\tnode_modules\n".encode()
    return shop.git("mktree", given=listed).decode().strip()


def test_names_that_there_are_not_are_denied_with_what_the_search_finds(
    recipe: Recipe, build: Callable[..., Dataset]
) -> None:
    rows = rows_of(build(with_shares(recipe)), "absent")
    assert len(rows) >= 2
    for origin, (_, user, assistant) in rows:
        assert origin["generator"] == "no model"
        assert user["content"].startswith("Passages of the repository:") and assistant["content"].startswith(NOT_HERE)
    assert any("has a similar name" in assistant["content"] for _, (_, _, assistant) in rows)


# ----------------------------------------------------------------------------------------------------------------------
# Models


@pytest.mark.long
def test_a_model_in_this_process_writes_through_the_engine(
    sections: list[Section], base_model: BaseModel, tmp_path: Path
) -> None:
    from inhouse_training import TransformersEngine

    tasks = tasks_of(sections, "qa")
    loaded: list[str] = []

    def load() -> TransformersEngine:
        loaded.append("once")
        return TransformersEngine(base_model, lambda name: Path())

    with ReplyCache(tmp_path) as cache:
        report = synthesize(tasks, EngineGenerator("SmolLM2", load), cache, 10**6)
        assert report.asked == len(tasks) and 0 < report.tokens < 10_000 and loaded == ["once"]
        assert synthesize(tasks, EngineGenerator("SmolLM2", load), cache, 10**6).cached == len(tasks)
    assert loaded == ["once"], "what is answered needs no model"
    assert report.grounded.total() + sum(map(Counter.total, report.dropped.values())) >= len(tasks)


@pytest.mark.long
def test_llama_cpp_s_server_takes_the_requests(sections: list[Section], base_model: BaseModel, tmp_path: Path) -> None:
    from ..server.test_openai_engine import Server

    (gguf,) = base_model.path.glob("*.gguf")
    llama = Server(gguf)
    try:
        tasks = tasks_of(sections, "qa", "relation")[:3]
        generator = EndpointGenerator(f"{llama.address}/v1", "smollm2", "secret", "$KEY", 2)
        with ReplyCache(tmp_path) as cache:
            report = synthesize(tasks, generator, cache, 10**6)
        assert report.asked == len(tasks) and not report.refused and not report.failed
        for reply in stored_replies(tmp_path).by_key.values():
            assert reply.text.lstrip().startswith("{") and reply.prompt_tokens > 100
    finally:
        llama.kill()
