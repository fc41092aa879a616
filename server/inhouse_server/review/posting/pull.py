"""What the posting of a review asks of a forge, and what both forges share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unidiff.errors import UnidiffParseError

from inhouse_server.review.change import Hunk, ReviewedFile, parse_hunks
from inhouse_server.review.posting.request import PostRequest, Remark
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.harmless import code
from inhouse_server.review.renderers.places import hunk_around, span

_MARKER = re.compile(r"<!-- inhouse (?P<kind>review|remark) (?P<head>[0-9a-f]{40,64}) (?P<said>[0-9a-f,]*) -->\s*\Z")


@dataclass(frozen=True, slots=True)
class Pull:
    """A pull request as the forge has it now.

    Attributes:
        state: ``"open"``, or why nothing is posted to it any more.
        target: the branch that it goes to.
        diff_refs: GitLab's three commits of the diff.
    """

    state: str
    head: str
    target: str
    diff_refs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Marker:
    """What something that we posted says about itself, in a comment that no reader sees.

    Attributes:
        whole: it says that all about ``head`` was said.
    """

    whole: bool
    head: str
    fingerprints: tuple[str, ...]

    def __str__(self) -> str:
        return f"<!-- inhouse {'review' if self.whole else 'remark'} {self.head} {','.join(self.fingerprints)} -->"


class Poster(Protocol):
    """One pull request of a forge."""

    async def pull(self) -> Pull:
        """It, now."""

    async def files(self) -> Sequence[ReviewedFile]:
        """Its diff: paths and hunks."""

    async def markers(self) -> Sequence[Marker]:
        """Of what the token's owner posted to it."""

    async def post(
        self,
        pull: Pull,
        request: PostRequest,
        beside: Sequence[tuple[Remark, ReviewedFile]],
        body: str,
        said: Collection[str],
        remember: Callable[[Iterable[str], bool], None],
    ) -> str:
        """Post ``beside`` at their lines, and ``body`` for the whole.

        Args:
            said: fingerprints of all that is said about this head, whenever it was posted.
            remember: told the fingerprints that are at the forge now, and whether that is all.

        Returns:
            Where a person sees it; empty where the forge does not say.
        """


def marker_of(body: object) -> Marker | None:
    """The marker at the end of what was posted."""
    found = _MARKER.search(body) if isinstance(body, str) else None
    if found is None:
        return None
    said = tuple(name for name in found["said"].split(",") if name)
    return Marker(found["kind"] == "review", found["head"], said)


def hunks_of(patch: str | None) -> tuple[Hunk, ...]:
    """Hunks of a file's patch as a forge gives it; none where it gives none, as for a large file."""
    try:
        return parse_hunks(patch or "")
    except UnidiffParseError:
        return ()


def place(remark: Remark, files: Sequence[ReviewedFile]) -> ReviewedFile | None:
    """The file of the diff that takes the remark beside its lines; ``None`` where only the whole can take it."""
    for file in files:
        if file.path == remark.path and file.status != "removed":
            return file if hunk_around(file, remark.start_line, remark.end_line) is not None else None
    return None


def elsewhere(remark: Remark) -> str:
    """A remark in the text about the whole, where a suggestion cannot be applied and is only shown."""
    where = code(span(remark.path, remark.start_line, remark.end_line))
    return "\n\n".join((where, remark.body, *text.instead(remark.replacement)))
