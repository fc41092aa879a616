"""workspace/executeCommand ``inhouse.why``: what a remark of the review rests on.

The argument is ``{textDocument: {uri}, fingerprint}``, as the code action "Why?" of a diagnostic holds it. The places
and past changes are a Markdown file that the client is asked to show; the result is ``{"uri": …}``.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pydantic import Field
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.answer_files import answer_name
from inhouse_server.language_server.ask_command import keep_document, show_document
from inhouse_server.language_server.questions import DocumentParams, Params
from inhouse_server.markdown import fenced, place_link
from inhouse_server.review.finding import Finding, Precedent
from inhouse_server.review.renderers.harmless import harmless, harmless_line
from inhouse_training.plain_text import visible

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

COMMAND = "inhouse.why"
KIND = "inhouse.why"
_AROUND = 2
"""Lines shown below a precedent."""


class WhyParams(Params):
    """Which remark is meant."""

    text_document: DocumentParams
    fingerprint: str = Field(min_length=1, max_length=64)


async def execute(ls: InhouseServer, params: types.ExecuteCommandParams) -> dict[str, Any]:
    if len(params.arguments or ()) != 1:
        raise JsonRpcInvalidParams(f"{COMMAND} takes one argument: which remark.")
    asked = WhyParams.model_validate((params.arguments or ())[0])
    finding = ls.reviewed.finding(ls.checkout.path_of(asked.text_document.uri), asked.fingerprint)
    if finding is None:
        raise InhouseError("This remark is not known any more.", "Review again.")
    uri = keep_document(ls, answer_name(f"why {finding.rule}"), why_document(ls, finding))
    show_document(ls, uri)
    return {"uri": uri}


def actions(ls: InhouseServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    """One for each diagnostic of ours that rests on something that can be shown."""
    path = ls.checkout.path_of(params.text_document.uri)
    found: list[types.CodeAction] = []
    for shown in params.context.diagnostics:
        finding = ls.reviewed.named_by(shown.data, path)
        if finding is None or not (finding.precedents or finding.changes):
            continue
        argument = {"textDocument": {"uri": params.text_document.uri}, "fingerprint": finding.fingerprint}
        title = f"Why? ({finding.rule})"
        command = types.Command(title=title, command=COMMAND, arguments=[argument])
        found.append(types.CodeAction(title=title, kind=KIND, diagnostics=[shown], command=command))
    return found


def why_document(ls: InhouseServer, finding: Finding) -> str:
    """The remark, then each place that it rests on with its code, then the past changes."""
    parts = [f"# Why: {finding.rule}", harmless(finding.message)]
    for place in finding.precedents:
        parts.append(f"## {place_link(place.path, place.start_line, ls.checkout.uri_of)}")
        parts.append(harmless_line(place.note))
        parts += _code(ls.house.repository, place)
    if finding.changes:
        parts.append("## Past changes\n\n" + "\n".join(f"- {harmless_line(change)}" for change in finding.changes))
    return "\n\n".join(parts) + "\n"


def _code(repository: Repository, place: Precedent) -> list[str]:
    """The lines as they are now, secrets redacted; nothing of a file that is gone or cannot be read."""
    read = repository.read_current(place.path)
    if not isinstance(read, tuple):
        return []
    lines = read[1].split("\n")[place.start_line - 1 : place.end_line + _AROUND]
    return [fenced(visible("\n".join(lines)), PurePosixPath(place.path).suffix.removeprefix("."))]
