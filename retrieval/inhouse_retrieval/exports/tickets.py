"""Tickets: an export of Jira or Linear, as CSV or JSON.

Known by their fields: Jira's CSV (which names a column several times for several values, a comment being
``date;author;text``), Jira's JSON (``issues`` with ``fields``; text may be a document of nodes), Linear's CSV and JSON.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from inhouse_retrieval.exports.archive import MAX_BYTES
from inhouse_retrieval.exports.thread import People, Post, Thread, cleaned, one_line, read_moment, with_text
from inhouse_retrieval.snapshot import SkippedFile

_TITLE = ("summary", "title", "name")
_KEY = ("issue key", "key", "identifier", "id")
_TEXT = ("description", "body")
_STATE = ("status", "state")
_CREATED = ("created", "createdat", "created at", "date created")
_CHANGED = ("updated", "updatedat", "updated at")
_AUTHOR = ("reporter", "creator", "author", "user")
_COMMENTS = ("comment", "comments")
_LIST_KEYS = ("issues", "nodes", "items", "data")
_COMMENT = re.compile(r"(?P<at>[^;\n]{6,40});(?P<who>[^;\n]{0,200});(?P<text>.*)", re.S)
_MAX_FIELD = 1_000_000
_MAX_DEPTH = 40


def read_tickets(path: Path, shown: str) -> Iterator[Thread | SkippedFile]:
    """The tickets of an export, in its order. CSV and JSON lines are read line by line, other JSON as a whole.

    Args:
        shown: what the export is called in names and reasons.
    """
    try:
        if path.suffix.lower() == ".csv":
            tickets = _csv_tickets(path, shown)
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            tickets = _json_lines(path, shown)
        else:
            tickets = _json_tickets(path, shown)
        for place, ticket in tickets:
            if isinstance(ticket, SkippedFile):
                yield ticket
                continue
            thread = _thread(ticket, shown)
            yield thread or SkippedFile(f"{shown}:{place}", "no ticket with a title and a date")
    except (OSError, UnicodeError) as error:
        yield SkippedFile(shown, f"cannot be read: {type(error).__name__}")


Found = Iterator[tuple[str, dict[str, Any] | SkippedFile]]
"""A place in the file, and the fields that stand there, by their names in small letters."""


def _csv_tickets(path: Path, shown: str) -> Found:
    csv.field_size_limit(_MAX_FIELD)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        names: list[str] = []
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield "", SkippedFile(f"{shown}:{rows.line_num}", f"malformed line: {error}")
                continue
            if not names:
                names = [name.strip().lower() for name in row]
            elif len(row) > len(names):
                yield "", SkippedFile(f"{shown}:{rows.line_num}", "more values than the first line has names")
            else:
                yield str(rows.line_num), _fields(names, row)


def _fields(names: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    comments: list[str] = []
    for name, value in zip(names, row, strict=False):
        if value and name in _COMMENTS:
            comments.append(value)
        elif value:
            fields.setdefault(name, value)
    return {**fields, "comments": comments}


def _json_lines(path: Path, shown: str) -> Found:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_BYTES):
            number += 1
            if line.strip():
                yield str(number), _object(line) or SkippedFile(f"{shown}:{number}", "malformed line: no JSON object")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _small_names(told) if isinstance(told, dict) else None


def _json_tickets(path: Path, shown: str) -> Found:
    if path.stat().st_size > MAX_BYTES:
        yield "", SkippedFile(shown, f"larger than {MAX_BYTES // 1_000_000} MB: export as CSV or as JSON lines")
        return
    try:
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        yield "", SkippedFile(shown, "no valid JSON")
        return
    while isinstance(told, dict):  # {"data": {"issues": {"nodes": […]}}}
        told = next((told[key] for key in _LIST_KEYS if key in told), None)
    if not isinstance(told, list):
        yield "", SkippedFile(shown, "it holds no list of tickets")
        return
    for number, ticket in enumerate(told, start=1):
        is_ticket = isinstance(ticket, dict)
        yield str(number), _small_names(ticket) if is_ticket else SkippedFile(f"{shown}:{number}", "no ticket")


def _small_names(ticket: Mapping[str, Any]) -> dict[str, Any]:
    fields = ticket.get("fields")
    whole = {**ticket, **fields} if isinstance(fields, dict) else ticket
    return {str(name).lower(): value for name, value in whole.items()}


def _thread(ticket: Mapping[str, Any], shown: str) -> Thread | None:
    people = People()
    title, key = one_line(_plain(_first(ticket, _TITLE))), one_line(_plain(_first(ticket, _KEY)))
    created = read_moment(_first(ticket, _CREATED))
    if not title or created is None:
        return None
    changed = read_moment(_first(ticket, _CHANGED))
    written = created if changed is not None else None
    reporter = people.role(_person(_first(ticket, _AUTHOR)), "reporter")
    comments = [post for _, post in sorted(_comments(_first(ticket, _COMMENTS), people), key=itemgetter(0))]
    told = with_text([Post(reporter, written, _text(_first(ticket, _TEXT))), *comments])
    told = told or (Post(reporter, written, title),)
    name, state = f"{shown}:{key or title}", one_line(_plain(_first(ticket, _STATE)))
    return Thread("ticket", name, f"{key}: {title}" if key else title, told, state, changed, key)


def _comments(told: Any, people: People) -> Iterator[tuple[datetime, Post]]:
    if isinstance(told, dict):
        told = next((told[key] for key in ("comments", "nodes") if key in told), [])
    for comment in told if isinstance(told, list) else []:
        if isinstance(comment, str):
            if (match := _COMMENT.fullmatch(comment)) and (at := read_moment(match["at"])):
                yield at, Post(people.role(match["who"]), at, _text(match["text"]))
        elif isinstance(comment, dict):
            fields = _small_names(comment)
            at = _latest(fields)
            if at is not None:
                yield at, Post(people.role(_person(_first(fields, _AUTHOR))), at, _text(_first(fields, _TEXT)))


def _latest(fields: Mapping[str, Any]) -> datetime | None:
    moments = [read_moment(_first(fields, names)) for names in (_CREATED, _CHANGED, ("editedat",))]
    return max((moment for moment in moments if moment is not None), default=None)


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name)), None)


def _person(told: Any) -> str:
    """Whatever tells people apart; it is not kept."""
    if isinstance(told, dict):
        return str(
            next((told[key] for key in ("accountId", "id", "emailAddress", "name", "displayName") if key in told), "")
        )
    return str(told or "")


def _text(told: Any) -> str:
    return cleaned(_plain(told))


def _plain(told: Any, depth: int = 0) -> str:
    """A text; of a status its name; of an Atlassian document (``{"type": "doc", "content": […]}``) its paragraphs."""
    if isinstance(told, list):
        return "".join(_plain(part, depth + 1) for part in told) if depth < _MAX_DEPTH else ""
    if isinstance(told, dict):
        if isinstance(told.get("name"), str):
            return str(told["name"])
        ends = "\n" if told.get("type") in ("paragraph", "heading", "codeBlock", "listItem", "hardBreak") else ""
        return (
            _plain(told.get("text"), depth + 1) + _plain(told.get("content"), depth + 1) if depth < _MAX_DEPTH else ""
        ) + ends
    return str(told) if isinstance(told, (str, int)) else ""
