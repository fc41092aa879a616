"""textDocument/inlineCompletion: the protocol with a scripted model, and the whole way with one trained to fill in."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from inhouse_retrieval import EVERYWHERE, Within
from inhouse_server.lsp_capabilities import initialize_result
from inhouse_server.workspace import Workspace
from inhouse_training import BASE, Finished, GenerationEvent, TextDelta
from inhouse_training.fill_in import FillIn

from ..training.test_fill_in import tokenizer_with
from .conftest import make_repository
from .direct import Client
from .editor import editor
from .house import INHOUSE, stop_owner

METHOD = "textDocument/inlineCompletion"
AUTOMATIC, INVOKED = 2, 1
FIM = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>")


class Filler:
    """Writes ``middle``; with ``waits`` it is busy until it is ended."""

    def __init__(self) -> None:
        self.middle, self.waits = "customer, pennies", False
        self.asked: list[FillIn] = []
        self.begun, self.ended = Event(), Event()

    def fill_in(self, asked: FillIn, cancel: Event) -> Iterator[GenerationEvent]:
        self.asked.append(asked)
        self.begun.set()
        yield TextDelta(self.middle)
        while self.waits and not cancel.wait(0.005):
            pass
        self.ended.set()
        yield Finished("cancelled" if cancel.is_set() else "stop", 10, 4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    root = make_repository(folder / "shop")
    tokens = [{"content": each} for each in FIM]
    (folder / "model").mkdir()
    (folder / "model" / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    (root / ".gitignore").write_text("private.py\n")
    (root / "inhouse.toml").write_text(f"base_model = '{folder / 'model'}'\n[inline_completion]\nenabled = true\n")
    return root


@pytest.fixture
def house(root: Path) -> Iterator[Workspace]:
    with Workspace.open(root, "serve") as workspace:
        yield workspace


@pytest.fixture
def filler(house: Workspace, monkeypatch: pytest.MonkeyPatch) -> Filler:
    filler = Filler()
    monkeypatch.setattr(house, "filler", lambda: filler)
    return filler


def asking(root: Path, line: int, character: int, kind: int = INVOKED, name: str = "billing.py", **context: Any) -> Any:
    return {
        "textDocument": {"uri": (root / name).as_uri()},
        "position": {"line": line, "character": character},
        "context": {"triggerKind": kind, **context},
    }


async def test_the_text_is_put_at_the_cursor_counted_as_the_editor_counts(
    house: Workspace, root: Path, filler: Filler
) -> None:
    client = Client(house)
    client.open((root / "billing.py").as_uri(), 'name = "😀"\ntotal = charge_customer()\n')
    found = await client.request(METHOD, asking(root, 1, 24, AUTOMATIC))
    here = {"line": 1, "character": 24}
    assert found == {"items": [{"insertText": "customer, pennies", "range": {"start": here, "end": here}}]}
    (asked,) = filler.asked
    assert asked.prefix == 'name = "😀"\ntotal = charge_customer(' and asked.suffix == ")\n"
    assert asked.header == "- File: billing.py\nContent:\n" and asked.stop == ("\n",) and asked.adapter == "base"
    filler.middle = " and son"
    after_the_face = asking(root, 0, 10)  # UTF-16: it counts as two
    assert (await client.request(METHOD, after_the_face))["items"][0]["insertText"] == " and son"
    assert filler.asked[-1].prefix == 'name = "😀'


async def test_the_next_key_stroke_ends_it_and_so_does_the_next_request(
    house: Workspace, root: Path, filler: Filler
) -> None:
    client, uri = Client(house), (root / "billing.py").as_uri()
    client.open(uri, "total = charge_customer()\n")
    filler.waits = True
    for stroke in (True, False):
        filler.begun.clear(), filler.ended.clear()
        first = client.start(METHOD, asking(root, 0, 24))
        while not filler.begun.is_set():
            await asyncio.sleep(0.001)
        if stroke:
            change = {
                "range": {"start": {"line": 0, "character": 24}, "end": {"line": 0, "character": 24}},
                "text": "a",
            }
            client.send(
                "textDocument/didChange",
                {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [change]},
            )
        else:
            client.send("$/cancelRequest", {"id": first})
        answer = await client.answer(first)
        assert answer.get("result") is None and filler.ended.wait(5)
    first, filler.waits = client.start(METHOD, asking(root, 0, 24, AUTOMATIC)), False
    second = client.start(METHOD, asking(root, 0, 24, AUTOMATIC))
    assert (await client.answer(first))["result"] is None
    assert (await client.answer(second))["result"]["items"]
    assert len(filler.asked) == 3, "what was ended within the pause asked no model"


async def test_nothing_is_written_where_nothing_is_read(house: Workspace, root: Path, filler: Filler) -> None:
    client = Client(house)
    for name in ("private.py", "billing.py"):
        client.open((root / name).as_uri(), "total = charge_customer()\n")
    selected = {"range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 2}}, "text": "to"}
    for asked in (
        asking(root, 0, 24, name="private.py"),
        asking(root, 0, 24, name="../elsewhere.py"),
        asking(root, 0, 24, name="shipping.py"),
        asking(root, 9, 0),
        asking(root, 0, 24, selectedCompletionInfo=selected),
    ):
        assert await client.request(METHOD, asked) is None
    assert filler.asked == []
    monkey = 'key = "AKIA' + "IOSFODNN7EXAMPLZ" + '"\nuse(|)\n'
    before, after = monkey.split("|")
    client.open((root / "billing.py").as_uri(), before + after)
    await client.request(METHOD, asking(root, 1, 4))
    assert "EXAMPLZ" not in filler.asked[-1].prefix and "use(" in filler.asked[-1].prefix


async def test_who_sees_a_part_of_the_repository_gets_no_adapter(
    house: Workspace, root: Path, filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.registry, "current", lambda: "v1")
    for within in (EVERYWHERE, Within.of(["billing.py"])):
        client = Client(house, within)
        client.open((root / "billing.py").as_uri(), "total = charge_customer()\n")
        await client.request(METHOD, asking(root, 0, 24))
    assert [asked.adapter for asked in filler.asked] == ["v1", BASE]


def test_while_the_model_loads_there_is_none_and_nobody_waits(house: Workspace) -> None:
    assert house.offers_inline_completion and house.filler() is None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("", "It is off"),
        ("[inline_completion]\nenabled = true\n", "no tokens for filling in"),
        (
            "[inline_completion]\nenabled = true\n[engine]\nkind = 'openai'\nurl = 'http://x'\nmodel = 'm'\n",
            "no way to fill in",
        ),
    ],
)
async def test_it_is_offered_only_where_it_can_be(root: Path, base_model: object, settings: str, why: str) -> None:
    from inhouse_server.settings import load_settings

    (root / "inhouse.toml").write_text(settings)
    told = load_settings(root).no_inline_completion()
    assert why in told
    with Workspace.open(root, "serve") as house:
        client = Client(house)
        assert not house.offers_inline_completion
        assert (await client.answer(client.start(METHOD, asking(root, 0, 0))))["error"]["code"] == -32601
    params: dict[str, Any] = {"capabilities": {}}
    assert "inlineCompletionProvider" not in initialize_result(params)["capabilities"]
    assert initialize_result(params, True)["capabilities"]["inlineCompletionProvider"]


# ----------------------------------------------------------------------------------------------------------
# A small model that has learned to fill one gap, the owner, the relay


def trained_to_fill_in(folder: Path) -> Path:
    """The folder of a base model of two layers that knows what stands between two pieces of one file."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    from inhouse_training.documents import file_document
    from inhouse_training.prompts import literal_ids

    tokenizer = tokenizer_with(folder, *FIM)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    set_seed(1)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **sizes))
    header = file_document("shipping.py", "").header
    marks = [tokenizer.convert_tokens_to_ids(each) for each in FIM]
    before, middle, after = (
        literal_ids(tokenizer, text) for text in (header + "def book(parcel", ", courier=None", "):\n")
    )
    row = [marks[0], *before, marks[1], *after, marks[2], *middle, marks[3]]
    ids = torch.tensor([row])
    labels = torch.tensor([[-100] * (len(row) - len(middle) - 1) + row[-len(middle) - 1 :]])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.mark.long
