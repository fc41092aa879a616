"""Where a command does its work: in the owner process when one runs, otherwise here under the same lock."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

from inhouse_retrieval.errors import Busy, Cancelled, InhouseError
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.within import EVERYWHERE
from inhouse_retrieval.work_tree import top_of_work_tree
from inhouse_server.answers import CURRENT, Question
from inhouse_server.cli.terminal import progress_bar, start_logging, tell
from inhouse_server.elsewhere import REPOSITORY_HEADER
from inhouse_server.holder import Holder, read_holder
from inhouse_server.owner import SERVE, OwnerAddress, find_owner, wait_for_owner
from inhouse_server.settings import Settings, load_settings

if TYPE_CHECKING:
    import httpx

    from inhouse_server.workspace import Workspace

_PATIENCE_S = 2.0
"""Most commands are done by then, and what they leave is better than what can be read beside them."""
_LOOK_AGAIN_S = 0.1
_LOADING_S = 600.0
"""What an owner may take to load its model."""
_WITHOUT_A_MODEL = frozenset({"index", "index --watch", "search", "retrain"})
"""Commands that hold a repository to read it: `retrain` lets go before it loads anything."""


class Backend(Protocol):
    """What commands ask for; every result has the shape of the JSON contracts."""

    def search(self, query: str, limit: int) -> dict[str, Any]:
        """Passages, best first."""

    def uses(self, name: str, limit: int) -> dict[str, Any]:
        """Where a name is defined and used."""

    def ask(self, question: str, adapter: str, retrieve: bool) -> Iterator[str | dict[str, Any]]:
        """Pieces of the answer's text, then the whole contract."""

    def index(self, progress: Progress) -> dict[str, Any]:
        """Bring the index up to the work tree."""


@contextmanager
def open_backend(
    repo: Path, command: str, reading: bool = False, with_model: bool = False
) -> Iterator[tuple[Path, Backend]]:
    """The root of the repository and what answers for it.

    Args:
        command: which of `inhouse`'s commands asks; others are told when they must wait for it.
        reading: it only searches or asks. The index is brought up to date first, unless an owner runs, which keeps it
            so; the progress bar is gone when this returns: what streams to the terminal next has it to itself. While
            another process holds the repository, it is answered from what that has read so far.
        with_model: it loads the model, which is fetched first where it is not here yet; and so it waits for a process
            that holds the model as well.

    Raises:
        InhouseError: not a repository, wrong settings, or held by a process that does not answer.
    """
    root, _, state_dir = locate(repo)
    found = _answering(root, state_dir, command, reading, with_model)
    if isinstance(found, OwnerAddress):
        start_logging(state_dir, "client")
        yield root, OwnerBackend(found)
        return
    with found as workspace:
        start_logging(state_dir, "inhouse")
        with progress_bar() as progress:
            if reading and workspace.holds:
                workspace.refresh(progress)
            if with_model:
                from inhouse_server.workspace import fetch_base_model

                fetch_base_model(workspace.settings, progress)
        yield root, LocalBackend(workspace)


def _answering(root: Path, state_dir: Path, command: str, reading: bool, with_model: bool) -> OwnerAddress | Workspace:
    """The owner; else this process, holding the repository or, where it may, beside the process that holds it."""
    began, waiting = time.monotonic(), False
    while (owner := find_owner(state_dir)) is None:
        from inhouse_server.workspace import Workspace  # loads much that an owner's client does without

        try:
            return Workspace.open(root, command)
        except Busy:
            holder = read_holder(state_dir)
            # An owner that has just been started holds the repository before it listens.
            if (owner := wait_for_owner(state_dir)) is not None:
                return owner
            if not reading or holder.command == SERVE:
                raise
        if time.monotonic() - began < _PATIENCE_S:
            time.sleep(_LOOK_AGAIN_S)
        elif beside := _beside(root, state_dir, command, holder, with_model):
            return beside
        else:
            if not waiting:
                tell(f"{holder.doing}; waiting until it has read enough or lets go. Ctrl-C ends this.")
            waiting = True
            time.sleep(_LOOK_AGAIN_S)
    return owner


def _beside(root: Path, state_dir: Path, command: str, holder: Holder, with_model: bool) -> Workspace | None:
    """This process beside ``holder``; ``None`` while it has read nothing, or has a model that ours would double."""
    from inhouse_retrieval import readable_beside
    from inhouse_server.beside import WorkspaceBeside

    if (with_model and holder.command not in _WITHOUT_A_MODEL) or not readable_beside(state_dir):
        return None
    tell(f"{holder.doing}: searching what it has read so far, by words alone.")
    return WorkspaceBeside.open(root, command)


def locate(repo: Path) -> tuple[Path, Settings, Path]:
    """Root, settings and state directory of the repository that ``repo`` lies in."""
    root = top_of_work_tree(repo)
    settings = load_settings(root)
    return root, settings, settings.state_path(root)


class LocalBackend:
    """The work, done in this process."""

    def __init__(self, workspace: Any) -> None:
        self._workspace = workspace

    def search(self, query: str, limit: int) -> dict[str, Any]:
        from inhouse_server.json_contracts import search_json

        self._workspace.index.load_reranker()
        return search_json(self._workspace.index.search(query, limit), limit)

    def uses(self, name: str, limit: int) -> dict[str, Any]:
        found: dict[str, Any] = self._workspace.uses(name, limit)
        return found

    def ask(self, question: str, adapter: str = CURRENT, retrieve: bool = True) -> Iterator[str | dict[str, Any]]:
        from inhouse_server.json_contracts import answer_json
        from inhouse_training import TextDelta

        text = ""
        cancel = Event()
        try:
            for event in self._workspace.assistant(EVERYWHERE).ask(
                Question(question, adapter=adapter, retrieve=retrieve), cancel
            ):
                if isinstance(event, TextDelta):
                    text += event.text
                    yield event.text
                else:
                    yield answer_json(text, event)
        finally:
            cancel.set()

    def index(self, progress: Progress = no_progress) -> dict[str, Any]:
        from inhouse_server.json_contracts import index_json

        return index_json(self._workspace.refresh(progress))


