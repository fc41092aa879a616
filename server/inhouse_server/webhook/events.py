"""What a delivery asks for. Of a payload, only numbers and a commit id go further."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from inhouse_retrieval.pull_requests.forge import Kind
from inhouse_server.review.posting.request import COMMIT

Command = Literal["review", "pause", "resume"]
COMMANDS: dict[str, Command] = {
    "/inhouse review": "review",
    "/inhouse pause": "pause",
    "/inhouse resume": "resume",
}
"""All that a comment can ask for. The whole comment must be one of these, letter by letter."""
_MEMBERS = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})
"""https://docs.github.com/graphql/reference/enums#commentauthorassociation"""
_MOST = 2**53


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something to do for one pull request.

    Attributes:
        head: its last commit; empty where the delivery does not say, as with a comment.
        command: why.
        member: the forge's number of the person who asks, whose membership is still to be asked for; 0 when there is
            nothing to ask.
    """

    number: int
    head: str
    command: Command
    member: int = 0


@dataclass(frozen=True, slots=True)
class Ignored:
    """A delivery with nothing to do, and why, for the forge's list of deliveries."""

    reason: str


def read_event(kind: Kind, project: str, event: str, payload: Any) -> Wanted | Ignored:
    """What ``payload`` asks for.

    Args:
        event: the forge's name of the event, from its header.

    Raises:
        LookupError, TypeError, ValueError: the payload is not one that the forge documents.
    """
    readers = _GITLAB if kind == "gitlab" else _GITHUB
    if event not in readers:
        return Ignored("not an event that asks for anything")
    named = payload["project"]["path_with_namespace"] if kind == "gitlab" else payload["repository"]["full_name"]
    if named.casefold() != project.strip("/").casefold():
        return Ignored("about another project")
    return readers[event](payload)


def _pull_request(payload: Any) -> Wanted | Ignored:
    pull = payload["pull_request"]
    if payload["action"] not in ("opened", "reopened", "synchronize", "ready_for_review"):
        return Ignored("nothing to review in that")
    if pull["state"] != "open" or pull.get("draft"):
        return Ignored("a draft" if pull.get("draft") else "not open")
    return Wanted(_number(pull["number"]), _commit(pull["head"]["sha"]), "review")


def _issue_comment(payload: Any) -> Wanted | Ignored:
    comment, issue = payload["comment"], payload["issue"]
    if payload["action"] != "created" or "pull_request" not in issue:
        return Ignored("no new comment on a pull request")
    command = _command(comment["body"])
    if command is None:
        return Ignored("no command")
    author, sender = comment["user"], payload["sender"]
    if author["type"] != "User" or author["id"] != sender["id"] or comment["author_association"] not in _MEMBERS:
        return Ignored("a command of somebody who is no member")
    return Wanted(_number(issue["number"]), "", command)


def _merge_request(payload: Any) -> Wanted | Ignored:
    about = payload["object_attributes"]
    draft = about.get("draft", about.get("work_in_progress", False))
    readied = _became_ready(payload.get("changes"))
    pushed = about["action"] == "update" and ("oldrev" in about or readied)
    if about["action"] not in ("open", "reopen") and not pushed:
        return Ignored("nothing to review in that")
    if about["state"] not in ("opened", "reopened") or draft:
        return Ignored("a draft" if draft else "not open")
    return Wanted(_number(about["iid"]), _commit(about["last_commit"]["id"]), "review")


def _became_ready(changes: Any) -> bool:
    draft = (changes or {}).get("draft")
    return isinstance(draft, dict) and draft.get("previous") is True and draft.get("current") is False


def _note(payload: Any) -> Wanted | Ignored:
    note = payload["object_attributes"]
    if note["noteable_type"] != "MergeRequest" or note.get("action", "create") != "create" or note.get("system"):
        return Ignored("no new comment on a merge request")
    command = _command(note["note"])
    if command is None:
        return Ignored("no command")
    if note["author_id"] != payload["user"]["id"]:
        return Ignored("a command of somebody else")
    # The payload does not say who is a member; the worker, which may ask, does.
    return Wanted(_number(payload["merge_request"]["iid"]), "", command, _number(note["author_id"]))


def _command(body: object) -> Command | None:
    return COMMANDS.get(body.strip(" \t\r\n")) if isinstance(body, str) else None


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MOST:
        raise ValueError("not a number of anything")
    return value


def _commit(value: object) -> str:
    if not isinstance(value, str) or re.fullmatch(COMMIT, value) is None:
        raise ValueError("not a commit")
    return value


_Reader = Callable[[Any], Wanted | Ignored]
_GITHUB: dict[str, _Reader] = {"pull_request": _pull_request, "issue_comment": _issue_comment}
_GITLAB: dict[str, _Reader] = {"Merge Request Hook": _merge_request, "Note Hook": _note}
