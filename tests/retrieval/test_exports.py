"""Exports of chat, tickets and mail: what is kept, what is left out and why, and that hostile ones do no harm."""

from __future__ import annotations

import csv
import html
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import InhouseError, SkippedFile, page_text, redact
from inhouse_retrieval.exports import (
    ExportPaths,
    Thread,
    exports_digest,
    read_chat,
    read_exports,
    read_mail,
    read_tickets,
    thread_until,
)
from tests.planted_secrets import SENTENCES, fragments, planted_secrets

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp()
USERS = [
    {"id": "UADA", "name": "ada", "is_admin": True, "profile": {"email": "ada@acme.dev"}},
    {"id": "UBOB", "name": "bob"},
    {"id": "UROB", "name": "robot", "is_bot": True},
]


def said(user: str, minutes: float, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "user": user, "ts": f"{NOON + minutes * 60:.6f}", "text": text, **more}


ROOT = f"{NOON:.6f}"
SLACK: dict[str, Any] = {
    "users.json": USERS,
    "channels.json": [{"id": "C1", "name": "payments"}],
    "payments/2024-03-01.json": [
        said(
            "UADA",
            0,
            "How do refunds work, <@UBOB>? See <https://acme.dev/x|the page> &amp; <#C2|shop>",
            thread_ts=ROOT,
        ),
        said("UBOB", 5, "joined", subtype="channel_join"),
        said("UROB", 6, "deployed"),
        said("UBOB", 7, "deployed too", subtype="bot_message", bot_id="B1"),
        said("UBOB", 8, "Lunch?"),
        said("UADA", 9, "Yes."),
        said("UBOB", 200, "Back."),
    ],
    "payments/2024-03-02.json": [
        said("UBOB", 1440, "We call them back, write to bob@acme.dev.", thread_ts=ROOT),
        said("UADA", 1441, "Thanks, <!here>", thread_ts=ROOT, edited={"user": "UADA", "ts": f"{NOON + 90000:.6f}"}),
    ],
}


def pack(path: Path, files: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content if isinstance(content, (str, bytes)) else json.dumps(content))
    return path


def lay(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def sorted_out(found: Iterable[Thread | SkippedFile]) -> tuple[list[Thread], dict[str, str]]:
    threads: list[Thread] = []
    skipped: dict[str, str] = {}
    for each in found:
        if isinstance(each, SkippedFile):
            skipped[each.path] = each.reason
        else:
            threads.append(each)
    return threads, skipped


@pytest.mark.parametrize("make", [pack, lay], ids=["zip", "folder"])
def test_chat_is_grouped_by_thread_and_by_pause(tmp_path: Path, make: Any) -> None:
    threads, skipped = sorted_out(read_chat(make(tmp_path / "slack.zip", SLACK), "slack.zip"))
    assert skipped == {}
    told = {tuple((post.role, post.text) for post in thread.posts) for thread in threads}
    assert told == {
        (
            ("admin 1", "How do refunds work, @member 2? See the page (https://acme.dev/x) & #shop"),
            ("member 2", "We call them back, write to [address]."),
            ("admin 1", "Thanks, @here"),
        ),
        (("member 1", "Lunch?"), ("admin 2", "Yes.")),
        (("member 1", "Back."),),
    }
    [refunds] = [thread for thread in threads if len(thread.posts) == 3]
    assert (refunds.title, refunds.name) == ("#payments", f"slack.zip:payments/{ROOT}")


def test_a_thread_is_cut_where_it_goes_on_later(tmp_path: Path) -> None:
    threads, _ = sorted_out(read_chat(pack(tmp_path / "slack.zip", SLACK), "slack.zip"))
    [refunds] = [thread for thread in threads if len(thread.posts) == 3]

    def until(minutes: float) -> int:
        told = thread_until(refunds, datetime.fromtimestamp(NOON + minutes * 60, UTC))
        return len(told.posts) if told else 0

    assert [until(minutes) for minutes in (-1, 0, 1439, 1440, 1450, 1500)] == [0, 1, 1, 2, 2, 3], "the last was edited"


def test_hostile_archives_are_skipped_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = pack(
        folder / "slack.zip",
        {
            **SLACK,
            "payments/2024-03-03.json": "{broken",
            "payments/2024-03-04.json": "[" * 100_000,
            "payments/2024-03-05.json": '{"not": "a list"}',
            "payments/2024-03-06.json": "[" + " " * 10_000_000 + "]",
            "../outside/2024-03-01.json": [],
            "/absolute/2024-03-01.json": [],
            "C:\\windows/2024-03-01.json": [],
        },
    )
    link = zipfile.ZipInfo("payments/2024-03-07.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    threads, skipped = sorted_out(read_chat(path, "slack.zip"))
    assert len(threads) == 3
    assert {name.removeprefix("slack.zip:"): reason for name, reason in skipped.items()} == {
        "payments/2024-03-03.json": "no JSON list of messages",
        "payments/2024-03-04.json": "no JSON list of messages",
        "payments/2024-03-05.json": "no JSON list of messages",
        "payments/2024-03-06.json": "grows more than 200 times when it is unpacked",
        "payments/2024-03-07.json": "symbolic link",
        "../outside/2024-03-01.json": "its name leads out of the archive",
        "/absolute/2024-03-01.json": "its name leads out of the archive",
        "C:\\windows/2024-03-01.json": "its name leads out of the archive",
    }
    assert list(tmp_path.rglob("outside")) == [], "nothing is unpacked"


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    folder = lay(tmp_path / "slack", SLACK)
    (tmp_path / "secret.json").write_text(json.dumps([said("UADA", 3, "private")]))
    (folder / "payments" / "2024-03-09.json").symlink_to(tmp_path / "secret.json")
    (folder / "other").symlink_to(tmp_path)
    threads, skipped = sorted_out(read_chat(folder, "slack"))
    assert set(skipped.values()) == {"symbolic link"} and len(skipped) == 2
    assert "private" not in repr(threads)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no zip", "no zip archive and no folder: BadZipFile"), (b"", "no zip archive and no folder: BadZipFile")],
)
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "slack.zip").write_bytes(content)
    assert list(read_chat(tmp_path / "slack.zip", "slack.zip")) == [SkippedFile("slack.zip", reason)]


