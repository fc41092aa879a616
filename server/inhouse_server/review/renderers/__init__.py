"""One module for each form that a review is written in. None talks to a forge; they write what is sent to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inhouse_retrieval import InhouseError
from inhouse_server.review.change import Change
from inhouse_server.review.finding import Review
from inhouse_server.review.renderers import github, gitlab, json_format, markdown, rdjsonl, request, sarif

FORMATS: dict[str, Callable[[Review, Change, Path], str]] = {
    "markdown": markdown.render,
    "json": json_format.render,
    "sarif": sarif.render,
    "rdjsonl": rdjsonl.render,
    "github": github.render,
    "gitlab": gitlab.render,
    "request": request.render,
}


def render(name: str, review: Review, change: Change, root: Path) -> str:
    """``review`` in the format ``name``.

    Raises:
        InhouseError: there is no such format, or it needs a commit and the change has none.
    """
    if name not in FORMATS:
        raise InhouseError(f"There is no review format {name!r}.", f"Choose one of {', '.join(FORMATS)}.")
    return FORMATS[name](review, change, root)
