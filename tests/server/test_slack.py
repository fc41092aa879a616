"""The Slack bot, against Slack's Web API and Socket Mode (``slack_double.py``)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from slack_sdk import WebClient

from inhouse_retrieval import InhouseError
from inhouse_server.cli import main
from inhouse_server.slack.bot import Allowed, Bot
from inhouse_server.slack.text import LONGEST, answer_blocks, escaped, inert, read

from .house import INHOUSE, stop_owner
from .house import make_repository as make_house
from .slack_double import APP_TOKEN, BOT_TOKEN, ME, SlackDouble, workspace
from .speaker import speaking

CHANNEL = "C0SHOP"
PROVENANCE = {"base_model": "tiny", "adapter": "abc", "index_commit": "0123456789abcdef", "pending": 0}


class House:
    """Answers ``answer``, a word at a time; with ``waits`` it goes on until it is cancelled."""

    def __init__(self) -> None:
        self.answer, self.waits = "Couriers come at noon.", False
        self.error: Exception | None = None
        self.asked: list[tuple[str, list[dict[str, str]]]] = []
        self.speaking = Event()

    def __call__(
        self, question: str, history: Sequence[dict[str, str]], cancel: Event
    ) -> Iterator[str | dict[str, Any]]:
        self.asked.append((question, list(history)))
        if self.error:
            raise self.error
        for word in self.answer.split(" "):
            yield word + " "
        self.speaking.set()
        if self.waits:
            cancel.wait(10)
            return
        cited = [{"path": "shipping.py", "start_line": 4, "end_line": 6}]
        yield {"answer": self.answer, "citations": cited, "notes": ["1 changed file."], "provenance": PROVENANCE}


@pytest.fixture
def slack() -> Iterator[SlackDouble]:
    with workspace() as double:
        yield double


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def bot(slack: SlackDouble, house: House) -> Bot:
    web = WebClient(token=BOT_TOKEN, base_url=slack.url)
    return Bot(web, ME, Allowed(frozenset({CHANNEL}), frozenset()), house, every_s=0.0)


def mention(slack: SlackDouble, text: str, **more: Any) -> dict[str, Any]:
    return slack.say(CHANNEL, f"<@{ME}> {text}", **more) | {"type": "app_mention"}


def shown(message: dict[str, Any]) -> str:
    blocks = message["blocks"]
    blocks = json.loads(blocks) if isinstance(blocks, str) else blocks
    return "".join(part["text"] for block in blocks for each in block["elements"] for part in each["elements"])


def test_a_mention_is_answered_in_its_thread_with_sources_and_what_produced_it(
    slack: SlackDouble, bot: Bot, house: House
) -> None:
    asked = mention(slack, "when do couriers come &amp; go?")
    bot.hear(asked)
    assert house.asked == [("when do couriers come & go?", [])]
    question, answer = slack.threads[CHANNEL, asked["ts"]]
    assert answer["thread_ts"] == question["ts"] and answer["text"] == "Couriers come at noon."
    assert shown(answer) == (
        "Couriers come at noon.\nSources:\nshipping.py:4-6\n1 changed file.\n"
        "Answered by tiny with adapter abc, index at 0123456789ab."
    )
    edits = [each["text"] for each in slack.called("chat.update")]
    assert edits[:2] == ["Couriers ", "Couriers come "], "it is edited while it streams"
    assert all(each["parse"] == "none" for each in slack.called("chat.update"))
    bot.hear(asked)  # Slack sends again what it thinks was lost
    assert len(house.asked) == 1


def test_a_thread_is_the_conversation_so_far_all_pages_of_it(slack: SlackDouble, bot: Bot, house: House) -> None:
    slack.page = 2
    root = mention(slack, "when do couriers come?")
    bot.hear(root)
    for text in ("I ask because", "of &lt;parcels&gt;"):
        slack.say(CHANNEL, text, thread=root["ts"], user="U0GRACE")
    bot.hear(slack.say(CHANNEL, "and on Sundays?", thread=root["ts"]))
    question, history = house.asked[-1]
    assert question == "and on Sundays?"
    assert history == [
        {"role": "user", "content": "when do couriers come?"},
        {"role": "assistant", "content": "Couriers come at noon."},
        {"role": "user", "content": "I ask because\nof <parcels>"},
    ]
    assert [call.get("cursor") for call in slack.called("conversations.replies")] == [None, "2", "4"]


def test_nobody_else_is_answered(slack: SlackDouble, bot: Bot, house: House) -> None:
    elsewhere = slack.say("C0OTHER", f"<@{ME}> hello") | {"type": "app_mention"}
    theirs = slack.say(CHANNEL, "lunch?")
    for event in (
        elsewhere,
        theirs,
        slack.say(CHANNEL, "yes", thread=theirs["ts"]),
        slack.say(CHANNEL, f"<@{ME}> twice", thread=theirs["ts"]),  # the mention comes as an event of its own
        mention(slack, "I am a bot", bot_id="B1"),
        mention(slack, "edited", subtype="message_changed"),
        mention(slack, "myself", user=ME),
        slack.say("D0ADA", "directly", channel_type="im"),
    ):
        bot.hear(event)
    assert house.asked == [] and slack.called("chat.postMessage") == []


def test_named_users_may_write_directly_and_in_named_channels_only_they(slack: SlackDouble, house: House) -> None:
    web = WebClient(token=BOT_TOKEN, base_url=slack.url)
    bot = Bot(web, ME, Allowed(frozenset({CHANNEL}), frozenset({"U0ADA"})), house, every_s=0.0)
    bot.hear(slack.say("D0ADA", "directly", channel_type="im"))
    bot.hear(slack.say("D0EVE", "directly", user="U0EVE", channel_type="im"))
    bot.hear(mention(slack, "from Eve", user="U0EVE"))
    bot.hear(mention(slack, "from Ada"))
    assert [question for question, _ in house.asked] == ["directly", "from Ada"]


@pytest.mark.parametrize(
    "text",
    [
        "<!channel> <!here> <!everyone> <@U0ADA> <#C0SHOP>",
        "<https://evil.example|your bank> https://evil.example/?q=secret www.evil.example mailto:a@evil.example",
        "![x](https://evil.example/x.png) [y](javascript:alert(1)) <img src=x>",
        "```\n<!channel> http://evil.example\n```",
        "@channel @here :boom: *bold* `code` &lt;!channel&gt;",
        "bell \x07 override \u202e zero \u200b",
    ],
)
def test_nothing_that_a_model_writes_acts(slack: SlackDouble, bot: Bot, house: House, text: str) -> None:
    house.answer = text
    bot.hear(mention(slack, "say that"))
    (_, answer) = next(iter(slack.threads.values()))
    # The double lets no element but plain text pass; of the notification's text, nothing is left to parse.
    for sent in slack.called("chat.update"):
        assert not {"<", ">"} & set(sent["text"])
        assert "&" not in sent["text"].replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
        for seen in (sent["text"], shown(sent)):
            assert not re.search(r"://|(www\.|mailto:)\S", seen)
            assert not {"\x07", "\u202e", "\u200b"} & set(seen)
    assert shown(answer).startswith(inert(text).removeprefix("```\n")[:10])


def test_code_is_set_apart_and_long_answers_are_cut() -> None:
    (block,) = answer_blocks("Do this:\n```python\nx = [1 < 2]\n```\nand " + "b" * 7000)
    kinds = [element["type"] for element in block["elements"]]
    assert kinds == ["rich_text_section", "rich_text_preformatted", *["rich_text_section"] * 3]
    assert block["elements"][1]["elements"][0]["text"] == "x = [1 < 2]"
    assert "cut" in shown({"blocks": answer_blocks("b" * (LONGEST + 1))})
    assert (
        escaped("a<b>&c") == "a&lt;b&gt;&amp;c" and read(f"<@{ME}> see <http://x|there> <@U1>", ME) == "see there @U1"
    )


def test_what_goes_wrong_is_said_in_the_thread_and_is_no_turn_of_it(slack: SlackDouble, bot: Bot, house: House) -> None:
    house.error = InhouseError("The index is broken.", "Run inhouse index.")
    asked = mention(slack, "why?")
    bot.hear(asked)
    answer = slack.threads[CHANNEL, asked["ts"]][1]
    assert answer["text"] == "Not answered: The index is broken. Run inhouse index."
    house.error = None
    slack.refuse["conversations.replies"] = [("missing_scope", None)]
    bot.hear(mention(slack, "again", thread=asked["ts"]))
    assert "missing_scope" in shown(slack.threads[CHANNEL, asked["ts"]][3])
    bot.hear(mention(slack, "and again", thread=asked["ts"]))
    assert house.asked[-1][1][0] == {"role": "user", "content": "why?\nagain"}
    house.error = KeyError("a mistake")
    empty = mention(slack, "")
    bot.hear(empty)
    assert "there is no question" in slack.threads[CHANNEL, empty["ts"]][1]["text"]
    broken = mention(slack, "break")
    bot.hear(broken)
    assert "log says more" in slack.threads[CHANNEL, broken["ts"]][1]["text"]


def test_an_edit_that_slack_wants_later_waits_and_the_last_one_is_tried_again(slack: SlackDouble, house: House) -> None:
    web = WebClient(token=BOT_TOKEN, base_url=slack.url)
    bot = Bot(web, ME, Allowed(frozenset({CHANNEL}), frozenset()), house, every_s=0.0)
    slack.refuse["chat.update"] = [("ratelimited", 30)]
    asked = mention(slack, "when?")
    bot.hear(asked)
    assert [each["text"] for each in slack.called("chat.update")] == ["Couriers ", "Couriers come at noon."]
    slack.refuse["chat.update"] = [("ratelimited", 0)] * 6
    again = mention(slack, "when?")
    bot.hear(again)
    assert slack.threads[CHANNEL, again["ts"]][1]["text"] == "Couriers come at noon."
    slack.refuse["chat.update"] = [("message_not_found", None)]
    house.waits = True  # who deletes the message has no use for the rest
    gone = mention(slack, "when?")
    bot.hear(gone)


def test_stopping_ends_answers_and_says_so(slack: SlackDouble, bot: Bot, house: House) -> None:
    house.waits = True
    asked = mention(slack, "when?")
    answering = threading.Thread(target=bot.hear, args=(asked,))
    answering.start()
    assert house.speaking.wait(10)
    bot.stop()
    answering.join(5)
    assert not answering.is_alive()
    assert "the bot is stopping" in slack.threads[CHANNEL, asked["ts"]][1]["text"]
    bot.hear(mention(slack, "still there?"))
    assert len(house.asked) == 1


def start(root: Path, *, token: str = BOT_TOKEN) -> subprocess.Popen[str]:
    environment = {**os.environ, "SLACK_BOT_TOKEN": token, "SLACK_APP_TOKEN": APP_TOKEN}
    command = [INHOUSE, "slack", "--repo", root]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_what_is_missing_is_said_before_anything_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_house(tmp_path / "house")
    for name in ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert main(["slack", "--repo", str(root)]) == 1
    assert "Nobody may ask in Slack yet" in capsys.readouterr().err
    (root / "inhouse.toml").write_text("[slack]\nchannels = ['C0SHOP']\n")
    assert main(["slack", "--repo", str(root)]) == 1
    assert "SLACK_BOT_TOKEN is not set" in capsys.readouterr().err


@pytest.mark.long
def test_the_process_answers_over_socket_mode_comes_back_and_ends_promptly(tmp_path: Path, slack: SlackDouble) -> None:
    root = make_house(tmp_path / "house")
    with speaking() as speaker:
        (root / "inhouse.toml").write_text(
            f"[slack]\nchannels = ['{CHANNEL}']\nurl = '{slack.url}'\n"
            f"[engine]\nkind = 'openai'\nurl = 'http://127.0.0.1:{speaker.server_address[1]}/v1'\nmodel = 'm'\n"
        )
        refused = start(root, token="xoxb-wrong")
        assert refused.wait(60) == 1 and "invalid_auth" in refused.communicate()[1]
        process = start(root)
        try:
            assert slack.connected.wait(60)
            asked = mention(slack, "When do couriers come?")
            slack.send(asked)
            until(lambda: "no adapter" in told(slack, asked))
            assert slack.threads[CHANNEL, asked["ts"]][1]["text"] == "Couriers come at noon."
            assert slack.acknowledged == ["1"]
            slack.drop()
            assert slack.connected.wait(60), "it connects again"
            endless = mention(slack, "Speak without end.")
            slack.send(endless, "2")
            until(lambda: told(slack, endless) not in ("", "…"))
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            assert time.monotonic() - began < 20
            assert speaker.left.acquire(timeout=30), "the owner was hung up on, and stopped the model"
            assert "the bot is stopping" in slack.threads[CHANNEL, endless["ts"]][1]["text"]
        finally:
            process.kill()
            process.wait(30)
            stop_owner(root)


def told(slack: SlackDouble, asked: dict[str, Any]) -> str:
    """What the answer shows so far; empty when there is none."""
    messages = slack.threads[CHANNEL, asked["ts"]]
    return shown(messages[1]) if len(messages) > 1 else ""


def until(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
