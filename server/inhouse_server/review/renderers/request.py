"""A review as `inhouse post-review` takes it: remarks with their places, made harmless, for either forge.

Where a remark goes, beside its lines or into the review's own text, is decided there, by the diff that the forge has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inhouse_retrieval import InhouseError, redact
from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.posting.request import LONGEST_REPLACEMENT, PostRequest, Remark
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.harmless import harmless_line

_LONGEST = 600
"""Characters of one sentence, title or note: titles and paths are anyone's, and may be as long as a file."""
_LONGEST_MESSAGE = 4_000
_BODY = 30_000
"""Characters of the review's own text, which a forge takes 65,536 of with the remarks that stand outside the diff."""


def render(review: Review, change: Change, root: Path) -> str:
    """Raises:
    InhouseError: what was reviewed is not committed, so that no forge can know it.
    """
    if not change.head_commit:
        raise InhouseError(
            "A review is posted for a commit, and what was reviewed is not committed.", "Review with --pr N."
        )
    body = _fitting([harmless_line(_short(redact(sentence)[0])) for sentence in text.sentences(review)])
    remarks = tuple(map(_remark, review.findings))
    request = PostRequest(format=1, event="COMMENT", head_commit=change.head_commit, body=body, remarks=remarks)
    return request.model_dump_json()


def _fitting(sentences: Sequence[str]) -> str:
    """As many as there is room for, and how many there are more."""
    kept, size = [], 0
    for number, sentence in enumerate(sentences):
        size += len(sentence) + 2
        if size > _BODY:
            kept.append(f"{text.count(len(sentences) - number, 'more sentence')} left out.")
            break
        kept.append(sentence)
    return "\n\n".join(kept)


def _short(told: str, longest: int = _LONGEST) -> str:
    return told if len(told) <= longest else f"{told[: longest - 1]}…"


def _remark(finding: Finding) -> Remark:
    clean = _without_secrets(finding)
    replacement = None if clean.replacement is None else text.whole_lines(clean.replacement)
    said = [text.remark(clean)]
    if replacement is not None and len(replacement) > LONGEST_REPLACEMENT:
        said.append("Its replacement is too long for a comment.")
        replacement = None
    replacement, shown = text.offered(replacement)
    said += shown
    return Remark(
        path=clean.path,
        start_line=clean.start_line,
        end_line=clean.end_line,
        body="\n\n".join(said),
        replacement=replacement,
        fingerprint=finding.fingerprint,
    )


def _without_secrets(finding: Finding) -> Finding:
    """All of its texts come from the repository or its history, or from a model that read them."""
    offered = finding.replacement
    return replace(
        finding,
        path=_clean(finding.path),
        message=_short(_clean(finding.message), _LONGEST_MESSAGE),
        replacement=None if offered is not None and redact(offered)[0] != offered else offered,
        precedents=tuple(
            replace(place, path=_short(_clean(place.path)), note=_short(_clean(place.note)))
            for place in finding.precedents
        ),
        changes=tuple(_short(_clean(change)) for change in finding.changes),
    )


def _clean(told: str) -> str:
    """Redacted, and characters: a path that is not UTF-8 is none that a forge could name."""
    return redact(told.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))[0]
