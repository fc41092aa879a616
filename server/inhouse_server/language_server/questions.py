"""From a client's parameters to a question, and from the stream that answers it to what the client gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from inhouse_retrieval import Passage
from inhouse_server.answers import CURRENT, AnswerFinished, Question, Selection
from inhouse_server.background import iterate_in_thread
from inhouse_server.language_server.checkout import Checkout
from inhouse_server.language_server.uris import file_of
from inhouse_server.markdown import provenance_line
from inhouse_server.text_sync import split_lines
from inhouse_training import Message, TextDelta

if TYPE_CHECKING:
    from inhouse_server.language_server.progress import Work
    from inhouse_server.language_server.server import InhouseServer

_MAX_FILE_BYTES = 1_000_000
MOST_TURNS = 200
"""Earlier turns that a client may send; the assistant keeps those that fit the prompt, the latest first."""


class Params(BaseModel):
    """An object that a client sends; what is wrong with one is told without the names of our classes."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        if isinstance(value, dict | cls):
            return value
        needed = [f'"{to_camel(name)}"' for name, field in cls.model_fields.items() if field.is_required()]
        raise PydanticCustomError("object_type", "an object with {needed} is needed", {"needed": " and ".join(needed)})


def _token(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("token_type", "a number or a string is needed")
    return value


Token = Annotated[int | str, BeforeValidator(_token)]
"""A ``ProgressToken`` of the protocol."""


class PositionParams(Params):
    line: int = Field(ge=0)
    character: int = Field(ge=0)


class RangeParams(Params):
    start: PositionParams
    end: PositionParams


class DocumentParams(Params):
    uri: str


class TurnParams(Params):
    role: Literal["user", "assistant"]
    content: str


class AskParams(Params):
    """What ``inhouse/ask`` and the command ``inhouse.ask`` take."""

    question: str = Field(min_length=1)
    text_document: DocumentParams | None = None
    range: RangeParams | None = None
    adapter: str = CURRENT
    history: list[TurnParams] = Field(default_factory=list, max_length=MOST_TURNS)
    partial_result_token: Token | None = None
    work_done_token: Token | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer; its notes tell also what could not be read of the editor's files."""

    text: str
    finished: AnswerFinished


async def answer(ls: InhouseServer, params: AskParams, job: Work, on_delta: Callable[[str], None]) -> Answered:
    """Ask the assistant in a thread; deltas arrive on the loop. ``job.cancel`` stops it within one token.

    Raises:
        InhouseError: the assistant cannot answer, with the reason.
        TooMuch: too much was asked in the last minute.
    """
    with ls.asking("inhouse/ask") as noting:
        answered = await _answer(ls, params, job, on_delta)
        noting.work = answered.finished.work
    return answered


async def _answer(ls: InhouseServer, params: AskParams, job: Work, on_delta: Callable[[str], None]) -> Answered:
    question, notes = await question_from(ls, params)
    pieces: list[str] = []
    finished: AnswerFinished | None = None
    job.report("reading the code")
    async for event in iterate_in_thread(
        lambda: ls.house.assistant(ls.within, caller=ls.caller).ask(question, job.cancel)
    ):
        if isinstance(event, TextDelta):
            pieces.append(event.text)
            on_delta(event.text)
            job.report(f"answering, {sum(map(len, pieces))} characters so far")
        else:
            finished = event
    if finished is None:
        raise RuntimeError("the assistant ended without its last event")
    unseen = ls.checkout.note(finished.provenance.index_commit)
    notes = (*notes, *finished.notes, *((unseen,) if unseen else ()))
    return Answered("".join(pieces), replace(finished, notes=notes))


async def question_from(ls: InhouseServer, params: AskParams) -> tuple[Question, tuple[str, ...]]:
    """The question with the marked code and the editor's buffers."""
    selection, note = None, ""
    if params.text_document is not None and params.range is not None:
        selection = marked_lines(ls, params.text_document.uri, params.range)
        if selection is None:
            note = "The selection is not in a readable file of this repository, so it was not read."
    question = Question(
        text=params.question,
        history=tuple(Message(turn.role, turn.content) for turn in params.history),
        selection=selection,
        open_documents=await ls.documents.by_path(),
        adapter=params.adapter,
        pull_requests=ls.checkout.elsewhere is None,
    )
    return question, (note,) if note else ()


def current_text(ls: InhouseServer, uri: str) -> tuple[str | None, int | None]:
    """A document as the editor has it, and its version there; a file that is not open has none."""
    text = ls.documents.text(uri)
    return (_read(ls.checkout, uri), None) if text is None else (text, ls.documents.version(uri))


def marked_lines(ls: InhouseServer, uri: str, marked: RangeParams) -> Selection | None:
    """The lines that ``marked`` touches; ``None`` when the file is not one of the repository's that can be read."""
    path, (text, _) = ls.checkout.path_of(uri), current_text(ls, uri)
    if path is None or text is None:
        return None
    lines = split_lines(text)
    first = min(marked.start.line, len(lines) - 1)
    # A selection of whole lines ends at the start of the line after them.
    past = marked.end.line + (marked.end.character > 0 or marked.end.line == marked.start.line)
    last = max(first, min(past, len(lines)) - 1)
    return Selection(path, first + 1, last + 1, "\n".join(lines[first : last + 1]))


def _read(checkout: Checkout, uri: str) -> str | None:
    """A file that is not open, as long as it really lies in the repository, and on this machine."""
    file = file_of(uri) if checkout.elsewhere is None else None
    try:
        if file is None or not file.resolve().is_relative_to(checkout.root) or file.stat().st_size > _MAX_FILE_BYTES:
            return None
        return file.read_bytes().decode("utf-8")  # with its own line ends, which an edit has to know
    except (OSError, UnicodeDecodeError):
        return None


def location(passage: Passage, checkout: Checkout) -> dict[str, Any]:
    """A passage as an LSP ``Location``."""
    start = {"line": passage.start_line - 1, "character": 0}
    return {
        "uri": checkout.uri_of(passage.path),
        "range": {"start": start, "end": {"line": passage.end_line, "character": 0}},
    }


def result(answered: Answered, checkout: Checkout, streamed: bool) -> dict[str, Any]:
    """The result of ``inhouse/ask``. As the protocol asks, a text that was streamed is not sent again.

    ``provenance_line`` says in a sentence what produced it, the same one in every editor.
    """
    finished = answered.finished
    return {
        "answer": "" if streamed else answered.text,
        "citations": [location(passage, checkout) for passage in finished.citations],
        "notes": list(finished.notes),
        "reason": finished.reason,
        "provenance": asdict(finished.provenance),
        "provenance_line": provenance_line(finished.provenance),
        "timings": asdict(finished.timings),
    }
