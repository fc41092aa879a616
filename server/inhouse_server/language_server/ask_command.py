"""workspace/executeCommand ``inhouse.ask``: a question from any stock client.

The argument is the question, or ``{question, textDocument: {uri}, range, history}``. The answer is a Markdown file
that the client is asked to show; the result is ``{"uri": …}``, with ``null`` when the user cancelled. For a checkout
elsewhere the relay beside it writes the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_retrieval import Cancelled, StateUnwritable
from inhouse_server.answer_files import answer_name, answers_folder, write_answer
from inhouse_server.elsewhere import WRITE_ANSWER
from inhouse_server.language_server.progress import work
from inhouse_server.language_server.questions import Answered, AskParams, answer
from inhouse_server.language_server.uris import file_of
from inhouse_server.markdown import answer_document

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

COMMAND = "inhouse.ask"


async def execute(ls: InhouseServer, params: types.ExecuteCommandParams) -> dict[str, Any]:
    asked = _asked(params.arguments or ())
    try:
        async with work(ls, "inhouse", params.work_done_token) as job:
            answered = await answer(ls, asked, job, on_delta=lambda text: None)
    except Cancelled:  # before there was an answer
        return {"uri": None}
    if answered.finished.reason == "cancelled":
        return {"uri": None}
    ls.last_answer = answered.text
    document = _document(ls, asked, answered)
    try:
        uri = keep_document(ls, answer_name(asked.question), document)
    except StateUnwritable as error:  # what took so long to write is not lost
        ls.window_show_message(types.ShowMessageParams(types.MessageType.Warning, f"{error}\n\n{document}"))
        return {"uri": None}
    show_document(ls, uri)
    return {"uri": uri}


def _asked(arguments: Any) -> AskParams:
    if len(arguments) != 1:
        raise JsonRpcInvalidParams(f"{COMMAND} takes one argument: the question, or an object that holds it.")
    argument = arguments[0]
    return AskParams.model_validate({"question": argument} if isinstance(argument, str) else argument)


def _document(ls: InhouseServer, asked: AskParams, answered: Answered) -> str:
    return answer_document(asked.question, answered.text, answered.finished, ls.checkout.uri_of)


def keep_document(ls: InhouseServer, name: str, text: str) -> str:
    """Address of the document, written where the editor can open it."""
    elsewhere = ls.checkout.elsewhere
    if elsewhere is None:
        return write_answer(answers_folder(ls.house.state_dir), name, text).as_uri()
    ls.protocol.notify(WRITE_ANSWER, {"name": name, "text": text})
    return f"{elsewhere.answers_uri}/{name}"


def show_document(ls: InhouseServer, uri: str) -> None:
    """Ask the client to open the document, or say where it is."""
    window = ls.client_capabilities.window
    if window is not None and window.show_document is not None and window.show_document.support:
        # Not waited for: a client that shows it when the command has ended would wait for us as we wait for
        # it.
        ls.window_show_document(types.ShowDocumentParams(uri=uri, external=False, take_focus=True))
    else:
        text = f"inhouse: the answer is in {file_of(uri) or uri}"
        ls.window_show_message(types.ShowMessageParams(types.MessageType.Info, text))
