"""workspace/executeCommand ``inhouse.ask``: a question from any stock client.

The argument is the question, or ``{question, textDocument: {uri}, range}``. The answer is a Markdown file
that the client is asked to show; the result is ``{"uri": …}``, with ``null`` when the user cancelled.
"""

from __future__ import annotations

import datetime
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from inhouse_retrieval import Cancelled, StateUnwritable
from inhouse_server.language_server.progress import work
from inhouse_server.language_server.questions import Answered, AskParams, answer
from inhouse_server.markdown import answer_document

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

COMMAND = "inhouse.ask"
_ANSWERS_KEPT = 200
"""Older answers are deleted: their names begin with their time."""


async def execute(ls: InhouseServer, params: types.ExecuteCommandParams) -> dict[str, Any]:
    asked = _asked(params.arguments or ())
    try:
        async with work(ls, "inhouse", params.work_done_token) as job:
            answered = await answer(ls, asked, job, on_delta=lambda text: None)
    except Cancelled:  # before there was an answer
        return {"uri": None}
    if answered.finished.reason == "cancelled":
        return {"uri": None}
    file = write_answer(ls.house.state_dir / "answers", asked.question, answered, ls.house.root)
    _show(ls, file)
    return {"uri": file.as_uri()}


def _asked(arguments: Any) -> AskParams:
    if len(arguments) != 1:
        raise JsonRpcInvalidParams(f"{COMMAND} takes one argument: the question, or an object that holds it.")
    argument = arguments[0]
    return AskParams.model_validate({"question": argument} if isinstance(argument, str) else argument)


def write_answer(folder: Path, question: str, answered: Answered, root: Path) -> Path:
    """Write the answer as a Markdown file named after the time and the question.

    Raises:
        StateUnwritable: it cannot be written.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", question.lower())[:48].strip("-") or "question"
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    file = folder / f"{now}-{slug}-{uuid.uuid4().hex[:4]}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.md"))[: -_ANSWERS_KEPT + 1]:
            old.unlink(missing_ok=True)
        file.write_text(answer_document(question, answered.text, answered.finished, root), encoding="utf-8")
    except OSError as error:
        raise StateUnwritable(
            f"The answer cannot be written to {folder}: {error.strerror}.",
            "Free some space or change state_dir.",
        ) from error
    return file


def _show(ls: InhouseServer, file: Path) -> None:
    window = ls.client_capabilities.window
    if window is not None and window.show_document is not None and window.show_document.support:
        # Not waited for: a client that shows it when the command has ended would wait for us as we wait for
        # it.
        ls.window_show_document(types.ShowDocumentParams(uri=file.as_uri(), external=False, take_focus=True))
    else:
        ls.window_show_message(types.ShowMessageParams(types.MessageType.Info, f"inhouse: the answer is in {file}"))
