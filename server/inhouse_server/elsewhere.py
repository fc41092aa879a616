"""What a relay and a team's server say to each other about the checkout beside the relay, which the server cannot read.

The relay adds :data:`CHECKOUT_OPTION` to ``initializationOptions``; the server sends :data:`WRITE_ANSWER` for each
document that the editor is to open. No torch, no pygls: the relay imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval.errors import InhouseError

CHECKOUT_OPTION = "inhouseCheckout"
WRITE_ANSWER = "inhouse/writeAnswer"
"""Notification: ``{"name", "text"}``, a document for the relay's folder of answers."""
REPOSITORY_HEADER = "Inhouse-Repository"
"""Names the repository that a request is about, where a server has several."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A checkout beside the editor.

    Attributes:
        root_uri: its folder, without a slash at the end.
        answers_uri: the folder where the relay keeps answers as documents.
        commit: what was checked out when the editor connected; ``None`` when nothing was.
    """

    root_uri: str
    answers_uri: str
    commit: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return {"rootUri": self.root_uri, "answersUri": self.answers_uri, "commit": self.commit}

    @classmethod
    def from_options(cls, options: Any) -> Elsewhere | None:
        """The checkout that a client's ``initializationOptions`` speak of; ``None`` when they speak of none.

        Raises:
            ValueError: they do, but not as :meth:`to_json` does.
        """
        said = options.get(CHECKOUT_OPTION) if isinstance(options, dict) else None
        if said is None:
            return None
        match said:
            case {"rootUri": str(root), "answersUri": str(answers), "commit": str() | None as commit}:
                return cls(root, answers, commit)
        raise ValueError(f"{CHECKOUT_OPTION} in initializationOptions needs rootUri, answersUri and commit.")


NOWHERE = Elsewhere("inhouse-nowhere:", "inhouse-nowhere:")
"""The checkout of an editor elsewhere that has not said where: no file lies in it."""


def checkout_here(root: Path, answers: Path, root_uri: object = None) -> Elsewhere:
    """The checkout at ``root``.

    Args:
        root_uri: what the editor calls its root, which may lie behind a symbolic link; its files then begin with that.
    """
    from inhouse_retrieval.repository import Repository
    from inhouse_server.language_server.uris import file_of

    named = file_of(root_uri) if isinstance(root_uri, str) else None
    shown = str(root_uri).rstrip("/") if named is not None and named.resolve() == root.resolve() else root.as_uri()
    try:
        commit = Repository.open(root).commit_id("HEAD")
    except InhouseError:
        commit = None  # no commit yet
    return Elsewhere(shown, answers.as_uri(), commit)
