"""The repositories that one owner holds: that of its folder, and those that ``[server.repositories]`` names beside it.

One that cannot be held keeps nobody from the others. It is tried again and again, since what is wrong with it may be
mended, and a command or another owner that has it may end.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path
from typing import Self

from inhouse_retrieval import Repository
from inhouse_retrieval.errors import Cancelled, InhouseError, NotARepository, StateUnwritable
from inhouse_server.engines.shared import BaseModels
from inhouse_server.owner import SERVE, TOKEN_FILE, read_token
from inhouse_server.settings import InvalidSettings, load_settings
from inhouse_server.workspace import Workspace

log = logging.getLogger(__name__)


class Holding:
    """What an owner holds until its block ends. Methods may be called from any thread.

    Args:
        path: in the repository that the owner was started in.

    Attributes:
        workspaces: that repository first, then the others that are held.
        failed: why each of the rest is not held, by name.

    Raises:
        InhouseError: the first cannot be held, or its table of the others is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._holding = threading.Lock()
        self._held = contextlib.ExitStack()
        self._closed = False
        self.workspaces: list[Workspace] = []
        self.failed: dict[str, InhouseError] = {}
        root = Repository.open(path).root
        settings = load_settings(root)
        self._models = BaseModels(settings.engine.waiting)
        named = settings.server.repositories
        self._folders = {name: root / Path(folder).expanduser() for name, folder in named.items()}
        if not named:
            self.workspaces.append(self._held.enter_context(Workspace.open(root, SERVE)))
            return
        own = _name_of(root, self._folders)
        self.workspaces.append(self._hold(own))
        self._try([name for name in named if name != own])

    def try_again(self) -> list[Workspace]:
        """Those that failed before and are held now."""
        before = len(self.workspaces)
        self._try(list(self.failed))
        return self.workspaces[before:]

    def _try(self, names: list[str]) -> None:
        for name in names:
            try:
                self.workspaces.append(self._hold(name))
                self.failed.pop(name, None)
            except InhouseError as error:
                if str(error) != str(self.failed.get(name)):
                    log.error("the repository %s is not served: %s", name, error)
                self.failed[name] = error

    def _hold(self, name: str) -> Workspace:
        folder = self._folders[name]
        with self._holding:
            if self._closed:
                raise Cancelled("The owner process is stopping.")
            try:
                if (top := Repository.open(folder).root) != folder.resolve():
                    raise NotARepository(
                        f"{folder} is no repository, but lies in that of {top}.", "Name a repository's own folder."
                    )
                workspace = Workspace.open(folder, SERVE).among_others(name, self._models)
            except OSError as error:
                raise StateUnwritable(f"{folder} cannot be used: {error}.", "See to the folder's rights.") from error
            self._held.enter_context(workspace)
        token = read_token(workspace.state_dir)
        if token and token in [read_token(other.state_dir) for other in self.workspaces]:
            workspace.close()
            raise InhouseError(
                f"{folder} has the same token as another repository, whose state directory was copied.",
                f"Remove {workspace.state_dir / TOKEN_FILE}; a new one is made.",
            )
        return workspace

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._holding:
            self._closed = True
            self._held.close()


def _name_of(root: Path, folders: dict[str, Path]) -> str:
    """What the table calls the repository that it stands in.

    Raises:
        InvalidSettings: nothing, or some repository has two names.
    """
    tops = {name: _top(folder) for name, folder in folders.items()}
    own = [name for name, top in tops.items() if top == root]
    if not own or len({*tops.values()}) < len(tops):
        what = "names a repository twice" if own else f"does not name {root} itself"
        raise InvalidSettings(f"[server.repositories] {what}.", 'Give each one name, and this one as "."')
    return own[0]


def _top(folder: Path) -> Path:
    """The root of its repository; of a folder that is in none, the folder."""
    try:
        return Repository.open(folder).root
    except (InhouseError, OSError):
        return folder
