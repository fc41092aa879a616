"""workspace/executeCommand ``inhouse.review``: what is not on the main branch yet, reviewed; findings as diagnostics.

The command takes no argument. Findings appear through ``textDocument/publishDiagnostics`` at the lines that they are
about, those of the review before are cleared, and each proven replacement is a quick fix. The result is
``{"findings": N, "summary": …}``. After the first review, saving a file reviews again.

With ``[review] reading = true`` the model reads, too, when the command is given, which takes seconds a hunk. Saving
does not wait for it: what it remarked stays until the file that it is about is another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_retrieval import Cancelled, InhouseError
from inhouse_server.background import run_in_thread
from inhouse_server.language_server.editor_lines import EditorLines
from inhouse_server.language_server.line_edit import line_edit
from inhouse_server.language_server.progress import Work, work
from inhouse_server.language_server.questions import DocumentParams, Params, current_text
from inhouse_server.review.change import Change, split_lines
from inhouse_server.review.diff import read_change
from inhouse_server.review.finding import Finding, Review
from inhouse_server.review.reading import READING
from inhouse_server.review.renderers.text import also, headline
from inhouse_server.review.reviewer import review
from inhouse_training.plain_text import plain_line, plain_text

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer
    from inhouse_server.workspace import Workspace

logger = logging.getLogger(__name__)
COMMAND = "inhouse.review"
SOURCE = "inhouse"
_SEVERITY = {"warning": types.DiagnosticSeverity.Warning, "info": types.DiagnosticSeverity.Information}


class ReviewedFiles:
    """What this connection was shown: findings by path, by fingerprint. One review at a time."""

    def __init__(self) -> None:
        self.findings: dict[str, dict[str, Finding]] = {}
        self.texts: dict[str, str] = {}  # of the files that were reviewed then
        self.asked = False
        self.lock = asyncio.Lock()
        self.waiting = False

    def finding(self, path: str | None, fingerprint: str) -> Finding | None:
        """The finding of a file; ``None`` when it is not known any more."""
        return self.findings.get(path or "", {}).get(fingerprint)

    def named_by(self, data: object, path: str | None) -> Finding | None:
        """The finding that the ``data`` of a diagnostic names; ``None`` for whatever else an editor may send."""
        fingerprint = data.get("fingerprint") if isinstance(data, dict) else None
        return self.finding(path, fingerprint) if isinstance(fingerprint, str) else None


class FixData(Params):
    """What resolving a fix needs to know."""

    text_document: DocumentParams
    fingerprint: str


async def execute(ls: InhouseServer, params: types.ExecuteCommandParams) -> dict[str, Any]:
    if params.arguments:
        raise JsonRpcInvalidParams(f"{COMMAND} takes no argument.")
    if ls.checkout.elsewhere is not None:
        raise InhouseError("A team's server cannot read your change.", "Run 'inhouse review' in your checkout.")
    async with work(ls, "inhouse: reviewing", params.work_done_token) as job, ls.reviewed.lock:
        job.report("reading the change")
        found, change = await run_in_thread(lambda: review_work_tree(ls.house, job, ls.caller))
        ls.reviewed.asked = True
        publish(ls, found, change)
    text = headline(found)
    ls.window_show_message(types.ShowMessageParams(types.MessageType.Info, f"inhouse: {text}"))
    return {"findings": len(found.findings), "summary": text}


async def after_save(ls: InhouseServer) -> None:
    """Review again what was reviewed before, now that a file was saved; saves during a review share the next one."""
    if not ls.reviewed.asked or ls.reviewed.waiting:
        return
    ls.reviewed.waiting = True
    try:
        async with ls.reviewed.lock:
            ls.reviewed.waiting = False
            found, change = await run_in_thread(lambda: review_work_tree(ls.house))
            publish(ls, replace(found, findings=(*found.findings, *_still_read(ls.reviewed, change))), change)
    except InhouseError as error:
        logger.warning("the review after saving failed: %s", error)
    except Exception:
        logger.exception("the review after saving failed")
    finally:
        ls.reviewed.waiting = False


def _still_read(before: ReviewedFiles, change: Change) -> list[Finding]:
    """What the model remarked on files that are as they were when it read them."""
    texts = {file.path: file.new_text for file in change.files}
    return [
        finding
        for path, findings in before.findings.items()
        if path in texts and texts[path] == before.texts.get(path)
        for finding in findings.values()
        if finding.rule == READING
    ]


def review_work_tree(house: Workspace, job: Work | None = None, caller: str = "") -> tuple[Review, Change]:
    """Review all that is here and not on the main branch yet; with what was reviewed.

    Args:
        job: the command under way; the model reads for that alone, if settings say that it reads.
        caller: whose it is. Where answers wait, each hunk is read when it is this caller's turn.

    Raises:
        InhouseError: the change cannot be read, the model cannot be had, or the user cancelled.
    """

    def wanted() -> None:
        if job is not None and job.cancel.is_set():
            raise Cancelled("The review was cancelled.", "Start it again.")

    def report(stage: str, done: int, total: int | None) -> None:
        wanted()
        if job is not None:
            job.report(f"{stage} {done}/{total}" if total else stage)

    change = read_change(house.repository, progress=report)
    known = house.known_house(change.base_commit, report)
    limit = house.settings.review.findings
    if job is None or not house.settings.review.reading:
        return review(change, known, limit, progress=report), change
    with house.using_model():
        reader = house.reader(caller)
        found = review(change, known, limit, reader, cancel=job.cancel, progress=report)
    wanted()  # reading ends early when it is cancelled, with what it has
    return found, change


def publish(ls: InhouseServer, found: Review, change: Change) -> None:
    """Show the findings, and clear those of the review before."""
    by_path: dict[str, dict[str, Finding]] = defaultdict(dict)
    for finding in found.findings:
        by_path[finding.path][finding.fingerprint] = finding
    texts = {file.path: file.new_text for file in change.files}
    for path in sorted({*by_path, *ls.reviewed.findings}):
        uri, lines = ls.checkout.uri_of(path), EditorLines(texts.get(path))
        diagnostics = [diagnostic(ls, lines, finding) for finding in by_path.get(path, {}).values()]
        ls.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, diagnostics))
    ls.reviewed.findings = dict(by_path)
    ls.reviewed.texts = texts


def diagnostic(ls: InhouseServer, lines: EditorLines, finding: Finding) -> types.Diagnostic:
    """A finding as a diagnostic; precedents are its related information.

    Args:
        lines: those of the file that it stands in.
    """
    others = [lines.range(*place) for place in finding.also]
    related = [
        types.DiagnosticRelatedInformation(types.Location(ls.checkout.uri_of(finding.path), place), "the same here")
        for place in others
    ]
    related += [
        types.DiagnosticRelatedInformation(
            types.Location(ls.checkout.uri_of(each.path), EditorLines(None).range(each.start_line, each.end_line)),
            plain_line(each.note),
        )
        for each in finding.precedents
    ]
    # Titles are anyone's text.
    said = [
        plain_text(finding.message),
        also(tuple((place.start.line + 1, place.end.line) for place in others)),
        f"As in {'; '.join(map(plain_line, finding.changes))}." if finding.changes else "",
    ]
    return types.Diagnostic(
        range=lines.range(finding.start_line, finding.end_line),
        message="\n".join(filter(None, said)),
        severity=_SEVERITY[finding.severity],
        code=finding.rule,
        source=SOURCE,
        related_information=related,
        data={"fingerprint": finding.fingerprint},
    )


def quick_fixes(ls: InhouseServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    """A fix for each diagnostic of ours that has a proven replacement; its edit is made when it is resolved."""
    path = ls.checkout.path_of(params.text_document.uri)
    actions = []
    for shown in params.context.diagnostics:
        finding = ls.reviewed.named_by(shown.data, path)
        if finding is None or finding.replacement is None:
            continue
        actions.append(
            types.CodeAction(
                title=f"Write it as the house does ({finding.rule})",
                kind=types.CodeActionKind.QuickFix,
                diagnostics=[shown],
                is_preferred=True,
                data={
                    "kind": types.CodeActionKind.QuickFix.value,
                    "textDocument": {"uri": params.text_document.uri},
                    "fingerprint": finding.fingerprint,
                },
            )
        )
    return actions


def resolve_fix(ls: InhouseServer, action: types.CodeAction) -> types.CodeAction:
    """Fill in the edit, as long as the lines still read as they did when they were reviewed.

    Raises:
        InhouseError: they do not.
        pydantic.ValidationError: the action's data are not those of :func:`quick_fixes`.
    """
    asked = FixData.model_validate(action.data)
    uri = asked.text_document.uri
    finding = ls.reviewed.finding(ls.checkout.path_of(uri), asked.fingerprint)
    text = current_text(ls, uri)[0] or ""
    lines = split_lines(text)
    if finding is None or finding.replacement is None:
        raise InhouseError("This suggestion is not known any more.", "Review again.")
    if "\n".join(lines[finding.start_line - 1 : finding.end_line]) != finding.anchor:
        raise InhouseError("The lines have changed since they were reviewed.", "Save and review again.")
    edit = line_edit(text, finding.start_line, finding.end_line, finding.replacement, ls.encoding)
    if edit is None:
        raise InhouseError("The suggestion does not apply to the text as it is now.", "Save and review again.")
    action.edit = types.WorkspaceEdit(changes={uri: [edit]})
    return action


def can_resolve(ls: InhouseServer, action: types.CodeAction) -> bool:
    """Fill in the edit for a client that cannot ask for it later; a fix of lines that changed is not offered."""
    try:
        resolve_fix(ls, action)
    except InhouseError:
        return False
    return True