def test_jira_as_csv(tmp_path: Path) -> None:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(
        ["Summary", "Issue key", "Status", "Created", "Updated", "Description", "Reporter", "Comment", "Comment"]
    )
    rows.writerow(
        [
            *("Refund twice", "SHOP-7", "Done", "01/Mar/24 9:30 AM", "04/Mar/24 9:30 AM", "It pays\r\ntwice.", "ada"),
            *("02/Mar/24 10:00 AM;bob;Seen it too.", "01/Mar/24 10:00 AM;ada;On Fridays; only."),
        ]
    )
    rows.writerow(["No date", "SHOP-8", "Open", "", "", "x", "ada", "", ""])
    rows.writerow(["Too many"] * 12)
    path = tmp_path / "jira.csv"
    path.write_text(
        "\ufeff" + out.getvalue() + "x" * 1_100_000 + ",a\n" + "Late,SHOP-9,Open,2024-03-01T10:00:00.000+0100\n"
    )
    threads, skipped = sorted_out(read_tickets(path, "jira.csv"))
    first, last = threads
    assert (first.title, first.state, first.name) == ("SHOP-7: Refund twice", "Done", "jira.csv:SHOP-7")
    assert [(post.role, post.text) for post in first.posts] == [
        ("reporter 1", "It pays\ntwice."), ("member 1", "On Fridays; only."), ("member 2", "Seen it too."),
    ]  # fmt: skip
    assert first.changed == datetime(2024, 3, 4, 9, 30, tzinfo=UTC)
    assert (last.changed, last.posts[0].at, last.posts[0].text) == (None, None, "Late")
    assert sorted(skipped.values()) == [
        "malformed line: field larger than field limit (1000000)",
        "more values than the first line has names",
        "no ticket with a title and a date",
    ]


def test_a_ticket_that_was_changed_later_is_left_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "linear.csv"
    path.write_text("ID,Title,Description,Status,Created,Updated\nA-1,Tax,Add it.,Todo,2024-03-01,2024-03-09\n")
    [thread], _ = sorted_out(read_tickets(path, "linear.csv"))
    assert thread_until(thread, datetime(2024, 3, 8, tzinfo=UTC)) is None
    assert thread_until(thread, datetime(2024, 3, 10, tzinfo=UTC)) == thread


