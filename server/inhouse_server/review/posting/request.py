"""What the reviewing process asks the posting one to say, and the check of it.

The one that writes a request has read a stranger's change, perhaps with a model; so the one that reads it believes
nothing: not the shape, not the sizes, not that the text is harmless.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from inhouse_retrieval import InhouseError, redact
from inhouse_server.review.posting.inert import why_code_acts, why_it_acts

MAX_BYTES = 1_000_000
MAX_REMARKS = 100
COMMIT = r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$"
"""An object id of git, SHA-1 or SHA-256."""
_REMEDY = "Make it with 'inhouse review --pr N --format request', from this version of inhouse."

Line = Annotated[int, Field(ge=1, le=10_000_000)]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{20}$")]


LONGEST_REPLACEMENT = 15_000
"""Characters; with a remark's own text it stays below what a forge takes in one comment."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Remark(_Strict):
    """One remark on lines ``start_line`` to ``end_line`` of ``path``, 1-based and inclusive.

    Attributes:
        body: Markdown in which nothing acts, without the suggestion.
        replacement: exact lines in place of those; ``None`` when there are none to offer.
    """

    path: str = Field(min_length=1, max_length=4096)
    start_line: Line
    end_line: Line
    body: str = Field(min_length=1, max_length=20_000)
    replacement: str | None = Field(max_length=LONGEST_REPLACEMENT)
    fingerprint: Fingerprint


class PostRequest(_Strict):
    """A review of ``head_commit``. It never approves, and never asks for changes."""

    format: Literal[1]
    event: Literal["COMMENT"]
    head_commit: str = Field(pattern=COMMIT)
    body: str = Field(min_length=1, max_length=40_000)
    remarks: tuple[Remark, ...] = Field(max_length=MAX_REMARKS)


def read_request(data: bytes, token: str | None = None) -> PostRequest:
    """The request in ``data``.

    Args:
        token: must not be in it.

    Raises:
        InhouseError: it is not one that may be posted.
    """
    if len(data) > MAX_BYTES:
        raise InhouseError(f"The request is larger than {MAX_BYTES:,} bytes.", _REMEDY)
    try:
        request = PostRequest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise InhouseError(f"The request is not one that may be posted: {place}: {first['msg']}.", _REMEDY) from None
    if token is not None and token in f"{request!r}{request.model_dump_json()}":
        raise InhouseError("The request holds the forge's own token.", "Make a new token: this one was read.")
    _check("the review's text", why_it_acts(request.body), request.body)
    for number, remark in enumerate(request.remarks, start=1):
        place = f"remark {number}"
        if remark.end_line < remark.start_line:
            raise InhouseError(f"The lines of {place} end before they start.", _REMEDY)
        _check(place, why_it_acts(remark.body), remark.body)
        _check(f"the path of {place}", "", remark.path)
        _check(f"the suggestion of {place}", why_code_acts(remark.replacement or ""), remark.replacement or "")
    return request


def _check(place: str, why: str, text: str) -> None:
    if redact(text)[0] != text:
        why = "a secret"
    if why:
        raise InhouseError(f"Nothing was posted: {place} holds {why}.", "Look at it with 'inhouse review --pr N'.")
