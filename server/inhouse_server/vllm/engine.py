"""The fleet as an engine: each answer on one server and one version, another server when the first does not begin."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from inhouse_retrieval.errors import InhouseError
from inhouse_server.engines.failures import NotServed, Overloaded, ServerLost
from inhouse_server.engines.openai_engine import OpenAIEngine
from inhouse_server.vllm.client import VllmClient
from inhouse_server.vllm.fleet import Fleet, Limits
from inhouse_server.vllm.server_state import ServerState
from inhouse_training import BASE, GenerationEvent, GenerationRequest, Message, Registry, RowScore, ScoredRow

if TYPE_CHECKING:
    from inhouse_server.settings import EngineSettings


class VllmEngine:
    """Implements :class:`~inhouse_training.Engine` over a :class:`~inhouse_server.vllm.fleet.Fleet`.

    It looks after the servers in a thread of its own until :meth:`close`.
    """

    def __init__(self, fleet: Fleet, servers: Sequence[ServerState]) -> None:
        self.fleet = fleet
        self._servers = tuple(servers)
        self._any = self._servers[0].engine
        self._stop = Event()
        fleet.reconcile()
        threading.Thread(target=fleet.keep_up, args=(self._stop,), name="vllm-fleet", daemon=True).start()

    @classmethod
    def of(cls, settings: EngineSettings, registry: Registry, state_dir: Path) -> VllmEngine:
        """The engine that ``[engine]`` describes; asks the servers once before it returns."""
        key = os.environ.get(settings.api_key_env) or "none"
        assert settings.model, "load_settings checks it"
        base, context = settings.model, settings.context_tokens
        servers = [
            ServerState(VllmClient(url, key), OpenAIEngine(f"{url}/v1", base, api_key=key, context_tokens=context))
            for url in (each.rstrip("/").removesuffix("/v1") for each in settings.servers)
        ]
        limits = Limits(base, settings.max_lora_rank, settings.adapters_folder or str(registry.root.absolute()))
        return cls(Fleet(servers, registry, limits, state_dir), servers)

    @property
    def base_model(self) -> str:
        return self.fleet.base

    @property
    def context_tokens(self) -> int:
        return self._any.context_tokens

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return self.fleet.held()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """An estimate on the high side, as :meth:`OpenAIEngine.count_tokens` makes it."""
        return self._any.count_tokens(messages)

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        """Generate; see the protocol. An answer that has begun stays where it is.

        Raises:
            Overloaded: every server that could answer is busy, or none is up.
            InhouseError: a server refuses the request, or is lost in the middle of an answer.
        """
        tried: list[ServerState] = []
        busy: list[Overloaded] = []
        while True:
            try:
                server = self.fleet.take(request.adapter, tried)
            except Overloaded as error:
                raise (min(busy, key=lambda each: each.retry_s) if busy else error) from None
            begun = False
            try:
                for event in server.engine.stream(request, cancel):
                    begun = True
                    yield event
                return
            except Overloaded as error:
                busy.append(error)
            except (ServerLost, NotServed) as error:
                self.fleet.lost(server, error)
                if begun:
                    raise
            finally:
                self.fleet.give_back(server, request.adapter)
            tried.append(server)

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        raise InhouseError(
            "Adapters are not evaluated through model servers.",
            'Set engine.kind to "transformers" for training and evaluation.',
        )

    def close(self) -> None:
        """Leave the servers as they are."""
        self._stop.set()
        for server in self._servers:
            server.client.close()
            server.engine.close()
