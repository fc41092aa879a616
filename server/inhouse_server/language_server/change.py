"""A change of the marked code as an edit of the text that is open, or why there is none.

What a model wrote is offered only when it applies to the lines as they are now, parses, and changes something: the
rules that a review's suggestions pass (``review/proof.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsprotocol import types
from markdown_it import MarkdownIt
from pydantic import Field, model_validator

from inhouse_retrieval import InhouseError, redact
from inhouse_server.answers import Selection
from inhouse_server.background import run_in_thread
from inhouse_server.language_server.line_edit import line_edit
from inhouse_server.language_server.questions import (
    MOST_TURNS,
    AskParams,
    DocumentParams,
    Params,
    RangeParams,
    TurnParams,
    answer,
    current_text,
    marked_lines,
)
from inhouse_server.review.change import ReviewedFile
from inhouse_server.review.proof import prove
from inhouse_server.text_sync import with_line_feeds
from inhouse_training import change_question

if TYPE_CHECKING:
    from inhouse_server.language_server.progress import Work
    from inhouse_server.language_server.server import InhouseServer

_WHY = {
    "it does not apply": "it does not apply to the text as it is now",
    "it does not parse": "it would add a syntax error",
    "what it adds is there already": "what it adds stands beside the marked lines already",
}
_CUT = {
    "length": ("The model's change was cut at its longest length.", "Mark less code, or raise answer.max_tokens."),
    "repetition": ("The model had begun to repeat itself and was stopped.", "Say more exactly what is to change."),
}  # fmt: skip


class ChangeParams(Params):
    """What the command ``inhouse.change`` and its code actions take: what to do, or the code to put there."""

    text_document: DocumentParams
    range: RangeParams
    instruction: str | None = Field(None, min_length=1, max_length=4000)
    code: str | None = Field(None, min_length=1, max_length=100_000)
    history: list[TurnParams] = Field(default_factory=list, max_length=MOST_TURNS)

    @model_validator(mode="after")
    def _either(self) -> ChangeParams:
        if (self.instruction is None) == (self.code is None):
            raise ValueError("give either instruction or code")
        return self


@dataclass(frozen=True, slots=True)
class Proven:
    """An edit of the text that was open at ``version``; ``None`` for a file that is not open."""

    uri: str
    version: int | None
    edit: types.TextEdit


def code_blocks(markdown: str) -> list[str]:
    """The fenced code blocks of an answer, in order."""
    blocks = (token.content for token in MarkdownIt("commonmark").parse(markdown) if token.type == "fence")
    return [block for block in blocks if block.strip()]


async def proven_change(ls: InhouseServer, params: ChangeParams, job: Work) -> Proven:
    """Ask for the change where there is no code yet, and prove it on the text that is open by then.

    Raises:
        InhouseError: there is no such change, and why.
        Cancelled: the user cancelled before there was an answer.
    """
    marked = _marked(ls, params)
    blocks = [params.code] if params.code is not None else await _ask(ls, params, marked, job)
    if _marked(ls, params) != marked:
        raise InhouseError("The marked lines have changed since they were read.", "Ask again.")
    text, version = current_text(ls, params.text_document.uri)
    assert text is not None, "the lines were just read"
    edit = await run_in_thread(lambda: _first_proven(text, marked, blocks, ls.encoding))
    if current_text(ls, params.text_document.uri) != (text, version):
        raise InhouseError("The text has changed while the change was checked.", "Ask again.")
    return Proven(params.text_document.uri, version, edit)


def workspace_edit(ls: InhouseServer, proven: Proven) -> types.WorkspaceEdit:
    """The edit for this client: one that knows versions refuses it when the text has moved on."""
    ability = ls.client_capabilities.workspace
    if ability is None or ability.workspace_edit is None or not ability.workspace_edit.document_changes:
        return types.WorkspaceEdit(changes={proven.uri: [proven.edit]})
    document = types.OptionalVersionedTextDocumentIdentifier(proven.uri, proven.version)
    return types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(document, [proven.edit])])


def _marked(ls: InhouseServer, params: ChangeParams) -> Selection:
    marked = marked_lines(ls, params.text_document.uri, params.range)
    if marked is None:
        raise InhouseError(
            "The selection is not in a readable file of this repository.", "Mark code of the repository."
        )
    return marked


async def _ask(ls: InhouseServer, params: ChangeParams, marked: Selection, job: Work) -> list[str]:
    if redact(marked.text)[1]:
        # The model would be shown a mark in its place, and write that mark over it.
        raise InhouseError("The marked code holds what looks like a secret.", "Mark the lines beside it.")
    assert params.instruction is not None
    asked = AskParams(
        question=change_question(params.instruction, marked.path),
        textDocument=params.text_document,
        range=params.range,
        history=params.history,
    )
    answered = await answer(ls, asked, job, on_delta=lambda text: None)
    reason = answered.finished.reason
    if reason == "cancelled":
        raise InhouseError("The change was cancelled.", "Ask again.")
    if reason in _CUT:
        raise InhouseError(*_CUT[reason])
    if not (blocks := code_blocks(answered.text)):
        raise InhouseError("The model answered without code.", "Say more exactly what is to change.")
    return blocks


def _first_proven(text: str, marked: Selection, blocks: list[str], encoding: str) -> types.TextEdit:
    # Marked lines are the editor's, for which a lone \r ends one.
    text, is_classic_mac = with_line_feeds(text), text.count("\r") > 2 * text.count("\n")
    file = ReviewedFile(marked.path, marked.path, "modified", new_text=text)
    refusals: list[str] = []
    for block in blocks:
        replacement, refusal = prove(file, marked.start_line, marked.end_line, block)
        if refusal is None:
            if (edit := line_edit(text, marked.start_line, marked.end_line, replacement, encoding)) is not None:
                if is_classic_mac:
                    edit.new_text = edit.new_text.replace("\n", "\r")
                return edit
            refusal = "it does not apply"
        refusals.append(_WHY.get(refusal, refusal))
    raise InhouseError(f"The change is not offered: {refusals[0]}.", "Say more exactly what is to change.")
