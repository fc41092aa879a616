"""textDocument/codeAction and codeAction/resolve: questions about the marked code, changes of it, and fixes of
the review."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_server.language_server import change_command, review_command, why_command
from inhouse_server.language_server.ask_command import COMMAND
from inhouse_server.lsp_capabilities import CODE_ACTION_KINDS

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

EXPLAIN, CONVENTION, CHANGE, FIX, WHY = CODE_ACTION_KINDS
OPTIONS = types.CodeActionOptions(code_action_kinds=list(CODE_ACTION_KINDS), resolve_provider=True)
_ACTIONS = {
    EXPLAIN: ("Explain", "Explain what this code does and how the rest of the repository uses it."),
    CONVENTION: (
        "How do we usually do this here?",
        "How is what this code does usually done in this repository? Show the convention with an example.",
    ),
}


def code_action(ls: InhouseServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    """Both questions on a selection; on a bare cursor only when the user asked for actions."""
    if ls.checkout.path_of(params.text_document.uri) is None:
        return []
    fixes = review_command.quick_fixes(ls, params) if _wanted(FIX, params.context.only) else []
    if not _resolves(ls.client_capabilities, "edit"):
        fixes = [fix for fix in fixes if review_command.can_resolve(ls, fix)]
    fixes += why_command.actions(ls, params) if _wanted(WHY, params.context.only) else []
    automatic = params.context.trigger_kind == types.CodeActionTriggerKind.Automatic
    if params.range.start == params.range.end and automatic:
        return fixes
    lazily = _resolves(ls.client_capabilities, "command")
    actions = fixes
    for kind in _ACTIONS:
        if _wanted(kind, params.context.only):
            data = {
                "kind": kind,
                "textDocument": {"uri": params.text_document.uri},
                "range": _plain(params.range),
            }
            action = types.CodeAction(title=_ACTIONS[kind][0], kind=kind, data=data)
            actions.append(action if lazily else _filled_in(ls, action))
    if _wanted(CHANGE, params.context.only) and params.range.start != params.range.end:
        actions += change_command.actions(ls, params, _resolves(ls.client_capabilities, "edit"))
    return actions


async def code_action_resolve(ls: InhouseServer, params: types.CodeAction) -> types.CodeAction:
    """Fill in the command that asks, or the edit that changes or fixes."""
    if isinstance(params.data, dict) and params.data.get("kind") == CHANGE:
        return await change_command.resolve(ls, params)
    return _filled_in(ls, params)


def _filled_in(ls: InhouseServer, params: types.CodeAction) -> types.CodeAction:
    data: Any = params.data
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind == FIX:
        return review_command.resolve_fix(ls, params)
    if not isinstance(kind, str) or kind not in _ACTIONS:
        raise JsonRpcInvalidParams("This code action is not one of inhouse's.")
    title, question = _ACTIONS[kind]
    argument = {"question": question, "textDocument": data.get("textDocument"), "range": data.get("range")}
    params.command = types.Command(title=title, command=COMMAND, arguments=[argument])
    return params


def _resolves(client: types.ClientCapabilities, part: str) -> bool:
    ability = client.text_document.code_action if client.text_document else None
    if ability is None or ability.resolve_support is None or not ability.data_support:
        return False
    return part in ability.resolve_support.properties


def _wanted(kind: str, only: Any) -> bool:
    """Kinds are a hierarchy: asking for ``inhouse`` gets ``inhouse.explain``."""
    if not only:
        return True
    asked = [str(getattr(item, "value", item)) for item in only]
    return any(item == "" or kind == item or kind.startswith(f"{item}.") for item in asked)


def _plain(span: types.Range) -> dict[str, dict[str, int]]:
    return {
        "start": {"line": span.start.line, "character": span.start.character},
        "end": {"line": span.end.line, "character": span.end.character},
    }
