"""What can be done of one repository while another process holds it: look at its state, search, ask.

Its index is read from a copy of the catalog and its vectors are left alone, since two Chroma clients on one folder
corrupt it. So searches go by words, which find everything that was read so far.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from inhouse_retrieval import Index, Repository, load_encoder, open_beside, status_beside
from inhouse_server.owner import holder_of
from inhouse_server.settings import Settings
from inhouse_server.status import status_json
from inhouse_server.workspace import Workspace, find_repository


class WorkspaceBeside(Workspace):
    """A repository that another process holds. It is searched and asked about, and never refreshed."""

    def __init__(self, repository: Repository, settings: Settings, state_dir: Path, command: str) -> None:
        super().__init__(repository, settings, state_dir, command)
        self._copy: TemporaryDirectory[str] | None = None

    @classmethod
    def open(cls, path: Path, command: str) -> WorkspaceBeside:
        """See the repository that ``path`` lies in; the copy is made when the index is first used."""
        return cls(*find_repository(path), command)

    def _open_index(self) -> Index:
        self._copy = TemporaryDirectory(prefix="inhouse-beside-")
        encoder = load_encoder(self.settings.encoder.choice(self.root))
        reranker = self.settings.reranker.reranker(self.root)
        return open_beside(self.repository, self.state_dir, Path(self._copy.name), encoder, reranker)

    def close(self) -> None:
        """Let go of the copy."""
        super().close()
        if self._copy is not None:
            self._copy.cleanup()


def look(path: Path) -> dict[str, Any]:
    """The status of the repository that ``path`` lies in, without an owner. Nothing is opened for writing.

    ``busy`` is the process that holds it: ``{"pid", "command", "stage", "done", "total"}``, or ``None``.

    Raises:
        InhouseError: not a repository, no commit, wrong settings, or an index that cannot be read.
    """
    repository, settings, state_dir = find_repository(path)
    holder = holder_of(state_dir)
    status = status_json(repository.root, settings, state_dir, status_beside(repository, state_dir), None)
    return {**status, "busy": holder.to_json() if holder else None, "owner": None}