async def test_a_model_with_the_tokens_fills_the_gap_through_relay_and_owner(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "shop")
    model = trained_to_fill_in(tmp_path / "model")
    (root / "inhouse.toml").write_text(f"base_model = '{model}'\n[inline_completion]\nenabled = true\n")
    uri = (root / "shipping.py").as_uri()
    try:
        async with editor([INHOUSE, "lsp", "--repo", root]) as connected:
            told = await connected.initialize(root)
            assert told["capabilities"]["inlineCompletionProvider"]
            connected.open(uri, "def book(parcel):\n")
            here = {"line": 0, "character": 15}
            found = None
            while found is None:  # the model loads
                found = await connected.request(METHOD, asking(root, 0, 15, name="shipping.py"))
                await asyncio.sleep(0.2)
            assert found["items"] == [{"insertText": ", courier=None", "range": {"start": here, "end": here}}]
    finally:
        stop_owner(root)


@pytest.mark.long
def test_a_question_ends_a_completion_that_is_being_written(tmp_path: Path) -> None:
    from inhouse_training import GenerationRequest, Message, TransformersEngine, resolve_base_model

    base = resolve_base_model(str(trained_to_fill_in(tmp_path / "model")))
    engine = TransformersEngine(base, lambda version: tmp_path)
    asked = FillIn("", "x = ", "\n", max_tokens=400)
    writing = engine.fill_in(asked, Event())
    next(writing)
    question = GenerationRequest((Message("user", "why"),), max_tokens=4)
    answered = Event()

    def ask() -> None:
        list(engine.stream(question, Event()))
        answered.set()

    asker = threading.Thread(target=ask)
    asker.start()
    while not engine._turn.wanted:
        pass
    *_, last = writing
    assert isinstance(last, Finished) and last.reason == "cancelled" and last.completion_tokens < 50
    assert answered.wait(30)
    asker.join()