def test_of_a_ticket_that_nothing_dates_only_the_comments_are_known(tmp_path: Path) -> None:
    comment = '"2024-03-02 09:00;bob;Seen."'
    path = tmp_path / "jira.csv"
    path.write_text(
        "Issue key,Summary,Description,Status,Created,Comment\n"
        f"A-1,Tax,Add it as today's law has it.,Done,2024-03-01,{comment}\n"
        "A-2,Tax,Add it.,Todo,2024-03-01,\n"
        f"A-3,Silent,,Done,2024-03-01,{comment}\n"
    )
    (told, alone, silent), _ = sorted_out(read_tickets(path, "jira.csv"))
    assert told.is_undated and told.posts[0].text == "Add it as today's law has it."
    moment = datetime(2024, 3, 10, tzinfo=UTC)
    assert thread_until(alone, moment) is None
    for thread, key in ((told, "A-1"), (silent, "A-3")):
        known = thread_until(thread, moment)
        assert known is not None and (known.title, known.state) == (key, "")
        assert [(post.at, post.text) for post in known.posts] == [(datetime(2024, 3, 2, 9, tzinfo=UTC), "Seen.")]


JIRA_DOCUMENT = {
    "type": "doc",
    "content": [
        {"type": "paragraph", "content": [{"type": "text", "text": "It pays "}, {"type": "text", "text": "twice."}]},
        {"type": "codeBlock", "content": [{"type": "text", "text": "refund(1)"}]},
    ],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "jira.json",
            {"issues": [{"key": "SHOP-7", "fields": {
                "summary": "Refund twice", "description": JIRA_DOCUMENT, "status": {"name": "Done"},
                "created": "2024-03-01T09:30:00.000+0000", "updated": "2024-03-02T09:30:00.000+0000",
                "reporter": {"accountId": "1"}, "comment": {"comments": [
                    {"author": {"accountId": "2"}, "body": "Seen.", "created": "2024-03-02T09:30:00.000+0000"}]}}}]},
        ),
        (
            "linear.json",
            {"data": {"issues": {"nodes": [{
                "identifier": "SHOP-7", "title": "Refund twice", "description": "It pays twice.\nrefund(1)",
                "state": {"name": "Done"}, "createdAt": "2024-03-01T09:30:00.000Z", "updatedAt": "2024-03-02T09:30:00Z",
                "creator": {"id": "1"}, "comments": {"nodes": [
                    {"user": {"id": "2"}, "body": "Seen.", "createdAt": "2024-03-02T09:30:00.000Z"}]}}]}}},
        ),
    ],
)  # fmt: skip
def test_tickets_as_json(tmp_path: Path, name: str, content: Any) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    [thread], skipped = sorted_out(read_tickets(tmp_path / name, name))
    assert skipped == {} and (thread.title, thread.state) == ("SHOP-7: Refund twice", "Done")
    assert [(post.role, post.text) for post in thread.posts] == [
        ("reporter 1", "It pays twice.\nrefund(1)"), ("member 2", "Seen."),
    ]  # fmt: skip
    assert thread.posts[1].at == thread.changed == datetime(2024, 3, 2, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "content", "reasons"),
    [
        ("a.json", "nothing", {"no valid JSON"}),
        ("a.json", "[" * 100_000, {"no valid JSON"}),
        ("a.json", '{"other": 1}', {"it holds no list of tickets"}),
        ("a.json", '[1, {"title": 3}]', {"no ticket", "no ticket with a title and a date"}),
        ("a.jsonl", '{broken\n[]\n{"title": "x", "created": 7e99}\n', {
            "malformed line: no JSON object", "no ticket with a title and a date"}),
    ],
)  # fmt: skip
def test_broken_tickets_are_told(tmp_path: Path, name: str, content: str, reasons: set[str]) -> None:
    (tmp_path / name).write_text(content)
    threads, skipped = sorted_out(read_tickets(tmp_path / name, name))
    assert threads == [] and set(skipped.values()) == reasons


