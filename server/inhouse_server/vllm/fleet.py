"""The servers, and which adapter version they answer with.

What is wanted follows from the registry: its current version, on every server. What is there is asked of the servers,
again and again, so a restart of a server or of this process mends itself. In between stands the *serving* version. It
changes in one step, and only when every server that is up has the new version loaded and checked. A version's name at
the servers is the hash of its content: vLLM's prefix cache knows an adapter by name and path, so a name must never
stand for other weights.

After a change the old version stays loaded until its last answer has ended and ``linger_s`` have passed, since a
question that was accepted before may reach a server later.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval.errors import InhouseError
from inhouse_server.engines.failures import Overloaded, ServerLost, ServerSlow
from inhouse_server.vllm.golden_check import OtherBase, check_server
from inhouse_server.vllm.server_state import ServerState
from inhouse_training import BASE, Registry, read_golden
from inhouse_training.export import adapter_rank, vllm_check

log = logging.getLogger(__name__)

STATE_FILE = "vllm.json"
EVERY_S = 5.0
LINGER_S = 60.0
KEEP_FILES_S = 900.0
"""A version's files count as held this long after it was unloaded everywhere."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How the servers were started, as they do not tell it themselves.

    Attributes:
        base: their name of the base model.
        max_rank: their ``--max-lora-rank``.
        folder: where they see the folder of the adapters.
    """

    base: str
    max_rank: int
    folder: str


class Fleet:
    """The servers of one repository. Methods may be called from any thread.

    Args:
        state_dir: holds the serving version across restarts of this process.
        linger_s: see above.
    """

    def __init__(
        self,
        servers: Sequence[ServerState],
        registry: Registry,
        limits: Limits,
        state_dir: Path,
        linger_s: float = LINGER_S,
    ) -> None:
        self._servers = tuple(servers)
        self._registry = registry
        self._limits = limits
        self._state_file = state_dir / STATE_FILE
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._passing = threading.Lock()
        self._left_at: dict[str, float] = {}  # when a version stopped serving
        self._gone_at: dict[str, float] = {}  # when it was unloaded from the last server
        self._serving = self._remembered()

    @property
    def base(self) -> str:
        """The servers' name of the base model."""
        return self._limits.base

    @property
    def serving(self) -> str | None:
        """The version that new questions are answered by; ``None`` for the base model alone."""
        return self._serving

    def held(self) -> tuple[str, ...]:
        """Versions whose files a server may still read."""
        now = time.monotonic()
        with self._lock:
            loaded = {version for server in self._servers for version in server.loaded}
            late = {version for version, at in self._gone_at.items() if now - at < KEEP_FILES_S}
        return tuple(sorted(loaded | late))

    # ------------------------------------------------------------------------------------------------------
    # Answering

    def take(self, version: str, without: Collection[ServerState] = ()) -> ServerState:
        """The least busy server that is ready for ``version``, which stays loaded there until :meth:`give_back`.

        Args:
            version: or ``BASE``.
            without: servers that were tried already.

        Raises:
            Overloaded: no server can answer just now.
            InhouseError: the version is not one that the servers have.
        """
        with self._lock:
            able = [s for s in self._servers if s.up and (version == BASE or version in s.ready)]
            left = [s for s in able if s not in without]
            if not left:
                raise self._nobody(version)
            server = min(left, key=lambda each: each.busy)
            server.answering[version] = server.answering.get(version, 0) + 1
        return server

    def give_back(self, server: ServerState, version: str) -> None:
        """The request that :meth:`take` was for has ended."""
        with self._lock:
            server.answering[version] -= 1

    def lost(self, server: ServerState, error: InhouseError) -> None:
        """A request met that ``server`` is not there, or has lost what it had."""
        with self._lock:
            server.lost(error)
        log.warning("%s", error)

    def _nobody(self, version: str) -> InhouseError:
        if not any(server.up for server in self._servers):
            # Where the servers are is for whoever runs them, not for every asker.
            return Overloaded("No model server can answer; `inhouse status` says why.", 503, EVERY_S)
        if version in (BASE, self._serving):
            return Overloaded(f"No model server is ready for {version} yet.", 503, EVERY_S)
        return InhouseError(
            f"The model servers do not have {version} loaded; they serve {self._serving or 'the base model'}.",
            f"Make it current with `inhouse adapters promote {version}`.",
        )

    # ------------------------------------------------------------------------------------------------------
    # Bringing the servers to what is wanted

    def keep_up(self, stop: threading.Event, every_s: float = EVERY_S) -> None:
        """Reconcile until ``stop`` is set."""
        while not stop.wait(every_s):
            try:
                self.reconcile()
            except Exception:  # the next pass may do better, and nobody else would begin it
                log.exception("the model servers could not be brought up to date")

    def reconcile(self) -> None:
        """Ask every server what it has, load and check what is missing, switch, and unload what nobody needs."""
        with self._passing:
            promoted = self._registry.current()
            wanted = [version for version in dict.fromkeys((self._serving, promoted)) if version is not None]
            with ThreadPoolExecutor(len(self._servers), thread_name_prefix="vllm") as pool:
                list(pool.map(lambda server: self._bring(server, wanted), self._servers))
            self._switch(promoted)
            self._retire(promoted)

    def _bring(self, server: ServerState, wanted: Sequence[str]) -> None:
        try:
            found = server.client.models()
            if self._limits.base not in found:
                raise InhouseError(
                    f"It serves {', '.join(sorted(found)) or 'nothing'}, and no {self._limits.base!r}.",
                    "Correct engine.model, or --served-model-name there.",
                )
        except InhouseError as error:
            with self._lock:
                if isinstance(error, ServerSlow) and server.up and not server.slow:
                    server.slow = True  # a server that answers questions may be late once
                else:
                    server.lost(error)
            return
        with self._lock:
            server.slow = False
            was_up = server.up
            if not server.other_base:
                server.up, server.problem = True, ""
            server.loaded = {version for version, root in found.items() if root == self._place_of(version)}
            server.ready &= server.loaded
            waiting = [each for each in wanted if each not in server.ready and not server.waits(each)]
        if not was_up:
            log.info("%s is up", server.client.url)
        for version in waiting:
            self._make_ready(server, version, found.get(version))

    def _make_ready(self, server: ServerState, version: str, root: str | None) -> None:
        """Load ``version`` unless the server has it from the right folder, and check what it computes."""
        try:
            golden = read_golden(self._registry, version)
            folder = self._folder_of(version)
            if root is not None and root != folder:
                raise InhouseError(
                    f"{server.client.url} has {version} from {root}, not from {folder}: another owner may answer "
                    "with it.",
                    "Unload it there, or let both owners name the adapters by the same path.",
                )
            if root is None:
                server.client.load(version, folder)
            try:
                verdict = check_server(server.client, self._limits.base, golden)
            except (ServerLost, Overloaded):
                raise  # it was not checked, which says nothing against the adapter
            except InhouseError:
                with contextlib.suppress(InhouseError):
                    server.client.unload(version)
                raise
        except ServerLost as error:
            self.lost(server, error)
            return
        except OtherBase as error:
            self.lost(server, error)
            server.other_base = True
            return
        except Overloaded as error:
            log.warning("%s is not made ready: %s", version, error)  # the next pass tries again
            return
        except InhouseError as error:
            log.error("%s is not ready at %s: %s", version, server.client.url, error)
            with self._lock:
                server.fail(version, error)
            return
        log.info("%s is ready at %s: %s", version, server.client.url, verdict)
        with self._lock:
            server.other_base, server.up, server.problem = False, True, ""
            server.failed.pop(version, None)
            server.loaded.add(version)
            server.ready.add(version)
            if not verdict.telling:
                server.untold.add(version)

    def _folder_of(self, version: str) -> str:
        """Where the servers find it, once it is known to be sound and of a kind that they load.

        Raises:
            InhouseError: it is damaged, or vLLM does not load it.
        """
        config = json.loads((self._registry.verify(version) / "adapter_config.json").read_text(encoding="utf-8"))
        loads, told = vllm_check(config)
        if not loads:
            raise InhouseError(
                f"vLLM does not load {version}: {told}.",
                f"Serve it merged (`inhouse adapters export {version} --format merged`), or train with a recipe that "
                "vLLM loads.",
            )
        if adapter_rank(config) > self._limits.max_rank:
            raise InhouseError(
                f"{version} has rank {adapter_rank(config)}, and the servers take {self._limits.max_rank}.",
                f"Start them with {told} and set engine.max_lora_rank to the same.",
            )
        return self._place_of(version)

    def _place_of(self, version: str) -> str:
        """The folder that the servers load it from. A name that was loaded from elsewhere is somebody else's."""
        return f"{self._limits.folder.rstrip('/')}/{version}"

    def _switch(self, promoted: str | None) -> None:
        """Make ``promoted`` the serving version, once all servers that are up have it."""
        with self._lock:
            up = [server for server in self._servers if server.up]
            if promoted == self._serving or not up:
                return
            if promoted is not None and not all(promoted in server.ready for server in up):
                return
            self._remember(promoted)
            before, self._serving = self._serving, promoted
            if promoted is not None:
                self._left_at.pop(promoted, None)
            if before is not None:
                self._left_at[before] = time.monotonic()
        log.info("answers come from %s now, and no longer from %s", promoted or BASE, before or BASE)

    def _retire(self, promoted: str | None) -> None:
        """Unload what neither serves nor is wanted, once nothing is answered with it."""
        now = time.monotonic()
        for server in self._servers:
            with self._lock:
                if not server.up:
                    continue
                done = [
                    version
                    for version in server.loaded
                    if version not in (self._serving, promoted)
                    and not any(each.answering.get(version) for each in self._servers)
                    and now - self._left_at.setdefault(version, now) >= self._linger_s
                ]
                server.ready.difference_update(done)  # no new answer begins with them
            for version in done:
                try:
                    server.client.unload(version)
                except InhouseError as error:
                    log.warning("%s", error)
                    continue
                with self._lock:
                    server.loaded.discard(version)
                    if not any(version in each.loaded for each in self._servers):
                        self._gone_at[version] = time.monotonic()
                        self._left_at.pop(version, None)
                log.info("%s is unloaded from %s", version, server.client.url)

    # ------------------------------------------------------------------------------------------------------
    # Across restarts of this process

    def _remembered(self) -> str | None:
        try:
            version = json.loads(self._state_file.read_text(encoding="utf-8"))["serving"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s); the base model serves until the current version is ready",
                        self._state_file, error)  # fmt: skip
            return None
        return version if isinstance(version, str) and self._registry.is_sound(version) else None

    def _remember(self, version: str | None) -> None:
        partial = self._state_file.with_suffix(".partial")
        try:
            partial.write_text(json.dumps({"serving": version}) + "\n", encoding="utf-8")
            partial.replace(self._state_file)
        except OSError as error:  # a restart then begins with the former version, and switches again
            log.warning("%s cannot be written: %s", self._state_file, error.strerror)

    # ------------------------------------------------------------------------------------------------------
    # For people

    def status(self) -> dict[str, Any]:
        """What ``inhouse status`` shows: the serving version, why another waits, and each server."""
        promoted = self._registry.current()
        with self._lock:
            servers = [
                {
                    "url": server.client.url,
                    "up": server.up,
                    "problem": server.problem or None,
                    "ready": sorted(server.ready),
                    "not_telling": sorted(server.untold),
                    "failed": {version: failure.reason for version, failure in sorted(server.failed.items())},
                    "answering": server.busy,
                }
                for server in self._servers
            ]
            return {"serving": self._serving, "waiting": promoted if promoted != self._serving else None,
                    "servers": servers}  # fmt: skip
