"""initialize, initialized and exit: models load while the editor works; leaving ends the connection only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_retrieval import InhouseError
from inhouse_server.background import run_in_thread
from inhouse_server.elsewhere import Elsewhere
from inhouse_server.language_server.checkout import Checkout
from inhouse_server.language_server.progress import work
from inhouse_server.lending import SteppedAside

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer


def initialize(ls: InhouseServer, params: types.InitializeParams) -> None:
    try:
        elsewhere = Elsewhere.from_options(params.initialization_options)
    except ValueError as error:
        raise JsonRpcInvalidParams(str(error)) from error
    if elsewhere is None and not ls.on_this_machine:
        # Else a file: address would name any file of the server's own folder, and its answers would be written there.
        raise JsonRpcInvalidParams("A team's server wants to know the checkout; start 'inhouse lsp --server'.")
    ls.work_in(Checkout(ls.house.root, elsewhere))


def initialized(ls: InhouseServer, params: types.InitializedParams) -> None:
    ls.spawn(_load(ls))


async def _load(ls: InhouseServer) -> None:
    async with work(ls, "inhouse", cancellable=False) as job:
        job.report("loading the model and the index")
        try:
            await run_in_thread(lambda: _have_ready(ls))
        except SteppedAside:
            pass  # it comes back by itself; who asks meanwhile is told
        except InhouseError as error:
            ls.window_show_message(types.ShowMessageParams(types.MessageType.Error, f"inhouse: {error}"))


def _have_ready(ls: InhouseServer) -> None:
    ls.house.assistant(ls.within)
    with ls.house.using_model():
        ls.house.engine()


def exit_connection(ls: InhouseServer, params: object) -> None:
    ls.exited = True