class OwnerBackend:
    """The work, done by a running owner."""

    def __init__(self, owner: OwnerAddress) -> None:
        self._owner = owner

    def search(self, query: str, limit: int) -> dict[str, Any]:
        return self._answer("POST", "/inhouse/search", {"query": query, "limit": limit})

    def uses(self, name: str, limit: int) -> dict[str, Any]:
        return self._answer("POST", "/inhouse/uses", {"name": name, "limit": limit})

    def ask(
        self,
        question: str,
        adapter: str = CURRENT,
        retrieve: bool = True,
        cancel: Event | None = None,
        history: Sequence[dict[str, str]] = (),
    ) -> Iterator[str | dict[str, Any]]:
        body = {"question": question, "adapter": adapter, "retrieve": retrieve, "history": list(history)}
        for name, data in self._events("/inhouse/ask", body, cancel):
            yield data["text"] if name == "delta" else data

    def index(self, progress: Progress = no_progress) -> dict[str, Any]:
        return self._job("/inhouse/index", {}, progress)

    def read_passage(self, path: str, start_line: int, end_line: int) -> dict[str, Any]:
        """The passage contract."""
        return self._answer("POST", "/inhouse/passage", {"path": path, "start_line": start_line, "end_line": end_line})

    def review(
        self, revisions: str | None, staged: bool, progress: Progress = no_progress, cancel: Event | None = None
    ) -> dict[str, Any]:
        """The review contract."""
        return self._job("/inhouse/review", {"revisions": revisions, "staged": staged}, progress, cancel)

    def memory(self) -> dict[str, Any]:
        """What the owner holds of the device that its model is on, as ``GET /inhouse/memory`` tells it."""
        return self._answer("GET", "/inhouse/memory", timeout_s=_LOADING_S)

    def step_aside(self, lease: str, seconds: float) -> dict[str, Any]:
        """Have the owner give its model's memory to this process, or go on doing so, for so many seconds."""
        return self._answer("POST", "/inhouse/step-aside", {"lease": lease, "pid": os.getpid(), "seconds": seconds})

    def come_back(self, lease: str) -> None:
        """Have the owner load its model again."""
        self._answer("POST", "/inhouse/come-back", {"lease": lease})

    def status(self) -> dict[str, Any]:
        """Adapter, index, and where the owner listens.

        ``repositories``, where the token opens several, has the status of each, or its ``problem``.
        """
        told = self._answer("GET", "/inhouse/repositories")
        each = {name: self._status_of(name, told["failed"]) for name in told["repositories"]}
        several = {"repositories": each} if len(each) > 1 else {}
        return {**self._answer("GET", "/inhouse/status"), "busy": None, "owner": self._owner.url, **several}

    def _status_of(self, name: str, failed: dict[str, str]) -> dict[str, Any]:
        if name in failed:
            return {"problem": failed[name]}
        try:
            return self._answer("GET", "/inhouse/status", repository=name)
        except InhouseError as error:  # one that is broken hides no other
            return {"problem": str(error)}

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._owner.token}"}

    def _answer(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        repository: str | None = None,
        timeout_s: float = 60,
    ) -> dict[str, Any]:
        import httpx

        with _plain_connection_errors():
            answer = httpx.request(
                method,
                f"{self._owner.url}{route}",
                json=body,
                headers=self._headers | ({REPOSITORY_HEADER: repository} if repository else {}),
                timeout=timeout_s,
                trust_env=False,
                verify=self._owner.verify(),
            )
            if answer.is_error:
                raise InhouseError(answer.json()["error"]["message"])
            found: dict[str, Any] = answer.json()
            return found

    def _job(self, route: str, body: dict[str, Any], progress: Progress, cancel: Event | None = None) -> dict[str, Any]:
        for name, data in self._events(route, body, cancel):
            if name == "finished":
                return data
            progress(data["stage"], data["done"], data["total"])
        raise InhouseError("The owner process ended before the work did.", "Run the command again.")

    def _events(
        self, route: str, body: dict[str, Any], cancel: Event | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The server-sent events of ``route``; an ``error`` event is raised.

        Setting ``cancel``, which whoever gives it does at the end in any case, hangs up, so that the owner stops.
        """
        import httpx

        with (
            _plain_connection_errors(),
            httpx.stream(
                "POST",
                f"{self._owner.url}{route}",
                json=body,
                headers=self._headers,
                timeout=httpx.Timeout(10, read=None),
                trust_env=False,
                verify=self._owner.verify(),
            ) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise InhouseError(answer.json()["error"]["message"])
            if cancel is not None:
                Thread(target=_hang_up, args=(answer, cancel), name="hang-up", daemon=True).start()
            name = ""
            for line in answer.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = json.loads(value)
                    if name == "error":
                        kind = Cancelled if data["exit_code"] == Cancelled.exit_code else InhouseError
                        raise kind(data["problem"], data["remedy"])
                    yield name, data


def _hang_up(answer: httpx.Response, cancel: Event) -> None:
    """Shut the connection down once ``cancel`` is set: a thread that waits for its next line wakes up."""
    connection = answer.extensions["network_stream"].get_extra_info("socket")
    cancel.wait()
    with suppress(OSError):  # it was closed already
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _plain_connection_errors() -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        raise InhouseError(
            f"The owner process stopped answering ({type(error).__name__}).",
            "Run the command again; .inhouse/logs/owner.log says what happened.",
        ) from error
