"""What the message of a merge or squash commit says about the pull request that it landed."""

from __future__ import annotations

import re

_MERGES = (
    re.compile(r"Merge pull request #(?P<number>\d+)(?: from (?P<branch>\S+))?"),
    re.compile(r"Merged PR (?P<number>\d+): (?P<title>.+)"),
    re.compile(r"Merged in (?P<branch>\S+) \(pull request #(?P<number>\d+)\)"),
)
_TITLED = re.compile(r"(?P<title>.*\S)\s+\(#(?P<number>\d+)\)$")
"""A squash; also a merge, where GitHub's settings give merges the title, and of its merge queue."""
_OF_BRANCHES = re.compile(r"Merge (?:branch|remote-tracking branch|tag)\b")
_BROUGHT_UP_TO_DATE = re.compile(
    r"Merge (?:remote-tracking )?branch '?(?:origin/|upstream/)?(?:main|master|trunk|develop)(?=['\s]|$)"
    r"|Merge .+ of \S+[:/]\S"
)
"""What `git pull`, or a topic that took in the main branch, leaves on the first-parent history."""
_GITLAB = re.compile(r"^See merge request \S*!(?P<number>\d+)\s*$", re.M)


def read_message(message: str, parents: int) -> tuple[int | None, str, str]:
    """``(number, title, description)`` of a commit; the number is ``None`` for one that is no pull request.

    Args:
        parents: how many the commit has, which tells a merge from a squash.
    """
    subject, _, body = message.partition("\n")
    subject, body = subject.strip(), body.strip()
    for pattern in _MERGES:
        match = pattern.match(subject)
        if match is not None:
            known = match.groupdict()
            if known.get("title"):
                return int(match["number"]), known["title"].strip(), body
            title, _, description = body.partition("\n")
            title = title.strip() or (known.get("branch") or subject).rpartition("/")[2]
            return int(match["number"]), title, description.strip()
    request = _GITLAB.search(body)
    if request is not None and parents > 1:
        title, _, description = body.partition("\n")
        return int(request["number"]), title.strip(), _GITLAB.sub("", description).strip()
    titled = _TITLED.match(subject)
    if titled is not None and not (parents > 1 and _OF_BRANCHES.match(subject)):
        return int(titled["number"]), titled["title"], body
    return None, subject, body


def lands_a_branch(message: str) -> bool:
    """Whether a merge without a number landed somebody's work, rather than taking in the branch that it is on."""
    return _BROUGHT_UP_TO_DATE.match(message) is None


def says_branches_only(subject: str) -> bool:
    """Whether a merge's first line is git's own, which names branches and not what was done."""
    return _OF_BRANCHES.match(subject) is not None
