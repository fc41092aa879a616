"""A patch as somebody gives it: what of it git can apply, and what is only listed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inhouse_retrieval import InhouseError
from inhouse_server.review.change import ReviewedFile, Status

_REMEDY = "Give a unified diff, as `git diff` writes it."
_FILE = re.compile(rb"^(?=diff --git )", re.M)
"""Only a header begins so: within a hunk, lines begin with a sign or a space."""
_HUNK = re.compile(rb"^@@ |^GIT binary patch", re.M)
_BINARY = re.compile(rb"^Binary files .* differ\r?$", re.M)
_SAME_NAMES = re.compile(rb'diff --git (?:a/(?P<name>.+) b/(?P=name)|"a/(?P<quoted>.+)" "b/(?P=quoted)")\r?$', re.M)
_NEW_NAME = re.compile(rb"^(?:rename|copy) to (?P<name>.+?)\r?$", re.M)
_KINDS: tuple[tuple[bytes, Status], ...] = ((b"new file mode ", "added"), (b"deleted file mode ", "removed"))


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch.

    Attributes:
        text: what git can apply; may be empty.
        binary: files whose content the patch does not hold (``git diff`` without ``--binary``).
        notes: what is to be said about it.
    """

    text: bytes
    binary: tuple[ReviewedFile, ...] = ()
    notes: tuple[str, ...] = ()


def read_patch(patch: bytes) -> Patch:
    """Take apart what git applies and what can only be listed. An empty patch is one that changes nothing."""
    if not patch.strip():
        return Patch(b"", notes=("The patch is empty.",))
    first, *files = _FILE.split(patch)
    kept = [first] if first.strip() and (_HUNK.search(first) or not files) else []
    binary: list[ReviewedFile] = []
    for file in files:
        if _BINARY.search(file) and not _HUNK.search(file):
            binary.append(_listed(file))
        else:
            kept.append(file)
    return Patch(b"".join(kept), tuple(binary))


def patch_refused(error: InhouseError) -> InhouseError:
    """Why git does not take a patch, and what to do about it."""
    told = error.problem.rpartition("error: ")[2].rstrip(".")
    if "No valid patches" in told:
        return InhouseError("There is no patch in what was given.", _REMEDY)
    if "corrupt patch" in told or "patch fragment without header" in told or "git diff header lacks" in told:
        return InhouseError(f"The patch is damaged: {told}.", _REMEDY)
    if "invalid path" in told:
        return InhouseError(f"The patch is refused: {told}.", "Its paths have to lie inside of the repository.")
    return InhouseError(
        f"The patch does not apply to HEAD: {told}.",
        "Check out the commit that it was made against; its paths start at the top of the repository.",
    )


def _listed(file: bytes) -> ReviewedFile:
    header = file.partition(b"\n")[0]
    found = _NEW_NAME.search(file) or _SAME_NAMES.match(header)
    name = header.removeprefix(b"diff --git ").strip()
    if found is not None:
        name = next(part for part in found.groups() if part is not None)
    path = name.decode("utf-8", "replace")
    status: Status = next((kind for mark, kind in _KINDS if re.search(rb"^" + mark, file, re.M)), "modified")
    return ReviewedFile(path, path, status, unread="binary")
