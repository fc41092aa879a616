"""Between an editor's URIs and paths relative to the repository root, both ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from inhouse_server.elsewhere import Elsewhere
from inhouse_server.language_server.uris import path_in
from inhouse_server.locations import file_uri


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where one editor's files lie.

    Attributes:
        root: of the repository that this process holds.
        elsewhere: the editor's own checkout, when it is not that one; a file there is read only when it is open.
    """

    root: Path
    elsewhere: Elsewhere | None = None

    def path_of(self, uri: str) -> str | None:
        """Path of ``uri``'s file relative to the root, with forward slashes; ``None`` when it lies outside."""
        if self.elsewhere is None:
            return path_in(self.root, uri)
        # Editors escape what they like, so both are compared unescaped.
        folder, name = unquote(self.elsewhere.root_uri) + "/", unquote(uri)
        path = name.removeprefix(folder)
        if path in ("", name) or "\0" in path or {"", ".", ".."} & {*path.split("/")}:
            return None
        return path

    def uri_of(self, path: str) -> str:
        """``file:`` address of ``path`` for the editor."""
        if self.elsewhere is None:
            return file_uri(self.root, path)
        return f"{self.elsewhere.root_uri}/{quote(path)}"

    def note(self, index_commit: str | None) -> str:
        """What an answer must say about files that this process cannot see; empty when there are none."""
        if self.elsewhere is None or index_commit is None:
            return ""
        text = f"The server reads commit {index_commit[:12]}"
        mine = self.elsewhere.commit
        if mine is not None and mine != index_commit:
            text += f", and your checkout was at {mine[:12]} when the editor connected"
        return f"{text}; files that are neither pushed nor open in your editor were not seen."
