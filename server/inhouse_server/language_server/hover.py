"""textDocument/hover: where the name under the cursor is defined, and who last changed that, and why. No model.

Nothing is said of keywords, comments and strings, of names that the repository does not define, and while there is no
index yet. When git takes too long, the place is shown without the change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import PurePosixPath
from threading import Event
from typing import TYPE_CHECKING

from lsprotocol import types

from inhouse_retrieval import Definitions, LastChange, Name, Place, name_at
from inhouse_server.background import run_in_thread
from inhouse_server.markdown import as_written, fenced, place_link
from inhouse_server.text_sync import index_in_line, split_lines, units
from inhouse_training.plain_text import plain_line, visible

if TYPE_CHECKING:
    from inhouse_server.language_server.server import InhouseServer

logger = logging.getLogger(__name__)
_PLACES = 3
_GIT_SECONDS = 0.3


async def hover(ls: InhouseServer, params: types.HoverParams) -> types.Hover | None:
    uri = params.text_document.uri
    path, text, definitions = ls.checkout.path_of(uri), ls.documents.text(uri), ls.house.definitions()
    if path is None or text is None or definitions is None:
        return None
    lines, row = split_lines(text), params.position.line
    if not 0 <= row < len(lines):
        return None
    column = index_in_line(lines[row], params.position.character, ls.encoding)
    unsaved = await ls.documents.by_path()
    cancelled = Event()

    def look() -> tuple[Name, list[Place], LastChange | None] | None:
        name = name_at(path, "\n".join(lines), row, column)
        places = (
            list(islice(definitions.find(name.text, path, row, unsaved, ls.within), _PLACES))
            if name is not None
            else []
        )
        if name is None or not places or cancelled.is_set():
            return None
        return name, places, _last_change(definitions, places[0], unsaved)

    try:
        found = await run_in_thread(look)
    finally:
        cancelled.set()
    if found is None:
        return None
    name, places, change = found
    show = markdown if _reads_markdown(ls.client_capabilities) else plain
    start, end = (types.Position(row, units(lines[row][:at], ls.encoding)) for at in (name.start, name.end))
    return types.Hover(show(places, change, ls.checkout.uri_of), types.Range(start, end))


def markdown(places: list[Place], change: LastChange | None, uri_of: Callable[[str], str]) -> types.MarkupContent:
    """The first place with its line of code and its last change, then links to the others."""
    first, *others = places
    suffix = PurePosixPath(first.path).suffix.removeprefix(".")
    parts = [
        fenced(visible(first.code), suffix if suffix.isalnum() else ""),
        place_link(first.path, first.line, uri_of),
    ]
    if change is not None:
        parts.append(as_written(_sentence(change)))
    if others:
        parts.append("Also " + ", ".join(place_link(each.path, each.line, uri_of) for each in others))
    return types.MarkupContent(types.MarkupKind.Markdown, "\n\n".join(parts))


def plain(places: list[Place], change: LastChange | None, uri_of: Callable[[str], str]) -> types.MarkupContent:
    """The same for an editor that shows no Markdown."""
    first, *others = places
    parts = [visible(first.code), f"{plain_line(first.path)}:{first.line}"]
    if change is not None:
        parts.append(_sentence(change))
    if others:
        parts.append("Also " + ", ".join(f"{plain_line(each.path)}:{each.line}" for each in others))
    return types.MarkupContent(types.MarkupKind.PlainText, "\n".join(parts))


def _sentence(change: LastChange) -> str:
    name = f"#{change.number}" if change.number is not None else change.commit[:8]
    begin = "Edited and not committed yet; the rest was last changed" if change.edited else "Last changed"
    # Both are anyone's text, and a reader may be a model.
    author, title = plain_line(change.author), plain_line(change.title)
    return f"{begin} by {author}{change.day and f', {change.day}'}: {name} {title}"


def _last_change(definitions: Definitions, place: Place, unsaved: Mapping[str, str]) -> LastChange | None:
    try:
        return definitions.last_change(place, unsaved, _GIT_SECONDS)
    except TimeoutError:
        logger.info("git took too long to say who changed %s", place.path)
        return None


def _reads_markdown(client: types.ClientCapabilities) -> bool:
    ability = client.text_document.hover if client.text_document else None
    formats = ability.content_format if ability is not None else None
    return not formats or types.MarkupKind.Markdown in formats
