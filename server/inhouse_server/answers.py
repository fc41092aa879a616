"""A question and the stream that answers it: what passes from the assistant to every surface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inhouse_retrieval import Passage
from inhouse_server.access import Work
from inhouse_training import Message, TextDelta

CURRENT = "current"
"""The adapter name that stands for whichever version is promoted when the question arrives."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Code that the user marked: lines ``start_line`` to ``end_line`` (1-based, inclusive) of ``path``."""

    path: str
    start_line: int
    end_line: int
    text: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; by default the likeliest, as in the article. ``stop`` texts end the answer, and a
    JSON ``schema``, where there is one, holds it."""

    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks.

    Attributes:
        history: earlier turns of the conversation, oldest first.
        open_documents: unsaved buffers by path; they stand for the files on disk.
        adapter: :data:`CURRENT`, ``"base"`` or a version.
        retrieve: whether passages of the repository go into the prompt.
        pull_requests: whether pull requests may be among them; their pages lie on this machine only.
    """

    text: str
    history: tuple[Message, ...] = ()
    selection: Selection | None = None
    open_documents: Mapping[str, str] = field(default_factory=dict)
    adapter: str = CURRENT
    retrieve: bool = True
    pull_requests: bool = True
    max_tokens: int | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Provenance:
    """What produced an answer. Every surface shows it.

    Attributes:
        adapter: the adapter version, or ``None`` for the base model.
        index_commit: the commit that the index holds, or ``None`` when nothing was retrieved.
        pending: changed files that the index did not hold yet.
    """

    base_model: str
    adapter: str | None
    index_commit: str | None
    pending: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds, and tokens as the engine counted them."""

    retrieve_ms: float
    first_token_ms: float
    total_ms: float
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerFinished:
    """The last event of an answer.

    Attributes:
        citations: the passages that were in the prompt, best first; nothing else is ever cited.
        omitted: found, but left out since the prompt was full.
        notes: sentences the user should see, such as what was left out.
        reason: ``"stop"``, ``"length"``, ``"cancelled"`` or ``"repetition"`` (it went round in circles).
    """

    citations: tuple[Passage, ...]
    omitted: tuple[Passage, ...]
    notes: tuple[str, ...]
    reason: str
    provenance: Provenance
    timings: Timings

    @property
    def work(self) -> Work:
        """What is noted of it."""
        made, spent = self.provenance, self.timings
        return Work("answer", made.adapter, made.index_commit, spent.prompt_tokens, spent.completion_tokens)


AnswerEvent = TextDelta | AnswerFinished
