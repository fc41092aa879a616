"""workspace/executeCommand: the commands of this server by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_server.language_server import ask_command, change_command, review_command, why_command
from inhouse_server.lsp_capabilities import COMMANDS

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

_COMMANDS = {
    ask_command.COMMAND: ask_command.execute,
    change_command.COMMAND: change_command.execute,
    review_command.COMMAND: review_command.execute,
    why_command.COMMAND: why_command.execute,
}


async def execute_command(ls: InhouseServer, params: types.ExecuteCommandParams) -> dict[str, Any]:
    if params.command not in _COMMANDS:
        raise JsonRpcInvalidParams(f"There is no command {params.command!r}; there are {', '.join(COMMANDS)}.")
    return await _COMMANDS[params.command](ls, params)
