"""textDocument/inlineCompletion (LSP 3.18): the text that a base model trained to fill in puts at the cursor.

Off unless `[inline_completion]` turns it on, and offered only where the base model has the tokens for it. Nobody waits
for it: a question goes first, the next key stroke ends it, and while the model loads there is none. Only what reaches
the model is counted and noted.
"""

from __future__ import annotations

import asyncio
from threading import Event
from typing import TYPE_CHECKING

from lsprotocol import types

from inhouse_retrieval import redact
from inhouse_server.access import TooMuch, Work
from inhouse_server.background import run_in_thread
from inhouse_server.completions import Gap, fitting
from inhouse_server.lending import SteppedAside
from inhouse_server.lsp_capabilities import INLINE_COMPLETION
from inhouse_server.text_sync import index_in_line, split_lines
from inhouse_training import BASE, TextDelta
from inhouse_training.documents import file_document
from inhouse_training.fill_in import FillIn

if TYPE_CHECKING:
    from inhouse_server.engines.shared import RepositoryEngine
    from inhouse_server.language_server.server import InhouseServer
    from inhouse_training import InProcessEngine

PAUSE_S = 0.075
"""What the editor asks for by itself waits this long for the next key stroke: who types does not want it."""


class Completions:
    """The completion of one editor that is under way; a new one, or a change of text, ends it."""

    def __init__(self) -> None:
        self._cancel = Event()

    def begin(self) -> Event:
        """What ends the next one."""
        self.end()
        self._cancel = Event()
        return self._cancel

    def end(self) -> None:
        self._cancel.set()


async def inline_completion(
    ls: InhouseServer, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    if params.context.selected_completion_info is not None:
        return None
    cancel = ls.completions.begin()
    try:
        gap = await _gap(ls, params)
        if gap is None:
            return None
        if params.context.trigger_kind == types.InlineCompletionTriggerKind.Automatic:
            await asyncio.sleep(PAUSE_S)
        if cancel.is_set():
            return None
        # By itself, so that what was ended is noted with what the model did for it.
        text = await asyncio.shield(ls.spawn(_noted(ls, gap, cancel)))
    except TooMuch:
        if params.context.trigger_kind == types.InlineCompletionTriggerKind.Automatic:
            return None  # nobody asked, so nobody is told
        raise
    finally:
        cancel.set()
    if not text:
        return None
    here = types.Range(params.position, params.position)
    return types.InlineCompletionList([types.InlineCompletionItem(insert_text=text, range=here)])


async def _gap(ls: InhouseServer, params: types.InlineCompletionParams) -> Gap | None:
    """The text around the cursor, of a file of the repository that is open and neither ignored nor git's own."""
    uri = params.text_document.uri
    path = ls.checkout.path_of(uri)
    text = await ls.documents.searched_text(uri)
    if path is None or text is None:
        return None
    lines, row = split_lines(text), params.position.line
    if not 0 <= row < len(lines):
        return None
    column = index_in_line(lines[row], params.position.character, ls.encoding)
    before = "\n".join([*lines[:row], lines[row][:column]])
    return Gap(path, before, "\n".join([lines[row][column:], *lines[row + 1 :]]))


async def _noted(ls: InhouseServer, gap: Gap, cancel: Event) -> str:
    """What the model writes there, made fit; empty when it was ended before, or nothing fits.

    Raises:
        TooMuch: the token had as many as it may have a minute.
    """
    engine = ls.house.filler()
    if engine is None:
        return ""
    with ls.asking(INLINE_COMPLETION) as noting:
        try:
            text, noting.work = await run_in_thread(lambda: _fill_in(ls, engine, gap, cancel))
        except SteppedAside:
            text = ""  # as while the model loads
        noting.status = 499 if cancel.is_set() else 200 if text else 204
    return text


def _fill_in(
    ls: InhouseServer, engine: InProcessEngine | RepositoryEngine, gap: Gap, cancel: Event
) -> tuple[str, Work | None]:
    settings = ls.house.settings.inline_completion
    asked = FillIn(
        header=file_document(gap.path, "").header,
        prefix=redact(gap.before)[0],
        suffix=redact(gap.after)[0],
        # Who sees a part of the repository gets no adapter: it has learned from all of it.
        adapter=(ls.house.serving() if ls.within.everywhere else None) or BASE,
        prompt_tokens=settings.prompt_tokens,
        max_tokens=settings.max_tokens,
        stop=("\n",) if gap.in_line else ("\n\n",),
    )
    middle, text, work = "", "", None
    with ls.house.using_model():
        for event in engine.fill_in(asked, cancel):
            if isinstance(event, TextDelta):
                middle += event.text
                continue
            adapter = None if asked.adapter == BASE else asked.adapter
            work = Work("completion", adapter, None, event.prompt_tokens, event.completion_tokens)
            if event.reason != "cancelled" and not redact(middle)[1]:
                text = fitting(gap, middle, event.reason)
    return text, work
