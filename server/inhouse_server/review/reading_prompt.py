"""What the reading reviewer's model is asked about a hunk.

All of it but our own sentences was written by strangers: the change, past remarks, wiki pages. It is made such that it
stays where it is put (no fence or line is broken out of), that a person would see all of it, that no secret is in it,
and that no server takes a word of it for the end of a turn. The sentences around it are in
:mod:`inhouse_training.review_prompt`, since a model is trained on them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from inhouse_retrieval import Passage
from inhouse_server.review.change import Change, Hunk, ReviewedFile
from inhouse_server.review.past_remarks import PastRemark
from inhouse_training import Engine, Message
from inhouse_training.plain_text import hidden_characters, plain_line, visible, without_comments
from inhouse_training.prompts import code_block, passage_remark
from inhouse_training.review_prompt import AROUND_LINES, review_messages

_MARKUP = frozenset({".md", ".markdown", ".mdx", ".html", ".htm"})


def query(file: ReviewedFile, hunk: Hunk) -> str:
    """What passages and remarks are searched by."""
    return visible("\n".join([file.path, *(file.shown(number, number) for number in hunk.added)]))[:2_000]


def notes_on(passages: Sequence[Passage], remarks: Sequence[PastRemark]) -> tuple[str, ...]:
    """What was taken out of the texts beside the change, a sentence for each text."""
    notes = [
        f"{plain_line(passage.path)}, which the model read beside the change, holds text that no reader sees; "
        "it was taken out."
        for passage in passages
        if hidden_characters(passage.text + passage.path) or (_is_rendered(passage) and "<!--" in passage.text)
    ]
    notes += [
        f"A past remark on {plain_line(remark.path)}, which the model read, held text that no reader sees; "
        "it was taken out."
        for remark in remarks
        if remark.altered
    ]
    return tuple(notes)


def _passage(passage: Passage) -> str:
    """Its text as a reader sees it: of a rendered page, without its comments."""
    return without_comments(visible(passage.text)) if _is_rendered(passage) else visible(passage.text)


def _is_rendered(passage: Passage) -> bool:
    return passage.source != "code" or PurePosixPath(passage.path).suffix.lower() in _MARKUP


def fitting(
    change: Change,
    file: ReviewedFile,
    hunk: Hunk,
    passages: Sequence[Passage],
    remarks: Sequence[PastRemark],
    engine: Engine,
    budget: int,
) -> tuple[Message, ...] | None:
    """The prompt with as much around the hunk as fits; ``None`` when not even the hunk does."""
    for around, shown, told in (
        (AROUND_LINES, len(passages), remarks),
        (AROUND_LINES, 1, remarks),
        (AROUND_LINES, 0, remarks),
        (AROUND_LINES, 0, ()),
        (0, 0, ()),
    ):
        messages = _messages(change, file, hunk, passages[:shown], told, around)
        if engine.count_tokens(messages) <= budget:
            return messages
    return None


def part_that_fits(change: Change, file: ReviewedFile, hunk: Hunk, engine: Engine, budget: int) -> Hunk | None:
    """The first lines of a hunk that is too long, as many as fit alone; ``None`` when no added line is among them."""
    fits, too_many = 0, len(hunk.lines)
    while too_many - fits > 1:
        count = (fits + too_many) // 2
        if engine.count_tokens(_messages(change, file, hunk.first_lines(count), (), (), 0)) <= budget:
            fits = count
        else:
            too_many = count
    part = hunk.first_lines(fits)
    return part if part.added else None


def _messages(
    change: Change,
    file: ReviewedFile,
    hunk: Hunk,
    passages: Sequence[Passage],
    remarks: Sequence[PastRemark],
    around: int,
) -> tuple[Message, ...]:
    first, last = max(1, hunk.start - around), min(len(file.lines), hunk.start + hunk.length - 1 + around)
    path = plain_line(file.path)
    blocks = [
        code_block(plain_line(p.path), p.start_line, p.end_line, _passage(p), _line_after(passage_remark(p)))
        for p in passages
    ]
    said = [(plain_line(remark.line), plain_line(remark.text)) for remark in remarks]
    code = code_block(path, first, last, visible(file.shown(first, last))) if around else ""
    patch = code_block(path, hunk.start, hunk.start + hunk.length - 1, visible(hunk.patch))
    return review_messages(plain_line(change.title) if change.title else None, patch, code, blocks, said)


def _line_after(remark: str) -> str:
    return f" {plain_line(remark)}" if remark else ""