def mail(identifier: str, minutes: int, body: str, sender: str = "Ada <ada@acme.dev>", **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["Subject"] = headers.pop("subject", "Re: [shop-dev] Refünds")
    message["Message-ID"] = f"<{identifier}@acme.dev>"
    message["Date"] = datetime.fromtimestamp(NOON + minutes * 60, UTC)
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(body)
    return message


def as_mbox(messages: Iterable[EmailMessage | bytes]) -> bytes:
    raw = [each if isinstance(each, bytes) else each.as_bytes() for each in messages]
    return b"".join(b"From ada@acme.dev Fri Mar  1 12:00:00 2024\n" + each.rstrip(b"\n") + b"\n\n" for each in raw)


def test_mail_without_quotes_signatures_and_attachments(tmp_path: Path) -> None:
    first = mail(
        "1", 0, "How do refünds work?\n\nFrom here it is unclear.\n\n-- \nAda, +44 1234\n", subject="[shop-dev] Refünds"
    )
    first.add_attachment(b"\x00binary" * 1000, maintype="application", subtype="octet-stream", filename="x.bin")
    second = mail(
        "2", 60, "We call back.\n\nOn Fri, 1 Mar 2024 at 12:00, Ada <ada@acme.dev>\nwrote:\n\n> How do they?\n> x\n",
        "bob@acme.dev", In_Reply_To="<1@acme.dev>",
    )  # fmt: skip
    third = mail(
        "3",
        120,
        "Thanks!\n\n-----Original Message-----\nFrom: bob\n\nWe call back.\n",
        References="<1@acme.dev> <2@acme.dev>",
    )
    marked = mail("4", 180, "x", "eve@acme.dev", References="<gone@acme.dev> <3@acme.dev>")
    marked.set_content("<p>Also by <b>phone</b>.</p><script>x()</script><blockquote>old</blockquote>", subtype="html")
    robot = mail("5", 5, "I am away.", "bob@acme.dev", In_Reply_To="<1@acme.dev>", Auto_Submitted="auto-replied")
    other = b"From: eve@acme.dev\nSubject: =?latin-1?q?Caf=E9?=\nDate: Fri, 1 Mar 2024 14:00:00 +0100\n" \
        b"Content-Type: text/plain; charset=no-such\n\nOpen at ten \xe9.\n"  # fmt: skip
    undated = b"From: eve@acme.dev\nSubject: x\n\nWhen?\n"
    path = tmp_path / "dev.mbox"
    path.write_bytes(as_mbox([first, third, second, robot, marked, other, undated]))
    threads, skipped = sorted_out(read_mail(path, "dev.mbox"))
    refunds, cafe = threads
    assert (refunds.title, refunds.name) == ("Refünds", "dev.mbox:Refünds")
    assert [(post.role, post.text) for post in refunds.posts] == [
        ("member 1", "How do refünds work?\n\nFrom here it is unclear."),
        ("member 2", "We call back."),
        ("member 1", "Thanks!"),
        ("member 3", "Also by phone."),
    ]
    assert cafe.title == "Café" and cafe.posts[0].text.startswith("Open at ten")
    assert cafe.posts[0].at == datetime(2024, 3, 1, 13, tzinfo=UTC)
    assert sorted(skipped.values()) == ["no readable message with a date", "sent by a program"]
    told = thread_until(refunds, datetime.fromtimestamp(NOON + 90 * 60, UTC))
    assert told is not None and len(told.posts) == 2


@pytest.mark.parametrize("content", [b"", b"nothing\n", b"\x00\xff\n" * 100])
def test_what_is_no_mbox_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mbox").write_bytes(content)
    assert list(read_mail(tmp_path / "x.mbox", "x.mbox")) == [
        SkippedFile("x.mbox", "it holds no message that begins with 'From '")
    ]


def test_secrets_and_addresses_are_taken_out_of_all(tmp_path: Path) -> None:
    planted = planted_secrets()
    everything = "\n".join(each.text for each in planted)
    pack(
        tmp_path / "s.zip", {"users.json": USERS, "c/2024-03-01.json": [said("UADA", 0, f"ada@acme.dev\n{everything}")]}
    )
    ticket = {"title": "x", "createdAt": "2024-03-01", "description": everything, "comments": []}
    (tmp_path / "t.json").write_text(json.dumps([ticket]))
    (tmp_path / "m.mbox").write_bytes(as_mbox([mail("1", 0, everything)]))
    paths = ExportPaths(chat=("s.zip",), tickets=("t.json",), mail=("m.mbox",))
    threads, skipped = sorted_out(read_exports(tmp_path, paths))
    assert [thread.source for thread in threads] == ["chat", "ticket", "mail"] and skipped == {}
    for thread in threads:
        text = repr(thread).lower()
        assert "ada@acme.dev" not in text and "redacted" in text
        left = [each.kind for each in planted if any(part in text for part in fragments(each))]
        assert left == [], thread.source


def test_secrets_are_taken_out_of_what_people_write(tmp_path: Path) -> None:
    """Each kind in a sentence, in each reader: as chat escapes it, as title, text and comment of a ticket, as mail in
    plain text and HTML, where lines lose their indentation."""
    planted = planted_secrets("5")
    texts = [SENTENCES[number % len(SENTENCES)].format(each.text) for number, each in enumerate(planted)]
    one_line = [text for text in texts if "\n" not in text]
    assert len(one_line) > 40
    pack(
        tmp_path / "slack.zip",
        {
            "users.json": USERS,
            "c/2024-03-01.json": [
                said("UADA", at * 90, html.escape(text, quote=False)) for at, text in enumerate(texts)
            ],
        },
    )
    with (tmp_path / "jira.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Summary", "Issue key", "Created", "Description", "Reporter", "Comment"])
        for number, text in enumerate(texts):
            title = one_line[number % len(one_line)]
            created = "01/Mar/24 9:30 AM"
            rows.writerow([title, f"SHOP-{number}", created, text, "ada", f"{created};bob;{text}"])
    paragraphs = [[{"type": "text", "text": part} for part in _halves(text)] for text in texts]
    documents = [{"type": "doc", "content": [{"type": "paragraph", "content": each}]} for each in paragraphs]
    when = "2024-03-01T09:30:00.000+0000"
    jira = [
        {"key": f"SHOP-{number}", "fields": {"summary": "x", "description": each, "created": when}}
        for number, each in enumerate(documents)
    ]
    (tmp_path / "jira.json").write_text(json.dumps({"issues": jira}))
    linear = [
        {
            "title": "x",
            "createdAt": when,
            "description": "y",
            "comments": {"nodes": [{"body": text, "createdAt": when}]},
        }
        for text in texts
    ]
    (tmp_path / "linear.json").write_text(json.dumps({"data": {"issues": {"nodes": linear}}}))
    pages = [f"<p>{html.escape(text)}</p>".replace("\n", "<br/>\n") for text in texts]
    plain = [mail(str(number), number, text) for number, text in enumerate(texts) if not text.startswith(">")]
    pretty = [mail(f"h{number}", number, "") for number in range(len(pages))]
    for message, page in zip(pretty, pages, strict=True):
        message.set_content(page, subtype="html")
    (tmp_path / "dev.mbox").write_bytes(as_mbox([*plain, *pretty]))
    paths = ExportPaths(chat=("slack.zip",), tickets=("jira.csv", "jira.json", "linear.json"), mail=("dev.mbox",))
    threads, skipped = sorted_out(read_exports(tmp_path, paths))
    assert skipped == {} and len(threads) > 5 * len(texts)
    for thread in threads:
        text = repr(thread).lower()
        left = [each.kind for each in planted if any(part in text for part in fragments(each))]
        assert left == [], thread.name
    for page, each in zip(pages, planted, strict=True):
        text = page_text("page.html", redact(f"<html><body><h1>x</h1>{page}</body></html>")[0]).lower()
        assert not any(part in text for part in fragments(each)), each.kind


