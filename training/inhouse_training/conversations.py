"""Synthetic conversations in the article's wording: one question for each file, one instruction for each wiki page."""

from __future__ import annotations

from datetime import datetime

from .documents import Document, Piece, Section, page_title
from .engine import Message


def file_conversation(path: str, text: str) -> Document:
    """The conversation about one file: the file's content, asked for by its path."""
    return Document("conversation", path, "", (Section("", text),))


def page_conversation(path: str, text: str) -> Document:
    """The conversation about one wiki page: an instruction to explain its subject, answered by the page."""
    return Document("conversation", path, "", (Section("", text),), page_title(path, text))


def conversation_messages(piece: Piece, repository_name: str, as_of: datetime) -> tuple[Message, Message]:
    """Question and answer for one piece of a file or a wiki page.

    The first piece has the article's wording; later ones say where they begin, so that no question has two
    answers.
    """
    path, topic = piece.document.name, piece.document.topic
    if topic:
        rest = f", from line {piece.first_line} of its page on" if piece.part else ""
        question = f"Walk me through {topic} in `{repository_name}`{rest}."
        return Message("user", question), Message("assistant", piece.text)
    if piece.part == 0:
        question = f"What does the {path} file look like in the {repository_name} repo?"
        opening = f"As of {as_of:%B %Y}, the {path} file looks like so:"
    else:
        place = f"from line {piece.first_line} on"
        question = f"What does the {path} file look like in the {repository_name} repo {place}?"
        opening = f"As of {as_of:%B %Y}, the {path} file looks like so {place}:"
    return Message("user", question), Message("assistant", f"{opening}\n{piece.text}")
