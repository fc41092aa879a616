"""A review as `inhouse post-review` takes it: remarks with their places, made harmless, for either forge.

Where a remark goes, beside its lines or into the review's own text, is decided there, by the diff that the forge has.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inhouse_retrieval import InhouseError, redact
from inhouse_server.review.change import Change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.posting.inert import why_code_acts
from inhouse_server.review.posting.request import PostRequest, Remark
from inhouse_server.review.renderers import text
from inhouse_server.review.renderers.harmless import harmless_line


def render(review: Review, change: Change, root: Path) -> str:
    """Raises:
    InhouseError: what was reviewed is not committed, so that no forge can know it.
    """
    if not change.head_commit:
        raise InhouseError(
            "A review is posted for a commit, and what was reviewed is not committed.", "Review with --pr N."
        )
    body = "\n\n".join(harmless_line(redact(sentence)[0]) for sentence in text.sentences(review))
    remarks = tuple(map(_remark, review.findings))
    request = PostRequest(format=1, event="COMMENT", head_commit=change.head_commit, body=body, remarks=remarks)
    return request.model_dump_json()


def _remark(finding: Finding) -> Remark:
    clean = _without_secrets(finding)
    replacement = None if clean.replacement is None else text.whole_lines(clean.replacement)
    said = [text.remark(clean)]
    if replacement is not None and why_code_acts(replacement):
        # It may be shown, but must not be applied by one click.
        said += text.instead(replacement)
        replacement = None
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
        message=_clean(finding.message),
        replacement=None if offered is not None and redact(offered)[0] != offered else offered,
        precedents=tuple(
            replace(place, path=_clean(place.path), note=_clean(place.note)) for place in finding.precedents
        ),
        changes=tuple(map(_clean, finding.changes)),
    )


def _clean(told: str) -> str:
    """Redacted, and characters: a path that is not UTF-8 is none that a forge could name."""
    return redact(told.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))[0]
