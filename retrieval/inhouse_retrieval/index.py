"""The index of one repository: build it, refresh it, search it.

``refresh`` works in steps that each leave a usable index: files are cut into chunks and become searchable by
words; their vectors are computed and kept a few at a time; the vector store is brought in line. Killed at any
point, the next refresh goes on from there, and no vector that was kept is computed again.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from filelock import FileLock, Timeout

from inhouse_retrieval.catalog import Catalog, CatalogCorrupt, set_aside, vector_key
from inhouse_retrieval.chunking import CHUNKER_VERSION, Chunk, chunk_text
from inhouse_retrieval.embedding import Encoder, Vectors
from inhouse_retrieval.encoders.choice import load_encoder
from inhouse_retrieval.errors import Busy, Cancelled, InhouseError, StateUnwritable, VectorsUnreachable
from inhouse_retrieval.history import MAX_CHANGES, read_changes
from inhouse_retrieval.history_votes import ChangeVotes
from inhouse_retrieval.html_pages import is_html, lines_of_source, page_name, read_html
from inhouse_retrieval.passage import SearchResult
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.pull_request_pages import PullRequestPages
from inhouse_retrieval.reading import NotText, decode, reason_by_size
from inhouse_retrieval.repository import Repository, SkippedFile, Snapshot, TrackedFile
from inhouse_retrieval.reranking import Reranker
from inhouse_retrieval.search import UNCHANGED, Document, Query, Weights, hybrid_search, leg_depth
from inhouse_retrieval.secrets import RULES, redact, redactions_in
from inhouse_retrieval.syntax import has_grammar
from inhouse_retrieval.terms import match_expression
from inhouse_retrieval.vector_store import MirrorLost, VectorFolder, VectorPlace, VectorStore
from inhouse_retrieval.wiki import Wiki
from inhouse_retrieval.wiki_dates import DatedPages
from inhouse_retrieval.within import EVERYWHERE, Within

_log = logging.getLogger(__name__)
_K = TypeVar("_K")
_V = TypeVar("_V")

_FILES_A_STEP = 20
_VECTORS_A_STEP = 32
"""Vectors are kept this many at a time: a kill loses less than a second of embedding."""
_TEXTS_A_PAGE = 4096
"""Texts held at once while they wait for their vectors."""
_MIRROR_A_STEP = 1000
_PENDING_SECONDS = 2.0
"""Searches within this time share one look at the whole work tree. Hits themselves are always checked."""
_LONG_LOOK_SECONDS = 0.1
_AT_ONCE_S = 0.1
"""A search holds the lock for less; the first refresh of a repository for much longer."""
_NAMED_AT_MOST = 200
"""Files that are looked at by name; for more, a look at all of them takes no longer."""
_DECIDE_ABOUT_OTHERS = frozenset({".gitignore", ".gitattributes", "inhouse.toml"})
_UNEMBEDDED = "unembedded"
_LOOK_SHARE = 20
"""The number of pending files is counted anew after this many times as long as that takes."""
_VANISHED = "vanished while reading"
_CUTS_KEPT = 256
_FILLED_AT_ONCE = 2_000
"""Records that a search has put back before it answers; more are put back beside it, while words find."""
_EXACT_AT_MOST = 5_000
"""Chunks of a part of the repository that are compared one by one; of a larger part Chroma finds enough."""
_APART_S = 5.0
"""How long searches go by words alone before they try a server again that did not answer."""
_ROOM_FOR_VECTORS = 20_000_000
"""Bytes below which a vector store that cannot be built is put down to the disk."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a refresh did.

    Attributes:
        files: files of the work tree that the index now holds.
        chunks: chunks that they were cut into.
        embedded: chunks whose vector was computed by this refresh.
        reused: chunks whose vector was there already.
        skipped: what was not indexed, each with its reason.
        seconds: wall time.
        commit: HEAD at the beginning.
        redactions: secrets that were taken out of what the index holds: ``(path, line, kind)``, never the value.
        without_syntax: suffix -> how many of the files have no grammar and were cut by headings and indentation.
        changed: files that were added, changed or deleted since the refresh before.
        encoder: what the vectors were made by.
        former_encoder: what they had been made by before this refresh, where that was another one; empty elsewhere.
        named: it looked at named files only, and ``skipped``, ``redactions`` and ``without_syntax`` tell of those.
    """

    files: int
    chunks: int
    embedded: int
    reused: int
    skipped: tuple[SkippedFile, ...]
    seconds: float
    commit: str
    redactions: tuple[tuple[str, int, str], ...] = ()
    without_syntax: Mapping[str, int] = field(default_factory=dict)
    changed: int = 0
    encoder: str = ""
    former_encoder: str = ""
    named: bool = False


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What the index holds.

    Attributes:
        commit: HEAD at the last refresh; empty when there was none.
        pending: files added, changed or deleted since.
        unembedded: chunks that only the lexical leg can find so far.
    """

    commit: str
    files: int
    chunks: int
    pending: int
    unembedded: int = 0


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
        self._encoder = encoder
        self._reranker = reranker
        self._file_lock = lock
        self._lock = threading.RLock()
        self._refreshing = threading.Lock()
        self._closed = False
        self._vectors = vectors
        self._store: VectorStore | None = None
        self._apart_until = 0.0
        self._apart = False
        self._filling: threading.Thread | None = None
        self._pending: tuple[float, int] | None = None
        self._look_seconds = 0.0
        self._looking: threading.Thread | None = None
        self._loading: threading.Thread | None = None
        self._votes: ChangeVotes | None = None
        self._unembedded = 0
        self._cuts: OrderedDict[tuple[str, str], tuple[Chunk, ...]] = OrderedDict()
        self._loose: OrderedDict[str, Vectors] = OrderedDict()
        self._identity = f"{encoder.name} {CHUNKER_VERSION} {RULES}"
        self._pages = PullRequestPages(repository, state_dir, encoder.name, self._identity, self._cut, self._lock)
        self._catalog = self._open_catalog()
        with suppress(CatalogCorrupt):
            # Counting takes as long as the index is large; a kill leaves a number that the next refresh corrects.
            known = self._catalog.meta(_UNEMBEDDED)
            self._unembedded = self._catalog.counts()[2] if known is None else int(known)

    @property
    def encoder(self) -> Encoder:
        """What makes this index's vectors."""
        return self._encoder

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
            vectors: where Chroma keeps the vectors, closed with the index; a folder in ``state_dir`` by default.
            reranker: what orders the best passages of each search anew; by default nothing does.

        Raises:
            Busy: another process, or another index of this one, holds it.
            StateUnwritable: the folder is read-only or the disk is full.
        """
        state_dir = Path(state_dir)
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
            place = vectors or VectorFolder(state_dir / "vectors")
            return cls(repository, state_dir, encoder or load_encoder(), lock, place, reranker)
        except BaseException:
            lock.release()
            raise

    def _open_catalog(self) -> Catalog:
        catalog, rebuilt = Catalog.open_or_rebuild(self.state_dir / "catalog.sqlite")
        if rebuilt:
            # What the vector store holds is unknown now.
            catalog.set_meta("generation", str(time.time_ns()))
        return catalog

    def close(self) -> None:
        """Let go of the index. A refresh under way in another thread stops with :class:`Cancelled`."""
        self._closed = True
        with self._refreshing, self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None
            self._vectors.close()
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
                return self._refresh(progress, embed)
            except CatalogCorrupt as error:
                self._rebuild_catalog(catalog, error)
                return self._refresh(progress, embed)

    def _refresh(self, progress: Progress, embed: bool) -> IndexReport:
        started = time.monotonic()
        self._check(progress, "reading", 0, None)
        snapshot = self._work_tree()
        if embed:
            self._load_encoder_early(snapshot)
        with self._lock:
            former = self._former_encoder()
            if former:
                _log.warning("the encoder was %s and is %s: everything is embedded again", former, self._encoder.name)
                self._forget_store()
            changed = self._refresh_chunks(snapshot, progress)
            self._catalog.set_meta("commit", snapshot.commit)
            files, chunks, missing = self._catalog.counts()
            self._note_unembedded(missing)
            self._pending = (time.monotonic(), 0)
        self._refresh_history(snapshot.commit, progress)
        unread = self._pages.refresh(self._catalog, snapshot.commit, lambda *step: self._check(progress, *step))
        embedded = 0
        if embed:
            embedded = self._embed_missing(progress)
            self._embed_titles(progress)
            unreachable = self._try_to_mirror(progress)
            if self._embed("embedding pull requests", self._catalog.pull_requests.without_vector, None, progress):
                self._pages.forget_vectors()
            with self._lock:
                self._catalog.prune_vectors()
                chunks = self._catalog.counts()[1]
            if unreachable is not None:
                raise unreachable
        with self._lock:
            read = [SkippedFile(path, reason) for path, reason in self._catalog.skipped()]
            redactions = tuple(self._catalog.redactions())
            plain = Counter(PurePosixPath(path).suffix for path in self._catalog.paths() if not has_grammar(path))
        skipped = sorted([*snapshot.skipped, *read, *unread], key=lambda file: file.path)
        reused = max(0, chunks - (embedded if embed else missing))
        seconds = time.monotonic() - started
        return IndexReport(
            files,
            chunks,
            embedded,
            reused,
            tuple(skipped),
            seconds,
            snapshot.commit,
            redactions,
            dict(plain),
            changed,
            self._encoder.name,
            former,
        )

    def _former_encoder(self) -> str:
        """The encoder of the catalog's chunks, where it is another one; empty elsewhere."""
        name = (self._catalog.meta("encoder") or "").rsplit(" ", 2)[0]
        return "" if name == self._encoder.name else name

    def _note_unembedded(self, count: int) -> None:
        self._unembedded = count
        self._catalog.set_meta(_UNEMBEDDED, str(count))

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
                return self._refresh_files(sorted(set(paths)), progress) or self._refresh(progress, embed=True)
            except CatalogCorrupt as error:
                self._rebuild_catalog(catalog, error)
                return self._refresh(progress, embed=True)

    def _refresh_files(self, paths: Sequence[str], progress: Progress) -> IndexReport | None:
        started = time.monotonic()
        decisive = any(PurePosixPath(path).name in _DECIDE_ABOUT_OTHERS or self.wiki.holds(path) for path in paths)
        if decisive or not 0 < len(paths) <= _NAMED_AT_MOST:
            return None
        self._check(progress, "reading", 0, None)
        with self._lock:
            commit = self._catalog.meta("commit")
            if not commit or self._catalog.meta("encoder") != self._identity:
                return None
            known = self._catalog.files_below(paths)
        files, skipped = self.repository.files_below(paths)
        now = {file.path for file in files}
        gone = [path for path in known if path not in now]
        changed = [file for file in files if known.get(file.path) != file.blob_id]
        if len(changed) + len(gone) > _NAMED_AT_MOST:
            return None
        texts: dict[str, str] = {}
        unread: list[SkippedFile] = []
        redactions: list[tuple[str, int, str]] = []
        step: list[tuple[str, str, Sequence[Chunk] | str]] = []
        for file in changed:
            read = self._read_current(file.path) or SkippedFile(file.path, _VANISHED)
            if isinstance(read, SkippedFile):
                unread.append(read)
                (gone if read.reason == _VANISHED else []).append(file.path)
                step += [(file.path, file.blob_id, read.reason)] if read.reason != _VANISHED else []
                continue
            current, text = read
            redactions += [(file.path, found.line, found.kind) for found in redactions_in(text)]
            chunks = self._cut(file.path, text)
            texts |= {vector_key(self._encoder.name, chunk): chunk.embedded for chunk in chunks}
            step.append((file.path, current.blob_id, chunks))
        with self._lock:
            if self._closed:
                raise _closed()
            self._catalog.remove(gone)
            self._catalog.replace(self._encoder.name, step)
            held = self._catalog.vectors(list(texts))
            missing = [(key, text) for key, text in texts.items() if key not in held]
            self._unembedded += len(missing)
            if self._pending is not None:
                self._pending = (self._pending[0], max(0, self._pending[1] - len(changed) - len(gone)))
        if missing:
            self._wait_for_encoder()
            self._embed_page("embedding", missing, 0, len(missing), progress)
        self._mirror_keys(list(texts))
        with self._lock:
            indexed, chunks_held = self._catalog.sizes()
        return IndexReport(
            indexed,
            chunks_held,
            len(missing),
            max(0, chunks_held - self._unembedded - len(missing)),
            tuple(sorted([*skipped, *unread], key=lambda file: file.path)),
            time.monotonic() - started,
            commit,
            tuple(redactions),
            dict(Counter(PurePosixPath(file.path).suffix for file in changed if not has_grammar(file.path))),
            len(changed) + len(gone),
            encoder=self._encoder.name,
            named=True,
        )

    def _mirror_keys(self, keys: Sequence[str]) -> None:
        """Put some records into the vector store; one that was lost gets them with all the others."""
        if not keys:
            return
        try:
            self._vectors.prepare()
            with self._lock:
                vectors = self._catalog.vectors(self._catalog.not_mirrored(keys))
                if vectors:
                    self._opened_store().add(list(vectors), np.stack(list(vectors.values())))
                    self._catalog.note_mirrored(added=list(vectors))
        except MirrorLost as error:
            self._give_up_store(error)
            self._mirror()
        except VectorsUnreachable as error:
            self._set_apart(error)
            raise

    def _refresh_chunks(self, snapshot: Snapshot, progress: Progress) -> int:
        """Cut what changed. Returns how many files that were."""
        identity = self._identity
        known = self._catalog.files() if self._catalog.meta("encoder") == identity else {}
        if not known:
            # Nothing indexed, or by other means: cut everything; what has a vector under these means keeps
            # it.
            self._catalog.remove(self._catalog.files())
            self._catalog.set_meta("encoder", identity)
            self._catalog.set_meta("history", "")
        now = {file.path for file in snapshot.files}
        gone = [path for path in known if path not in now]
        if gone:
            self._catalog.remove(gone)
        changed = tuple(file for file in snapshot.files if known.get(file.path) != file.blob_id)
        step: list[tuple[str, str, Sequence[Chunk] | str]] = []
        for done, file in enumerate(changed, start=1):
            read = self._read_current(file.path) or SkippedFile(file.path, _VANISHED)
            if isinstance(read, SkippedFile):
                if read.reason == _VANISHED:
                    self._catalog.remove([file.path])
                else:
                    step.append((file.path, file.blob_id, read.reason))
            else:
                current, text = read
                step.append((file.path, current.blob_id, self._cut(file.path, text)))
            if len(step) >= _FILES_A_STEP or done == len(changed):
                self._catalog.replace(self._encoder.name, step)
                step = []
                self._check(progress, "reading", done, len(changed))
        return len(changed) + len(gone)

    def _work_tree(self) -> Snapshot:
        """The files of the repository and the wiki pages outside it, as they are now."""
        snapshot = self.repository.work_tree()
        pages, skipped = self.wiki.work_tree()
        return replace(snapshot, files=(*snapshot.files, *pages), skipped=(*snapshot.skipped, *skipped))

    def _read_current(self, path: str) -> tuple[TrackedFile, str] | SkippedFile | None:
        return self.wiki.read_current(path) if self.wiki.holds(path) else self.repository.read_current(path)

    def _current_blob(self, path: str) -> str | None:
        return self.wiki.current_blob(path) if self.wiki.holds(path) else self.repository.current_blob(path)

    def _refresh_history(self, commit: str, progress: Progress) -> None:
        """Take in the changes that lead to ``commit``; those of a history that was left are forgotten.

        Git reads without the lock: in a large repository that takes a while, and searches go on.
        """
        with self._lock:
            known = self._catalog.meta("history")
        if known == commit:
            return
        self._check(progress, "reading the history", 0, None)
        chain = self.repository.git("rev-list", "--first-parent", f"--max-count={MAX_CHANGES}", commit).decode().split()
        since = known if known in chain else None
        changes = [change for change in read_changes(self.repository, commit, since) if change.parents]
        with self._lock:
            if self._closed:
                raise _closed()
            self._catalog.add_changes(self._encoder.name, reversed(changes), MAX_CHANGES, anew=since is None)
            self._catalog.set_meta("history", commit)
            self._votes = None

    def _load_encoder_early(self, snapshot: Snapshot) -> None:
        """Load the model while files are read, when there is much to embed."""
        with self._lock:
            known = self._catalog.files()
        if sum(known.get(file.path) != file.blob_id for file in snapshot.files) >= _FILES_A_STEP:
            self._load_encoder()

    def _load_encoder(self) -> threading.Thread:
        """Load the model beside the work, once. A failure shows when it is needed."""

        def load() -> None:
            with suppress(Exception):
                self._encoder.encode_query("")

        if self._loading is None:
            self._loading = threading.Thread(target=load, name="encoder-loading", daemon=True)
            self._loading.start()
        return self._loading

    def _wait_for_encoder(self) -> None:
        """Wait for the model, but no longer than this index is open: loading takes seconds and cannot be stopped."""
        loading = self._load_encoder()
        while loading.is_alive():
            loading.join(0.1)
            if self._closed:
                raise _closed()

    def _cut(self, path: str, text: str) -> list[Chunk]:
        if is_html(path) and self.wiki.is_page(path):
            page = read_html(text)
            # A secret that stood between tags is seen only now.
            chunks = chunk_text(
                page_name(path), redact(page.text)[0], self._encoder.count_tokens, self._encoder.max_tokens
            )
            return lines_of_source(path, page, chunks)
        return chunk_text(path, text, self._encoder.count_tokens, self._encoder.max_tokens)

    def _embed_missing(self, progress: Progress) -> int:
        with self._lock:
            total = self._catalog.counts()[2]
        return self._embed("embedding", self._catalog.without_vector, total, progress)

    def _embed_titles(self, progress: Progress) -> None:
        """The titles of the history's changes; much shorter than chunks, and searched by numpy alone."""
        if self._embed("embedding the history", self._catalog.titles_without_vector, None, progress):
            with self._lock:
                self._votes = None

    def _embed(
        self, stage: str, next_page: Callable[[int], list[tuple[str, str]]], total: int | None, progress: Progress
    ) -> int:
        """Compute and keep the vectors of ``(key, text)`` pairs, page after page, until there are no more."""
        done = 0
        while True:
            with self._lock:
                page = next_page(_TEXTS_A_PAGE)
            if not page:
                return done
            self._wait_for_encoder()
            self._embed_page(stage, page, done, total, progress)
            done += len(page)

    def _embed_page(
        self, stage: str, missing: Sequence[tuple[str, str]], done: int, total: int | None, progress: Progress
    ) -> None:
        self._check(progress, stage, done, total)
        # Like lengths together, so that little of a batch is padding; longest first, so that time left only
        # improves.
        lengths = self._encoder.count_tokens([text for _, text in missing])
        order = sorted(range(len(missing)), key=lambda at: -lengths[at])
        for at in range(0, len(order), _VECTORS_A_STEP):
            batch = [missing[row] for row in order[at : at + _VECTORS_A_STEP]]
            vectors = self._encoder.encode_documents([text for _, text in batch])
            with self._lock:
                if self._closed:
                    raise _closed()
                self._catalog.add_vectors([key for key, _ in batch], vectors)
                self._note_unembedded(max(0, self._unembedded - len(batch)))
            self._check(progress, stage, done + min(at + _VECTORS_A_STEP, len(order)), total)

    def _check(self, progress: Progress, stage: str, done: int, total: int | None) -> None:
        if self._closed:
            raise _closed()
        progress(stage, done, total)

    # -- the vector store ------------------------------------------------------------------------------------

    def _try_to_mirror(self, progress: Progress) -> VectorsUnreachable | None:
        """Bring the vector store in line; why not, where its server is gone: a refresh has more to do than that."""
        try:
            self._mirror(progress)
        except VectorsUnreachable as error:
            self._set_apart(error)
            return error
        return None

    def _mirror(self, progress: Progress = no_progress) -> None:
        """Bring the vector store in line with the catalog; a lost one is filled again from the cached
        vectors."""
        for _ in range(2):
            with self._lock:
                add, drop = self._catalog.to_mirror()
            if not add and not drop:
                return
            try:
                self._mirror_changes(progress)
                return
            except MirrorLost as error:
                self._give_up_store(error)
        if shutil.disk_usage(self.state_dir).free < _ROOM_FOR_VECTORS:
            # Chroma says many things when the disk is full, few of them that.
            raise StateUnwritable(
                f"The vectors in {self.state_dir} cannot be written: the disk is full.",
                "Free some disk space, then try again; what was embedded is kept.",
            )
        raise InhouseError("The vector store cannot be built.", f"Remove {self._vectors.holds} and index again.")

    def _mirror_changes(self, progress: Progress) -> None:
        self._vectors.prepare()
        with self._lock:
            store = self._opened_store()
            add, drop = self._catalog.to_mirror()  # opening may have found records missing
        for at in range(0, len(add), _MIRROR_A_STEP):
            keys = add[at : at + _MIRROR_A_STEP]
            with self._lock:
                if self._closed:
                    raise _closed()
                vectors = self._catalog.vectors(keys)
                store.add(list(vectors), np.stack(list(vectors.values())))
                self._catalog.note_mirrored(added=list(vectors))
            self._check(progress, "storing vectors", min(at + _MIRROR_A_STEP, len(add)), len(add))
        if drop:
            with self._lock:
                store.remove(drop)
                self._catalog.note_mirrored(dropped=drop)

    def _opened_store(self) -> VectorStore:
        if self._store is None:
            generation = int(self._catalog.meta("generation") or 0)
            store = self._vectors.open(generation)
            # A kill between a write and its note leaves more records than noted, which is harmless.
            if store.count() < self._catalog.mirrored():
                store.close()
                raise MirrorLost("it holds fewer records than were written")
            self._store = store
            self._apart = False
        return self._store

    def _set_apart(self, error: VectorsUnreachable) -> None:
        """The server of the vectors is gone: words find for a while, then it is tried again."""
        with self._lock:
            if not self._apart:
                _log.warning("searching by words alone: %s", error)
            if self._store is not None:
                self._store.close()
                self._store = None
            self._apart = True
            self._apart_until = time.monotonic() + _APART_S

    def _give_up_store(self, error: MirrorLost) -> None:
        _log.warning("the vector store is rebuilt from cached vectors: %s", error)
        self._forget_store()

    def _forget_store(self) -> None:
        """Begin with an empty store."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None
            self._catalog.forget_mirror()
            self._catalog.set_meta("generation", str(int(self._catalog.meta("generation") or 0) + 1))

    def _rebuild_catalog(self, failed: Catalog, error: CatalogCorrupt) -> None:
        """Begin anew in place of ``failed``, unless another thread has done so."""
        with self._lock:
            if self._catalog is not failed:
                return
            _log.warning("the catalog is corrupt and is rebuilt: %s", error)
            if self._store is not None:
                self._store.close()
                self._store = None
            self._catalog.close()
            set_aside(self._catalog.path)
            self._catalog = self._open_catalog()
            self._votes = None
            self._catalog.set_meta("generation", str(time.time_ns()))

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
        query = query.encode("utf-8", "replace").decode()
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
        if self._closed:
            raise _closed()
        pending = self._count_pending()
        with self._lock:
            commit = self._catalog.meta("commit") or ""
        reranker = self._reranker if rerank else None
        looked_at = max(limit, reranker.choice.passages) if reranker is not None and limit > 0 else limit
        question: Vectors | None = None
        nearest: list[tuple[str, float]] = []
        if match_expression(query) is not None and self._has_vectors():
            question = self._encoder.encode_query(query)
            nearest = self._nearest_within(question, leg_depth(looked_at), within)
        overlay: dict[str, Document | None] = {
            # An editor may hold half of a surrogate pair, which no file can.
            path: self._document(path, text.encode("utf-8", "replace"))
            for path, text in open_documents.items()
            if not self._pages.holds(path) and within.holds(path)
        }

        def similarity(texts: Mapping[str, str]) -> dict[str, float]:
            vectors = self._vectors_of(texts)
            return {key: float(vectors[key] @ question) for key in vectors} if question is not None else {}

        votes = self._change_votes()
        passages = hybrid_search(
            self._catalog,
            self._lock,
            self._encoder.name,
            Query(query, looked_at, question, nearest, weights, within),
            votes,
            commit,
            overlay,
            self._reread,
            similarity,
            DatedPages(self.repository, self.wiki, votes),
        )
        to_rerank = reranked = 0
        if reranker is not None:
            anew = reranker.rerank(query, passages)
            passages, to_rerank, reranked = anew.passages[:limit], anew.looked_at, anew.scored
        if pull_requests and within.everywhere:
            passages = self._pages.beside(self._catalog, passages, query, question, limit, commit)
        return SearchResult(passages, commit, pending, self._by_words_alone(), to_rerank, reranked)

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

    def _change_votes(self) -> ChangeVotes:
        with self._lock:
            if self._votes is None:
                changes = self._catalog.changes()
                vectors = self._catalog.vectors([change.vector_key for change in changes])
                self._votes = ChangeVotes(changes, vectors)
            return self._votes

    def _has_vectors(self) -> bool:
        """Whether there are vectors that a question's can be compared with: those of another encoder cannot."""
        with self._lock:
            return (self._apart or self._catalog.is_mirrored()) and not self._former_encoder()

    def _by_words_alone(self) -> int:
        """Chunks that have no vector, or whose vectors are out of reach or not put back yet."""
        filling = self._filling is not None and self._filling.is_alive()
        with self._lock:
            if not self._apart and not filling:
                return self._unembedded
            _, chunks, missing = self._catalog.counts()
            return chunks if self._apart else missing + len(self._catalog.to_mirror()[0])

    def _nearest_within(self, question: Vectors, depth: int, within: Within) -> list[tuple[str, float]]:
        """As :meth:`_nearest`, of the files there: of a small part exactly, of a large one by asking for more."""
        if within.everywhere:
            return self._nearest(question, depth)
        with self._lock:
            keys = self._catalog.vector_keys(within, _EXACT_AT_MOST + 1)
            vectors = self._catalog.vectors(keys) if len(keys) <= _EXACT_AT_MOST else None
        if vectors is not None:
            scored = [(key, float(vector @ question)) for key, vector in vectors.items()]
            return sorted(scored, key=lambda pair: -pair[1])[:depth]
        wanted = depth
        while True:
            found = self._nearest(question, wanted)
            with self._lock:
                seen = self._catalog.chunks_of_vectors([key for key, _ in found], within)
            kept = [pair for pair in found if pair[0] in seen]
            if len(kept) >= depth or len(found) < wanted:
                return kept[:depth]
            wanted *= 4

    def _nearest(self, question: Vectors, depth: int) -> list[tuple[str, float]]:
        """The nearest records; none while the vector store is out of reach or being filled anew."""
        if time.monotonic() < self._apart_until:
            return []
        try:
            for _ in range(2):
                try:
                    self._vectors.prepare()
                    with self._lock:
                        was_apart, store = self._apart, self._opened_store()
                    if was_apart:
                        self._fill_again()
                    with self._lock:
                        return store.nearest(question, depth)
                except MirrorLost as error:
                    self._give_up_store(error)
                    if not self._fill_again():
                        break
        except VectorsUnreachable as error:
            self._set_apart(error)
        except StateUnwritable as full:
            _log.warning("searching by words alone: %s", full)
        return []

    def _fill_again(self) -> bool:
        """Put cached vectors into a store that lacks them: few of them now, many beside the searches.

        Returns whether they are there.
        """
        with self._lock:
            missing = len(self._catalog.to_mirror()[0])
            if missing > _FILLED_AT_ONCE:
                if self._filling is None or not self._filling.is_alive():
                    self._filling = threading.Thread(target=self._fill_beside, name="vectors", daemon=True)
                    self._filling.start()
                return False
        self._mirror()
        return True

    def _fill_beside(self) -> None:
        # The next refresh or search meets what is wrong, and tells.
        with self._refreshing, suppress(InhouseError, CatalogCorrupt, sqlite3.Error):
            if not self._closed:
                self._mirror()

    def _reread(self, path: str, blob_id: str) -> Document | None:
        current = self._current_blob(path)
        if current == blob_id:
            return UNCHANGED
        read = self._read_current(path) if current is not None else None
        if not isinstance(read, tuple):
            return None
        file, text = read
        return file.blob_id, self._cut_once(file, text)

    def _document(self, path: str, data: bytes) -> Document | None:
        """An unsaved buffer under the same rules as a file."""
        if self.repository.reason_by_name(path) or reason_by_size(len(data)):
            return None
        try:
            text = redact(decode(path, data))[0]
        except NotText:
            return None
        file = TrackedFile(path, self.repository.blob_id(data), len(data))
        return file.blob_id, self._cut_once(file, text)

    def _cut_once(self, file: TrackedFile, text: str) -> tuple[Chunk, ...]:
        key = (file.path, file.blob_id)
        with self._lock:
            known = self._cuts.get(key)
        if known is None:
            known = tuple(self._cut(file.path, text))
            with self._lock:
                _keep(self._cuts, key, known, _CUTS_KEPT)
        return known

    def _vectors_of(self, texts: Mapping[str, str]) -> dict[str, Vectors]:
        """Vectors of chunks that may not be indexed; computed ones are remembered, in memory only."""
        with self._lock:
            found = self._catalog.vectors(list(texts))
            found |= {key: self._loose[key] for key in texts if key in self._loose}
        missing = [key for key in texts if key not in found]
        if missing:
            for key, vector in zip(missing, self._encoder.encode_documents([texts[k] for k in missing]), strict=True):
                found[key] = vector
                with self._lock:
                    _keep(self._loose, key, vector, _CUTS_KEPT * 8)
        return found

    # -- names -----------------------------------------------------------------------------------------------

    def commit(self) -> str | None:
        """HEAD at the last refresh; ``None`` when there was none, or one holds the catalog."""
        return self._at_once(lambda: self._catalog.meta("commit"))

    def paths_defining(self, name: str) -> list[str]:
        """Files in which ``name`` was defined when they were indexed; none while a refresh holds the catalog."""
        return self._at_once(lambda: self._catalog.paths_defining(name)) or []

    def paths_containing(self, text: str) -> list[str]:
        """Files in which ``text`` occurred when they were indexed, upper or lower case."""
        return self._recovering(lambda: self._containing(text))

    def _containing(self, text: str) -> list[str]:
        with self._lock:
            return self._catalog.paths_containing(text)

    def change_named(self, commit: str) -> tuple[int | None, str] | None:
        """Number of the pull request, and title, of the change that ``commit`` landed; ``None`` when not known."""
        return self._at_once(lambda: self._catalog.change_named(commit))

    def _at_once(self, look: Callable[[], _V]) -> _V | None:
        """What ``look`` gives; ``None`` when it would have to wait, or when the catalog has to be built anew."""
        if not self._lock.acquire(timeout=_AT_ONCE_S):
            return None
        try:
            if self._closed:
                raise _closed()
            return look()
        except CatalogCorrupt as error:  # the next search or refresh meets it and mends it
            _log.warning("the catalog cannot be read: %s", error)
            return None
        finally:
            self._lock.release()

    # -- status ----------------------------------------------------------------------------------------------

    def status(self) -> IndexStatus:
        """What the index holds, and how far the work tree has moved on."""
        return self._recovering(self._status)

    def _status(self) -> IndexStatus:
        pending = self._count_pending(at_most_old=0.0)
        with self._lock:
            files, chunks, missing = self._catalog.counts()
            return IndexStatus(self._catalog.meta("commit") or "", files, chunks, pending, missing)

    def _count_pending(self, at_most_old: float = _PENDING_SECONDS) -> int:
        with self._lock:
            if at_most_old:
                at_most_old = max(at_most_old, _LOOK_SHARE * self._look_seconds)
            if self._pending is not None and time.monotonic() - self._pending[0] < at_most_old:
                return self._pending[1]
            if self._pending is not None and at_most_old and self._look_seconds > _LONG_LOOK_SECONDS:
                # In a large repository a search does not wait for the number: the last one is told meanwhile.
                if self._looking is None or not self._looking.is_alive():
                    self._looking = threading.Thread(target=self._look_again, name="pending", daemon=True)
                    self._looking.start()
                return self._pending[1]
        return self._look()

    def _look_again(self) -> None:
        with suppress(InhouseError, CatalogCorrupt, sqlite3.Error):  # the next search or refresh meets it and tells
            self._look()

    def _look(self) -> int:
        """How many files of the work tree read differently from what is indexed, counted now."""
        began = time.monotonic()
        with self._lock:
            if self._closed:
                raise _closed()
            known = self._catalog.files()
        now = {file.path: file.blob_id for file in self._work_tree().files}
        count = sum(known.get(path) != blob for path, blob in now.items()) + sum(path not in now for path in known)
        with self._lock:
            self._pending = (time.monotonic(), count)
            self._look_seconds = time.monotonic() - began
        return count


def _keep(cache: OrderedDict[_K, _V], key: _K, value: _V, limit: int) -> None:
    cache[key] = value
    while len(cache) > limit:
        cache.popitem(last=False)


def _closed() -> Cancelled:
    return Cancelled("The index was closed.", "Open it again.")


def _holder(state_dir: Path) -> str:
    try:
        pid = int((state_dir / "index.pid").read_text())
    except (OSError, ValueError):
        return ""
    return f" (process {pid})"
