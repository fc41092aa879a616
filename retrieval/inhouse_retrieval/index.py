"""The index of one repository: build it, refresh it, search it.

``refresh`` works in steps that each leave a usable index: files are cut into chunks and become searchable by
words; their vectors are computed and kept a few at a time; the vector store is brought in line. Killed at any
point, the next refresh goes on from there, and no vector that was kept is computed again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from inhouse_retrieval.catalog import Catalog
from inhouse_retrieval.catalog_file import CatalogCorrupt
from inhouse_retrieval.chunking import CHUNKER_VERSION
from inhouse_retrieval.documents import Documents
from inhouse_retrieval.embedding import Encoder, Vectors
from inhouse_retrieval.encoders.choice import load_encoder
from inhouse_retrieval.errors import Busy, StateUnwritable
from inhouse_retrieval.held_catalog import HeldCatalog
from inhouse_retrieval.index_report import IndexReport, IndexStatus
from inhouse_retrieval.mirror import Mirror
from inhouse_retrieval.missing_vectors import MissingVectors
from inhouse_retrieval.passage import SearchResult
from inhouse_retrieval.pending import PendingFiles
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.pull_request_pages import PULL_REQUESTS_READ, PullRequestPages
from inhouse_retrieval.refresh import Refresh
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.reranking import Reranker
from inhouse_retrieval.search import Document, Query, Weights, hybrid_search, leg_depth
from inhouse_retrieval.secrets import RULES
from inhouse_retrieval.terms import match_expression
from inhouse_retrieval.vector_store import VectorFolder, VectorPlace
from inhouse_retrieval.wiki import Wiki
from inhouse_retrieval.wiki_dates import DatedPages
from inhouse_retrieval.within import EVERYWHERE, Within

_log = logging.getLogger(__name__)
CATALOG = "catalog.sqlite"
"""The file of the catalog in a state directory."""
LONGEST_QUERY = 20_000
"""Characters of a query that are looked at: more than any encoder reads, and few enough to be split into words and
tokens in a moment."""
_V = TypeVar("_V")


class Index:
    """One repository's index, held by one process. Methods may be called from any thread.

    Searches go on while a refresh runs: the lock is never held while text is being embedded.
    """

    def __init__(
        self,
        repository: Repository,
        state_dir: Path,
        encoder: Encoder,
        lock: FileLock,
        vectors: VectorPlace,
        reranker: Reranker | None = None,
    ) -> None:
        self.repository = repository
        self.state_dir = state_dir
        self.wiki = Wiki(repository)
        self._reranker = reranker
        self._file_lock = lock
        self._refreshing = threading.Lock()
        self._held = HeldCatalog(state_dir / CATALOG)
        self._lock = self._held.lock
        self._documents = Documents(repository, self.wiki, encoder, self._held)
        self._pending = PendingFiles(self._held, self._documents)
        self._mirror = Mirror(self._held, vectors, state_dir, self._refreshing)
        identity = f"{encoder.name} {CHUNKER_VERSION} {RULES}"
        self._pages = PullRequestPages(
            repository, state_dir, encoder.name, identity, self._documents.cut, self._held.lock
        )
        self._refresh = Refresh(
            self._documents,
            self._held,
            MissingVectors(encoder, self._held),
            self._mirror,
            self._pages,
            self._pending,
            identity,
        )

    @property
    def _catalog(self) -> Catalog:
        return self._held.catalog

    @property
    def encoder(self) -> Encoder:
        """What makes this index's vectors."""
        return self._documents.encoder

    @classmethod
    def open(
        cls,
        repository: Repository,
        state_dir: Path,
        encoder: Encoder | None = None,
        vectors: VectorPlace | None = None,
        reranker: Reranker | None = None,
    ) -> Index:
        """Take hold of the index in ``state_dir``, creating what is missing and rebuilding what is corrupt.

        Args:
            encoder: what makes the vectors; the bundled one by default.
            vectors: where Chroma keeps the vectors, closed with the index or when that does not open; a folder in
                ``state_dir`` by default.
            reranker: what orders the best passages of each search anew; by default nothing does.

        Raises:
            Busy: another process, or another index of this one, holds it.
            StateUnwritable: the folder is read-only or the disk is full.
        """
        state_dir = Path(state_dir)
        place = vectors or VectorFolder(state_dir / "vectors")
        try:
            return cls._open(repository, state_dir, encoder, place, reranker)
        except BaseException:
            place.close()
            raise

    @classmethod
    def _open(
        cls,
        repository: Repository,
        state_dir: Path,
        encoder: Encoder | None,
        vectors: VectorPlace,
        reranker: Reranker | None,
    ) -> Index:
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            ignore = state_dir / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            # Not local to this thread: the owner opens the index in one and closes it in another.
            lock = FileLock(state_dir / "index.lock", timeout=0, thread_local=False)
            lock.acquire()
            (state_dir / "index.pid").write_text(f"{os.getpid()}\n")
        except Timeout:
            raise Busy(
                f"Another inhouse process{_holder(state_dir)} holds the index of this repository.",
                "Use that one, or stop it and try again.",
            ) from None
        except OSError as error:
            raise StateUnwritable(
                f"{state_dir} cannot be written: {error.strerror or error}.",
                "Make the folder writable, free some disk space, or set state_dir to another folder.",
            ) from error
        try:
            return cls(repository, state_dir, encoder or load_encoder(), lock, vectors, reranker)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Let go of the index. A refresh under way in another thread stops with :class:`Cancelled`."""
        self._held.closed = True
        with self._refreshing, self._lock:
            self._mirror.close()
            self._catalog.close()
            with suppress(OSError):
                if self._file_lock.is_locked:
                    (self.state_dir / "index.pid").unlink(missing_ok=True)
            self._file_lock.release()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- refresh ---------------------------------------------------------------------------------------------

    def refresh(self, progress: Progress = no_progress, embed: bool = True) -> IndexReport:
        """Bring the index in line with the work tree.

        Args:
            embed: ``False`` stops once everything can be found by its words, before the slow part.

        Raises:
            NoCommits: there is nothing to index yet.
            StateUnwritable: the disk is full or the folder read-only. What was done so far is kept.
            VectorsUnreachable: the server of the vectors is gone. All else was done, and words find everything.
            Cancelled: by ``progress``, or since the index was closed. What was done so far is kept.
        """
        with self._refreshing:
            catalog = self._catalog
            try:
                return self._refresh.everything(progress, embed)
            except CatalogCorrupt as error:
                self._rebuild_catalog(catalog, error)
                return self._refresh.everything(progress, embed)

    def refresh_files(self, paths: Collection[str], progress: Progress = no_progress) -> IndexReport:
        """Bring the index in line with some files, of which an editor or the file system told that they changed.

        Takes as long for a large repository as for a small one. Where that is not possible (nothing is indexed yet, a
        path decides about others, or they are too many) this is a :meth:`refresh`, with the same errors.

        Args:
            paths: of files and folders, relative to the root, with forward slashes.
        """
        with self._refreshing:
            catalog = self._catalog
            try:
                return self._refresh.named(sorted(set(paths)), progress) or self._refresh.everything(
                    progress, embed=True
                )
            except CatalogCorrupt as error:
                self._rebuild_catalog(catalog, error)
                return self._refresh.everything(progress, embed=True)

    def _rebuild_catalog(self, failed: Catalog, error: CatalogCorrupt) -> None:
        """Begin anew in place of ``failed``, unless another thread has done so."""
        with self._lock:
            if self._catalog is not failed:
                return
            _log.warning("the catalog is corrupt and is rebuilt: %s", error)
            self._mirror.let_go()
            self._held.begin_anew()

    # -- search ----------------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        limit: int = 10,
        open_documents: Mapping[str, str] | None = None,
        weights: Weights | None = None,
        pull_requests: bool = True,
        within: Within = EVERYWHERE,
        rerank: bool = True,
    ) -> SearchResult:
        """Passages for ``query``, best first, as the files are now.

        Args:
            query: its first :data:`LONGEST_QUERY` characters count.
            limit: passages of code and wiki at most; pull requests come beside them, one for each five, and those that
                ``query`` names.
            open_documents: unsaved text by path; it stands for the file on disk.
            weights: of the legs, other than the default ones.
            pull_requests: whether they come beside; they speak of the whole repository.
            within: the part of the repository that is searched. Word frequencies are those of all of it.
            rerank: whether the reranker, where there is one, looks at them.

        Raises:
            InhouseError: the index cannot be read or was closed, or the reranker cannot be loaded.
        """
        # A question may hold half of a surrogate pair, which no tokenizer reads.
        query = query[:LONGEST_QUERY].encode("utf-8", "replace").decode()
        return self._recovering(
            lambda: self._search(
                query, limit, open_documents or {}, weights or Weights(), pull_requests, within, rerank
            )
        )

    def _recovering(self, look: Callable[[], _V]) -> _V:
        """What ``look`` gives; a catalog that turns out to be corrupt is built anew first, as far as words go."""
        catalog = self._catalog
        try:
            return look()
        except CatalogCorrupt as error:
            with self._refreshing:
                self._rebuild_catalog(catalog, error)
            self.refresh(embed=False)
            return look()

    def _search(
        self,
        query: str,
        limit: int,
        open_documents: Mapping[str, str],
        weights: Weights,
        pull_requests: bool,
        within: Within,
        rerank: bool,
    ) -> SearchResult:
        self._held.check_open()
        pending = self._pending.count()
        with self._lock:
            commit = self._catalog.meta("commit") or ""
        reranker = self._reranker if rerank else None
        looked_at = max(limit, reranker.choice.passages) if reranker is not None and limit > 0 else limit
        question: Vectors | None = None
        nearest: list[tuple[str, float]] = []
        if match_expression(query) is not None and self._has_vectors():
            question = self.encoder.encode_query(query)
            nearest = self._mirror.nearest_within(question, leg_depth(looked_at), within)
        overlay: dict[str, Document | None] = {
            # An editor may hold half of a surrogate pair, which no file can.
            path: self._documents.unsaved(path, text.encode("utf-8", "replace"))
            for path, text in open_documents.items()
            if not self._pages.holds(path) and within.holds(path)
        }

        def similarity(texts: Mapping[str, str]) -> dict[str, float]:
            vectors = self._documents.vectors_of(texts)
            return {key: float(vectors[key] @ question) for key in vectors} if question is not None else {}

        votes = self._held.change_votes()
        passages = hybrid_search(
            self._catalog,
            self._lock,
            self.encoder.name,
            Query(query, looked_at, question, nearest, weights, within),
            votes,
            commit,
            overlay,
            self._documents.reread,
            similarity,
            DatedPages(self.repository, self.wiki, votes),
        )
        to_rerank = reranked = 0
        if reranker is not None:
            anew = reranker.rerank(query, passages)
            passages, to_rerank, reranked = anew.passages[:limit], anew.looked_at, anew.scored
        if pull_requests and within.everywhere:
            passages = self._pages.beside(self._catalog, passages, query, question, limit, commit)
        return SearchResult(passages, commit, pending, self._mirror.by_words_alone(), to_rerank, reranked)

    def load_reranker(self) -> None:
        """Wait until the reranker, where there is one, is loaded: for a process that searches once and ends.

        Raises:
            InhouseError: it cannot be loaded.
        """
        if self._reranker is not None:
            self._reranker.load()

    def pull_request_page(self, path: str) -> str | None:
        """The page at ``path``, as a passage of a pull request names it; ``None`` when there is none."""
        return self._recovering(lambda: self._pages.text(self._catalog, path))

    def _has_vectors(self) -> bool:
        """Whether there are vectors that a question's can be compared with: those of another encoder cannot."""
        with self._lock:
            return self._mirror.holds_any() and not self._held.former_encoder(self.encoder.name)

    # -- names -----------------------------------------------------------------------------------------------

    def commit(self) -> str | None:
        """HEAD at the last refresh; ``None`` when there was none, or one holds the catalog."""
        return self._held.at_once(lambda: self._catalog.meta("commit"))

    def paths_defining(self, name: str) -> list[str]:
        """Files in which ``name`` was defined when they were indexed; none while a refresh holds the catalog."""
        return self._held.at_once(lambda: self._catalog.paths_defining(name)) or []

    def paths_containing(self, text: str) -> list[str]:
        """Files in which ``text`` occurred when they were indexed, upper or lower case."""
        return self._recovering(lambda: self._containing(text))

    def _containing(self, text: str) -> list[str]:
        with self._lock:
            return self._catalog.paths_containing(text)

    def reads_pull_requests(self) -> bool:
        """Whether pull requests were read: not during a first refresh, nor beside a process that holds the index."""
        return bool(self._held.at_once(lambda: self._catalog.meta(PULL_REQUESTS_READ)))

    def change_named(self, commit: str) -> tuple[int | None, str] | None:
        """Number of the pull request, and title, of the change that ``commit`` landed; ``None`` when not known."""
        return self._held.at_once(lambda: self._catalog.history.change_named(commit))

    # -- status ----------------------------------------------------------------------------------------------

    def status(self) -> IndexStatus:
        """What the index holds, and how far the work tree has moved on."""
        return self._recovering(self._status)

    def _status(self) -> IndexStatus:
        pending = self._pending.count(at_most_old=0.0)
        with self._lock:
            files, chunks, missing = self._catalog.counts()
            return IndexStatus(self._catalog.meta("commit") or "", files, chunks, pending, missing)


def _holder(state_dir: Path) -> str:
    try:
        pid = int((state_dir / "index.pid").read_text())
    except (OSError, ValueError):
        return ""
    return f" (process {pid})"