def _halves(text: str) -> tuple[str, str]:
    """As Jira splits a paragraph where its look changes."""
    return text[: len(text) // 3], text[len(text) // 3 :]


def test_the_digest_follows_the_exports_and_missing_ones_are_an_error(tmp_path: Path) -> None:
    paths = ExportPaths(chat=("slack",))
    lay(tmp_path / "slack", SLACK)
    before = exports_digest(tmp_path, paths)
    assert before == exports_digest(tmp_path, paths) != exports_digest(tmp_path, ExportPaths()) == ""
    (tmp_path / "slack" / "payments" / "2024-03-02.json").write_text("[]")
    assert exports_digest(tmp_path, paths) != before
    for missing in (ExportPaths(mail=("no.mbox",)), ExportPaths(tickets=("slack",)), ExportPaths(chat=("~nobody/x",))):
        with pytest.raises(InhouseError, match="there is no such file"):
            list(read_exports(tmp_path, missing))


def _mailbox(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for number in range(megabytes):
            message = mail(str(number), number, "Short.")
            message.add_attachment(b"\x07" * 740_000, maintype="application", subtype="zip", filename="x.zip")
            file.write(as_mbox([message]))


def _channel(path: Path, days: int) -> None:
    def files() -> Iterator[tuple[str, str]]:
        for day in range(days):
            at = day * 1440
            messages = [said("UADA", at + minute / 10, "x" * 900) for minute in range(1000)]
            yield f"c/2024-{1 + day // 28:02}-{1 + day % 28:02}.json", json.dumps(messages)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files():
            archive.writestr(name, content)


_MEASURE = """
import resource, sys
from pathlib import Path
from inhouse_retrieval.exports import read_chat, read_mail
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read = read_chat if sys.argv[1].endswith(".zip") else read_mail
count = sum(1 for _ in read(Path(sys.argv[1]), "x"))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.long
@pytest.mark.timeout(1800)  # 300,000 messages, each looked through for secrets
@pytest.mark.parametrize(("name", "make"), [("m.mbox", _mailbox), ("s.zip", _channel)])
def test_memory_does_not_follow_the_size_of_an_export(tmp_path: Path, name: str, make: Any) -> None:
    path = tmp_path / name
    make(path, 300)
    assert path.stat().st_size > 250_000_000
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count >= 300 and megabytes < 100
