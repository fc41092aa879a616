"""Conversations that people wrote, as JSON lines in the format of the article and of hosted fine-tuning::

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}

A system turn may come first, and more questions and answers may follow. Every answer is learned.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError, redact

from .engine import Message

_REMEDY = 'A line looks like {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}.'


@dataclass(frozen=True, slots=True)
class WrittenConversation:
    """One conversation, redacted.

    Attributes:
        name: the file, relative to the repository, and the line: ``talks/style.jsonl:3``.
        messages: an optional system turn, then questions and answers in turn.
    """

    name: str
    messages: tuple[Message, ...]


def read_conversations(root: Path, patterns: Iterable[str]) -> tuple[WrittenConversation, ...]:
    """The conversations of all files that match, by file name and line; empty lines are passed over.

    Args:
        patterns: paths relative to ``root``, or absolute, with ``*``, ``?`` and ``**``.

    Raises:
        InhouseError: a pattern matches no file, a file cannot be read, or a line is not a conversation.
    """
    files: set[str] = set()
    for pattern in patterns:
        matched = _matching(root, pattern)
        if not matched:
            raise InhouseError(
                f"`conversations` names {pattern!r}, and there is no such file.",
                "Correct or remove it in inhouse.toml.",
            )
        files |= matched
    return tuple(conversation for path in sorted(files) for conversation in _read(Path(path), root))


def conversations_digest(conversations: Sequence[WrittenConversation]) -> str:
    """Changes when there is something else to learn; empty when there is nothing."""
    told = json.dumps([asdict(conversation) for conversation in conversations])
    return hashlib.sha256(told.encode()).hexdigest() if conversations else ""


def messages_json(messages: Iterable[Message]) -> str:
    """One line of the format."""
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    return json.dumps({"messages": turns}, ensure_ascii=False)


def _matching(root: Path, pattern: str) -> set[str]:
    try:
        whole = str(Path(pattern).expanduser())
    except RuntimeError:  # ~somebody, who is not there
        return set()
    # Path.glob takes no absolute pattern.
    found = glob.glob(whole, root_dir=root, recursive=True, include_hidden=True)  # noqa: PTH207
    return {os.path.realpath(root / path) for path in found if (root / path).is_file()}


def _read(path: Path, root: Path) -> Iterator[WrittenConversation]:
    name = os.path.relpath(path, os.path.realpath(root)).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield WrittenConversation(f"{name}:{number}", _messages(line, f"{name}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise InhouseError(f"The conversations in {name} cannot be read: {error}.", "It must be UTF-8 text.") from error


def _messages(line: str, where: str) -> tuple[Message, ...]:
    def refuse(problem: str) -> InhouseError:
        return InhouseError(f"{where}: {problem}.", _REMEDY)

    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise refuse("it is not valid JSON") from error
    if not isinstance(content, dict) or set(content) != {"messages"} or not isinstance(content["messages"], list):
        raise refuse("it is not an object with a list called 'messages' and nothing else")
    turns: list[Message] = []
    for number, turn in enumerate(content["messages"], start=1):
        if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
            raise refuse(f"message {number} does not have a role and a content and nothing else")
        if not isinstance(turn["content"], str) or not turn["content"].strip() or not _is_text(turn["content"]):
            raise refuse(f"the content of message {number} is not a text")
        turns.append(Message(turn["role"], redact(turn["content"])[0]))
    said = [turn.role for turn in turns]
    asked = said[1:] if said[:1] == ["system"] else said
    if not asked or asked != ["user", "assistant"] * (len(asked) // 2):
        raise refuse("after a system turn, if any, 'user' and 'assistant' must take turns, and the assistant ends")
    return tuple(turns)


def _is_text(content: str) -> bool:
    """JSON can spell half a surrogate pair, which no tokenizer takes."""
    return not any("\ud800" <= character <= "\udfff" for character in content)
