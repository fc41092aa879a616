"""Which exports of chat, tickets and mail the settings name; :mod:`inhouse_retrieval.exports` reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportPaths:
    """Exports by their format: paths relative to the repository, or absolute. Nothing is read that is not named."""

    chat: tuple[str, ...] = ()
    tickets: tuple[str, ...] = ()
    mail: tuple[str, ...] = ()
