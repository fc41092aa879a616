"""workspace/executeCommand ``inhouse.change``, and the code actions "Change the selection: …".

The argument is ``{textDocument: {uri}, range, instruction}``, which asks the model, or the same with ``code`` in place
of ``instruction``, such as a block of an answer; ``history`` may hold earlier turns. The proven edit is sent with
``workspace/applyEdit``; the result is ``{"applied": true or false, "reason": why not}``, and the user is told why not.

A code action cannot ask what is to change, so there is one for what the marked code says is to be done (``TODO: …``),
one for each problem that the editor reports there, and one for each code block of the last answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_retrieval import InhouseError
from inhouse_server.language_server.change import (
    ChangeParams,
    code_blocks,
    proven_change,
    workspace_edit,
)
from inhouse_server.language_server.progress import work
from inhouse_server.language_server.questions import RangeParams, marked_lines

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

COMMAND = "inhouse.change"
KIND = "inhouse.change"
_TO_DO = re.compile(r"\b(?:TODO|FIXME)\b(?:\([^)\n]*\))?:?[ \t]*(\S[^\r\n]*)")
_AT_MOST = 3
_SHOWN = 60


async def execute(ls: InhouseServer, params: types.ExecuteCommandParams) -> dict[str, Any]:
    arguments = params.arguments or ()
    if len(arguments) != 1 or not isinstance(arguments[0], dict):
        raise JsonRpcInvalidParams(f"{COMMAND} takes one argument: what to change, and where.")
    asked = ChangeParams.model_validate(arguments[0])
    edit, reason = await _proven(ls, asked, params.work_done_token)
    if edit is None:
        return {"applied": False, "reason": reason}
    done = await ls.workspace_apply_edit_async(types.ApplyWorkspaceEditParams(edit, "inhouse: change the selection"))
    return {"applied": done.applied, "reason": done.failure_reason}


async def resolve(ls: InhouseServer, action: types.CodeAction) -> types.CodeAction:
    """Fill in the proven edit; where there is none the user is told why, and the action does nothing."""
    data: Any = action.data
    asked = ChangeParams.model_validate({key: data[key] for key in data if key != "kind"})
    action.edit, _ = await _proven(ls, asked, None)
    return action


def actions(ls: InhouseServer, params: types.CodeActionParams, lazily: bool) -> list[types.CodeAction]:
    """Changes of the marked code that this connection can name.

    Args:
        lazily: the client asks for the edit when one is chosen; else each runs the command, where edits can be sent.
    """
    workspace = ls.client_capabilities.workspace
    if not lazily and (workspace is None or not workspace.apply_edit):
        return []
    where = {"textDocument": {"uri": params.text_document.uri}, "range": _plain(params.range)}
    marked = marked_lines(ls, params.text_document.uri, RangeParams.model_validate(where["range"]))
    if marked is None:
        return []
    found: list[tuple[str, dict[str, str]]] = []
    if to_do := _TO_DO.search(marked.text):
        instruction = re.sub(r"\s*(\*/|-->)\s*$", "", to_do[1])[:4000]
        found.append((f"Change the selection: {_short(instruction)}", {"instruction": instruction}))
    for diagnostic in params.context.diagnostics[:_AT_MOST]:
        if diagnostic.source != "inhouse" and diagnostic.message.strip():  # our own bring their fixes
            problem = f"Fix this problem: {diagnostic.message}"[:4000]
            found.append((f"Change the selection: fix {_short(diagnostic.message)!r}", {"instruction": problem}))
    for block in code_blocks(ls.last_answer)[:_AT_MOST]:
        first = next(line for line in block.split("\n") if line.strip())
        found.append((f"Put the last answer's code here: {_short(first.strip())}", {"code": block}))
    made = []
    for title, what in found:
        action = types.CodeAction(title=title, kind=KIND)
        if lazily:
            action.data = {"kind": KIND, **where, **what}
        else:
            action.command = types.Command(title=title, command=COMMAND, arguments=[{**where, **what}])
        made.append(action)
    return made


async def _proven(
    ls: InhouseServer, asked: ChangeParams, token: types.ProgressToken | None
) -> tuple[types.WorkspaceEdit | None, str | None]:
    try:
        async with work(ls, "inhouse: changing the selection", token) as job:
            return workspace_edit(ls, await proven_change(ls, asked, job)), None
    except InhouseError as error:
        ls.window_show_message(types.ShowMessageParams(types.MessageType.Warning, f"inhouse: {error}"))
        return None, str(error)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _plain(span: types.Range) -> dict[str, dict[str, int]]:
    return {
        "start": {"line": span.start.line, "character": span.start.character},
        "end": {"line": span.end.line, "character": span.end.character},
    }
