"""What the owner process holds of one repository: settings, index, registry, engine, assistant.

Only one process holds a repository at a time (``owner.lock`` in the state directory), because two Chroma clients on
one folder corrupt it. A command that finds no owner opens a workspace itself, under the same lock.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock, Timeout

from inhouse_retrieval import (
    EVERYWHERE,
    Definitions,
    Index,
    IndexReport,
    Repository,
    Within,
    is_name,
    load_encoder,
    vector_place,
)
from inhouse_retrieval.errors import Cancelled, InhouseError
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_server.access import Work
from inhouse_server.admission import Admission, Place
from inhouse_server.answers import AnswerFinished
from inhouse_server.assistant import Assistant
from inhouse_server.holder import HOLDER_FILE, Holder, note_holder, noting
from inhouse_server.json_contracts import uses_json
from inhouse_server.lending import Lending, SteppedAside
from inhouse_server.owner import OWNER_LOCK, busy
from inhouse_server.review.past_remarks import PastRemarks
from inhouse_server.review.reviewer import House, Reader, know_house
from inhouse_server.settings import Settings, load_settings
from inhouse_server.state_dir import prepare_state_dir, unwritable
from inhouse_server.status import status_json
from inhouse_training import BASE, Engine, HeldMemory, Registry, held_by_this_process

if TYPE_CHECKING:
    from inhouse_server.engines.shared import BaseModels, RepositoryEngine
    from inhouse_server.vllm.engine import VllmEngine
    from inhouse_training import InProcessEngine
    from inhouse_training.weights import Weights

log = logging.getLogger(__name__)


class Workspace:
    """One repository, held by this process until :meth:`close`. Methods may be called from any thread.

    Attributes:
        name: what requests, rights, the audit log and the metrics call it where there are several; empty where not.
        answered: told of each answer when it has ended, in the thread that made it.
    """

    def __init__(self, repository: Repository, settings: Settings, state_dir: Path, command: str) -> None:
        self.repository = repository
        self.root = repository.root
        self.name = ""
        self._models: BaseModels | None = None
        self.settings = settings
        self.state_dir = state_dir
        self.registry = Registry(state_dir / "adapters")
        self._command = command
        self._lock = FileLock(state_dir / OWNER_LOCK, thread_local=False)
        self._index: Index | None = None
        self._engine: Engine | None = None
        self._vllm: VllmEngine | None = None  # the same, where several servers are looked after
        # Two locks, so that a search never waits for the model to load.
        self._opening = threading.Lock()
        self._loading = threading.Lock()
        self._closed = False
        self._finding = threading.Lock()
        self._definitions: Definitions | None = None
        self._knowing = threading.Lock()
        self._house: tuple[str, House] | None = None
        self._admission = Admission(self._at_once, settings.engine.waiting)
        self._lending: Lending | None = None
        if settings.engine.kind == "transformers":
            self._lending = Lending()
            self._lending.holds(self._unload, self.load)
        self.answered: Callable[[AnswerFinished], None] = lambda finished: None

    @classmethod
    def open(cls, path: Path, command: str) -> Workspace:
        """Hold the repository that ``path`` lies in.

        Args:
            command: the `inhouse` command that holds it, which others are told.

        Raises:
            NotARepository: ``path`` is not in a git work tree.
            InvalidSettings: `inhouse.toml` is wrong.
            StateUnwritable: the state directory cannot be written.
            Busy: another process holds the repository.
        """
        workspace = cls(*find_repository(path), command)
        workspace._hold()
        return workspace

    def among_others(self, name: str, models: BaseModels) -> Workspace:
        """Itself, with its name among others of this process, and the base models that it shares with them."""
        self.name, self._models = name, models
        if self.settings.engine.kind == "transformers":
            self._admission, self._lending = models.admission, models.lending
            self._lending.holds(self._unload, self.load)
        return self

    def _hold(self) -> None:
        prepare_state_dir(self.state_dir)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise busy(self.root, self.state_dir) from None
        try:
            self._note()
        except OSError as error:
            self._lock.release()
            raise unwritable(self.state_dir, error) from error

    def _note(self) -> None:
        note_holder(self.state_dir, Holder(os.getpid(), self._command))

    @property
    def holds(self) -> bool:
        """Whether this process holds the repository, and may bring its index up to date."""
        return self._lock.is_locked

    @property
    def index(self) -> Index:
        """The index, opened on first use.

        Raises:
            Cancelled: this workspace was closed.
        """
        with self._opening:
            if self._closed:
                raise Cancelled("The owner process is stopping.", "Ask again; a new one starts when needed.")
            if self._index is None:
                self._index = self._open_index()
            return self._index

    def _open_index(self) -> Index:
        encoder = load_encoder(self.settings.encoder.choice(self.root))
        vectors = vector_place(self.settings.vectors.server, self.root, self.state_dir)
        reranker = self.settings.reranker.reranker(self.root)
        return Index.open(self.repository, self.state_dir, encoder, vectors, reranker)

    def definitions(self) -> Definitions | None:
        """Finds definitions through the index; ``None`` while that is not open, which nobody waits for here."""
        index = self._index
        if index is None:
            return None
        with self._finding:
            if self._definitions is None:
                self._definitions = Definitions(self.repository, index)
            return self._definitions

    def uses(self, name: str, limit: int, within: Within = EVERYWHERE) -> dict[str, Any]:
        """The contract of a name: where it is defined ``within`` and, at most ``limit`` times, used.

        Raises:
            InhouseError: ``name`` is no name.
        """
        if not is_name(name):
            raise InhouseError(f"{name!r} is no name that code could define.", "Give one, such as `add_voucher`.")
        index = self.index
        definitions = self.definitions() or Definitions(self.repository, index)
        found = list(islice(definitions.uses(name, within), limit + 1))
        defined = list(islice(definitions.all_of(name, within), limit))
        return uses_json(defined, found[:limit], len(found) > limit)

    def engine(self) -> Engine:
        """The engine, loaded on first use; that takes seconds. Whoever uses it does so within :meth:`using_model`.

        Raises:
            InhouseError: the base model cannot be had, or the configured server cannot be used.
        """
        with self._loading:
            if self._engine is None:
                engine = self._load_engine()
                self._make_ready(engine)  # only then does the model count as loaded
                self._engine = engine
            return self._engine

    @property
    def lending(self) -> Lending | None:
        """What lends the memory of this process's model to a retraining; ``None`` where a server answers."""
        return self._lending

    def using_model(self) -> AbstractContextManager[None]:
        """Around whatever uses the engine, so that it is not unloaded meanwhile.

        Raises:
            SteppedAside: on entering; the model's memory is lent to a retraining.
        """
        return self._lending.use() if self._lending is not None else nullcontext()

    def load(self) -> None:
        """Load the model, and make what answers now ready, so that the next question waits for neither; not while its
        memory is lent. Where what answers now is answered with other weights, the model is loaded anew."""
        if self._closed:
            return
        try:
            self._let_other_weights_go()
            with self.using_model():
                loaded = self._engine is not None
                engine = self.engine()
                if loaded:
                    self._make_ready(engine)
        except SteppedAside:
            pass  # it is loaded when it comes back
        except InhouseError as error:
            # The first question meets the same problem and tells the user; here it goes to the log.
            log.error("%s", error)

    def _let_other_weights_go(self) -> None:
        engine = cast("InProcessEngine | RepositoryEngine | None", self._engine)
        if self._lending is None or engine is None or engine.weights == self._weights():
            return
        log.info("the model is loaded anew: %s is answered with other weights", self.registry.current() or BASE)
        with self._lending.alone():
            self._unload()

    def _make_ready(self, engine: Engine) -> None:
        """What answers now, where it is a model of this process."""
        if self._lending is None:
            return
        try:
            cast("InProcessEngine | RepositoryEngine", engine).prepare(self.registry.current() or BASE)
        except InhouseError as error:
            log.error("%s", error)  # whoever asks that version is told; others have an answer

    def _unload(self) -> None:
        """Let the model go; several repositories' is let go by what they share."""
        with self._loading:
            engine, self._engine = cast("InProcessEngine | None", self._engine), None
        if engine is not None and self._models is None:
            engine.close()

    def held_memory(self) -> HeldMemory:
        """What this process holds of the device that its model is on; waits while the model loads or answers."""
        with self._loading:
            engine = cast("InProcessEngine | RepositoryEngine | None", self._engine)
        if self._lending is None or engine is None:
            return held_by_this_process(0)
        return engine.held_memory()

    def assistant(
        self, within: Within, worked: Callable[[Work], None] = lambda work: None, caller: str = ""
    ) -> Assistant:
        """An assistant over a part of this workspace; cheap, the models load with the first question.

        Args:
            worked: told of each answer when it has ended, in the thread that made it.
            caller: id of who asks. Where answers wait, callers are taken in turn.
        """

        def answered(finished: AnswerFinished) -> None:
            self.answered(finished)
            worked(finished.work)

        answer = self.settings.answer
        enter = partial(self._enter, caller)
        return Assistant(self.engine, self.index, self.registry, answer, answered, within, self.serving, enter)

    @contextmanager
    def _enter(self, caller: str) -> Iterator[Place]:
        """Around one answer, from its question on."""
        with self.using_model(), self._admission.enter(caller) as place:
            yield place

    @cached_property
    def offers_inline_completion(self) -> bool:
        """Whether editors are offered inline completion, as it was when the owner was first asked."""
        return not self.settings.no_inline_completion()

    def _at_once(self) -> int | None:
        """Answers that the engine of this process makes at once; one while it loads."""
        if self.settings.engine.kind != "transformers":
            return None
        engine = cast("InProcessEngine | RepositoryEngine | None", self._engine)
        return engine.streams if engine is not None else 1

    def filler(self) -> InProcessEngine | RepositoryEngine | None:
        """The engine that fills in; ``None`` where that is not offered, or while it loads, which nobody waits for."""
        return (
            cast("InProcessEngine | RepositoryEngine | None", self._engine) if self.offers_inline_completion else None
        )

    def serving(self) -> str | None:
        """The version that answers: the promoted one, or until all model servers have that, the one before."""
        return self._vllm.fleet.serving if self._vllm else self.registry.current()

    def reader(self, caller: str = "") -> Reader:
        """The reviewer that reads with the current adapter, within :meth:`using_model`.

        Args:
            caller: id of whose review it is. Where answers wait, each hunk is read when it is this caller's turn.

        Raises:
            InhouseError: the model cannot be had.
        """
        return Reader(
            self.engine(),
            self.serving() or BASE,
            # The pull request under review may be among those that the index holds.
            lambda query, limit: self.index.search(query, limit, pull_requests=False).passages,
            PastRemarks.of(self.state_dir),
            self.settings.answer.prompt_tokens,
            self.settings.review.tokens,
            self.settings.review.samples,
            self.settings.review.second_look,
            caller,
        )

    def known_house(self, commit: str, progress: Progress = no_progress) -> House:
        """What the repository up to ``commit`` says about changes; kept for the last commit asked about."""
        with self._knowing:
            if self._house is None or self._house[0] != commit:
                self._house = (commit, know_house(self.repository, commit, progress, self.state_dir))
            return self._house[1]

    def refresh(self, progress: Progress = no_progress) -> IndexReport:
        """Bring the index up to the work tree. Calls take turns. Other processes can see how far it is."""
        try:
            return self.index.refresh(noting(self.state_dir, self._command, progress))
        finally:
            with suppress(OSError):
                self._note()

    def refresh_files(self, paths: Collection[str]) -> IndexReport:
        """Bring the index up to some files of the work tree."""
        return self.index.refresh_files(paths)

    def status(self, administrates: bool) -> dict[str, Any]:
        """What this workspace holds, as the status of every surface shows it.

        Args:
            administrates: the one who asks has the scope ``admin``. Where the repository and the model servers are, and
                what is wrong with those, is for whoever runs them, not for every asker.
        """
        engine = self._engine
        loaded = list(engine.loaded_adapters) if engine else None
        held = {
            **status_json(self.root, self.settings, self.state_dir, self.index.status(), loaded),
            **self.model_servers(),
            "weights": getattr(engine, "weights", None),
            "stepped_aside": self._lending.status() if self._lending is not None else None,
        }
        if not administrates:
            del held["root"]
            for server in held.get("servers", ()):
                for told in ("url", "problem", "failed"):
                    del server[told]
        return held

    def model_servers(self) -> dict[str, Any]:
        """``serving``, ``waiting`` and ``servers`` where vLLM servers answer; empty elsewhere, or before that."""
        return self._vllm.fleet.status() if self._vllm else {}

    def close(self) -> None:
        """Let go of the repository. A refresh under way stops; a model that is loading is not waited for."""
        with self._opening:
            self._closed = True
            if self._index is not None:
                self._index.close()
                self._index = None
        if self._vllm is not None:
            self._vllm.close()
        if self._lock.is_locked:
            (self.state_dir / HOLDER_FILE).unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _load_engine(self) -> Engine:
        engine = self.settings.engine
        if engine.kind == "openai":
            from inhouse_server.engines import OpenAIEngine

            assert engine.url and engine.model, "load_settings checks both"
            return OpenAIEngine(
                engine.url,
                engine.model,
                api_key=os.environ.get(engine.api_key_env) or "none",
                adapters=engine.adapters,
                context_tokens=engine.context_tokens,
            )
        if engine.kind == "vllm":
            from inhouse_server.vllm.engine import VllmEngine

            self._vllm = VllmEngine.of(engine, self.registry, self.state_dir)
            return self._vllm
        from inhouse_training import load_engine, resolve_base_model

        base, weights = resolve_base_model(self.settings.base_model), self._weights()
        log.info("loading %s, weights: %s", self.settings.base_model, weights)
        if self._models is not None:
            return self._models.engine(self.settings.base_model, self.name, self.registry, engine.batched, weights)
        return load_engine(base, self.registry.verify, engine.batched, weights)

    def _weights(self) -> Weights:
        """What answers now is answered with.

        Raises:
            InhouseError: the base model cannot be had, or not with the weights that are asked for.
        """
        from inhouse_training import answering_weights, resolve_base_model

        asked = self.settings.engine.weights
        base = resolve_base_model(self.settings.base_model)
        return answering_weights(asked, asked == "auto" and self._trained_in_4bit(), base, self._current_adapter())

    def _current_adapter(self) -> Path | None:
        """The folder of the current version, if there is one and it is there."""
        current = self.registry.current()
        return self.registry.root / current if current is not None and self.registry.has(current) else None

    def _trained_in_4bit(self) -> bool:
        """Of the current version; before there is one, of what the configured recipe would train."""
        from inhouse_training import load_recipe, trains_in_4bit

        # Where it is gone or damaged, who asks for it is told, and who asks the base model has an answer.
        with suppress(InhouseError):
            if (current := self.registry.current()) is not None:
                return trains_in_4bit(self.registry.get(current).manifest.recipe)
        try:
            return load_recipe(self.settings.recipe).trainer.load_in_4bit
        except InhouseError as error:  # it trains nothing then, and questions to the base model need no recipe
            log.warning("%s So answers are made with full weights.", error.problem)
            return False


def fetch_base_model(settings: Settings, progress: Progress) -> None:
    """Have the base model on this machine, where it answers in this process.

    Raises:
        InhouseError: it cannot be had.
    """
    if settings.engine.kind == "transformers":
        from inhouse_training import resolve_base_model

        resolve_base_model(settings.base_model, progress)


def find_repository(path: Path) -> tuple[Repository, Settings, Path]:
    """The repository that ``path`` lies in, as its settings want it read; the settings, and the state directory.

    Raises:
        NotARepository: ``path`` is not in a git work tree.
        InvalidSettings: `inhouse.toml` is wrong.
    """
    repository = Repository.open(path)
    settings = load_settings(repository.root)
    state_dir = settings.state_path(repository.root)
    repository = repository.excluding(settings.exclude).apart_from(state_dir).with_wiki(settings.wiki)
    return repository, settings, settings.state_path(repository.root)
