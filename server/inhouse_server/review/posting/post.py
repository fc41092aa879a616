"""Posting a checked request: once for each head commit, and no remark twice on one pull request."""

from __future__ import annotations

from dataclasses import dataclass

from inhouse_retrieval import Clock, Forge, ForgeClient, ForgeRefusal, InhouseError, Progress, no_progress
from inhouse_server.review.diff import fetched
from inhouse_server.review.posting.github import GitHubPull
from inhouse_server.review.posting.gitlab import GitLabPull
from inhouse_server.review.posting.memory import Posted
from inhouse_server.review.posting.pull import Poster, Pull, elsewhere, place
from inhouse_server.review.posting.request import PostRequest
from inhouse_server.review.renderers.text import count

_MOST_CHARACTERS = 60_000
"""Of the text about the whole; GitHub takes 65,536."""
_COMMAND = "inhouse review --post"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request.

    Attributes:
        posted: whether anything was sent.
        remarks: how many are new at the forge, beside lines or not.
        repeated: how many were left out since they are there already.
        url: where a person sees the review; empty where the forge does not say.
    """

    posted: bool
    sentence: str
    remarks: int = 0
    repeated: int = 0
    url: str = ""


async def post(
    request: PostRequest,
    forge: Forge,
    number: int,
    posted: Posted,
    progress: Progress = no_progress,
    clock: Clock | None = None,
) -> Outcome:
    """Post ``request`` to pull request ``number``, unless that was done, or there is nothing new in it.

    Raises:
        InhouseError: the pull request is closed, is gone, or has moved on; the forge refuses or cannot be reached.
    """
    head = request.head_commit
    if posted.is_done(head):
        return _done(number, head)
    async with ForgeClient(forge, _COMMAND, progress, clock) as client:
        poster: Poster = (GitHubPull if forge.kind == "github" else GitLabPull)(client, forge.route, number)
        try:
            pull = await _still_open(poster, forge, number, head)
            markers = await poster.markers()
            if any(marker.whole and marker.head == head for marker in markers):
                posted.add(
                    head, (said for marker in markers if marker.head == head for said in marker.fingerprints), True
                )
                return _done(number, head)
            at, before = set(posted.at(head)), set(posted.before(head))
            for marker in markers:
                (at if marker.head == head else before).update(marker.fingerprints)
            new = [remark for remark in request.remarks if remark.fingerprint not in before | at]
            repeated = sum(remark.fingerprint in before for remark in request.remarks)
            if not new and not at:
                posted.add(head, (), True)
                what = "said before" if repeated else "to say"
                sentence = (
                    f"Nothing was posted to #{number}: there is nothing {'that was not ' if repeated else ''}{what}."
                )
                return Outcome(False, sentence, repeated=repeated)
            files = await poster.files()
            placed = [(remark, place(remark, files)) for remark in new]
            beside = [(remark, file) for remark, file in placed if file is not None]
            body = [request.body]
            if repeated:
                body.append(f"{count(repeated, 'finding')} posted for an earlier push: not repeated.")
            body += [elsewhere(remark) for remark, file in placed if file is None]
            whole = "\n\n".join(body)
            if len(whole) > _MOST_CHARACTERS:
                raise InhouseError(
                    f"The review's text has {len(whole):,} characters; at most {_MOST_CHARACTERS:,} are posted.",
                    "Review with a smaller --limit.",
                )
            # Once more, as late as can be: a push may have come since.
            pull = await _still_open(poster, forge, number, head)
            said = sorted(at | {remark.fingerprint for remark in new})
            url = await poster.post(pull, request, beside, whole, said, lambda now, done: posted.add(head, now, done))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise client.not_documented(f"{forge.route} #{number}") from error
    sentence = (
        f"Posted to #{number}: {count(len(new), 'remark')}, {len(beside)} beside lines.{f' {url}' if url else ''}"
    )
    return Outcome(True, sentence, len(new), repeated, url)


def _done(number: int, head: str) -> Outcome:
    return Outcome(False, f"Nothing was posted to #{number}: its commit {head[:12]} was reviewed there already.")


async def _still_open(poster: Poster, forge: Forge, number: int, head: str) -> Pull:
    try:
        pull = await poster.pull()
    except ForgeRefusal as refusal:
        if refusal.status != 404:
            raise
        raise InhouseError(
            f"There is no pull request #{number} in {forge.project} at {forge.address.host}, or the token of "
            f"{forge.token_source} may not see it.",
            "Check [forge] project in inhouse.toml, the number, and what the token may read.",
        ) from refusal
    if pull.state != "open":
        raise InhouseError(
            f"Pull request #{number} is {pull.state}; nothing was posted.", "Reopen it to have it reviewed."
        )
    if pull.head != head:
        raise InhouseError(
            f"Pull request #{number} has moved on: {head[:12]} was reviewed, and its head is {pull.head[:12]} now; "
            "nothing was posted.",
            f"Fetch it (git fetch origin {fetched(number, forge.kind)}) and review it again.",
        )
    return pull
