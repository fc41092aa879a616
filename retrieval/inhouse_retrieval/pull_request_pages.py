"""Merged pull requests beside the code: which ones there are, their pages on disk, and finding them.

Git says which pull requests landed in the history of HEAD, and no other is ever read; what `inhouse sync` stored adds
the description as the forge has it, and what reviewers said. Each becomes a page in the catalog and a Markdown file of
the state directory, so that a citation opens. A question finds them on their own: they come beside the code and the
wiki pages that it finds, and never in place of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from inhouse_retrieval.catalog import Catalog, Vectors
from inhouse_retrieval.catalog_rows import vector_key
from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.errors import InhouseError, StateUnwritable
from inhouse_retrieval.history import MAX_CHANGES, HistoryChange, read_changes
from inhouse_retrieval.passage import Passage
from inhouse_retrieval.pull_request_tables import PageChunk, PageRow
from inhouse_retrieval.pull_requests.enrichment import told_about
from inhouse_retrieval.pull_requests.page import PAGE_VERSION, page_text
from inhouse_retrieval.pull_requests.store import FILE_NAME, PullRequestStore
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.search import day_of, reciprocal_rank_fusion
from inhouse_retrieval.snapshot import SkippedFile
from inhouse_retrieval.terms import match_expression

_log = logging.getLogger(__name__)

MAX_PAGES = 500
"""Pull requests that were merged last and are kept as pages. They come to little more chunks than pages, which are
embedded after the code. An older one becomes a page when a question names it."""
SHARE = 5
"""One pull request comes beside each five passages of code and wiki that were asked for."""
_FOLDER = "pull-requests"
_PAGES_A_STEP = 50
_DEPTH = 50
_NUMBER = re.compile(r"(?:#|!|\b(?:PR|MR|pull request|merge request)\s+[#!]?)(\d{1,9})\b", re.I)
_NAMED_AT_MOST = 3
_PAST = re.compile(r"^\W*(why|when|who)\b|\b(decided|decision|PRs?|pull requests?|merge requests?)\b", re.I)
"""Asks about what happened and not about what is."""
PULL_REQUESTS_READ = "pull_requests"
"""Up to which commit they were read; empty in a catalog that has none, and gets none."""

_Found = tuple[PageChunk, tuple[str, ...]]
"""A chunk, and the legs that found its page."""


@dataclass(frozen=True, slots=True)
class _Vectors:
    """The chunks that have a vector: ids [n], and unit vectors [n, dimension]."""

    ids: Sequence[int]
    matrix: Vectors


class PullRequestPages:
    """The pages of one repository. Its owner says when to read and when to search; ``lock`` guards the catalog.

    Args:
        identity: names the encoder and how text is cut.
        cut: path and text -> chunks.
    """

    def __init__(
        self,
        repository: Repository,
        state_dir: Path,
        encoder: str,
        identity: str,
        cut: Callable[[str, str], list[Chunk]],
        lock: AbstractContextManager[object],
    ) -> None:
        self._repository = repository
        self._state_dir = state_dir
        self._folder = state_dir / _FOLDER
        self._prefix = f"{_relative(self._folder, repository.root)}/"
        self._encoder = encoder
        self._identity = identity
        self._cut = cut
        self._lock = lock
        self._vectors: _Vectors | None = None

    # -- keeping up ------------------------------------------------------------------------------------------

    def refresh(
        self, catalog: Catalog, commit: str, check: Callable[[str, int, int | None], None]
    ) -> list[SkippedFile]:
        """Bring the pages in line with the history that leads to ``commit`` and with what was synced.

        Git, the store and the encoder's tokenizer work without the lock, so searches go on.

        Args:
            check: called with stage, done and total; raises when the work is to stop.

        Returns:
            What could not be read, with its reason.

        Raises:
            StateUnwritable: a page cannot be written.
        """
        skipped: list[SkippedFile] = []
        store = None
        try:
            store = PullRequestStore.if_there(self._state_dir)
            versions = store.versions() if store is not None else []
        except InhouseError as error:
            _log.warning("what was synced is not read: %s", error)
            skipped.append(SkippedFile(_relative(self._state_dir / FILE_NAME, self._repository.root), error.problem))
            store, versions = None, []
        try:
            basis = _digest(PAGE_VERSION, self._identity, MAX_PAGES, versions)
            with self._lock:
                known_basis, _, known = (catalog.meta(PULL_REQUESTS_READ) or "").partition(" ")
            if (known_basis, known) != (basis, commit):
                since = self._reached(known, commit) if known_basis == basis else None
                self._read(catalog, commit, since, store, check)
                with self._lock:
                    catalog.set_meta(PULL_REQUESTS_READ, f"{basis} {commit}")
                    self._vectors = None
        finally:
            if store is not None:
                store.close()
        self._write_files(catalog)
        return skipped

    def _reached(self, known: str, commit: str) -> str | None:
        """``known`` where the history of ``commit`` goes through it; what it holds is then read already."""
        chain = (
            self._repository.git("rev-list", "--first-parent", f"--max-count={MAX_CHANGES}", commit).decode().split()
        )
        return known if known in chain else None

    def _read(
        self,
        catalog: Catalog,
        commit: str,
        since: str | None,
        store: PullRequestStore | None,
        check: Callable[[str, int, int | None], None],
    ) -> None:
        changes: dict[int, HistoryChange] = {}
        for change in read_changes(self._repository, commit, since):
            if change.number is not None and change.parents and len(changes) < MAX_PAGES:
                changes.setdefault(change.number, change)  # of two with one number, the newer
        with self._lock:
            known = catalog.pull_requests.content_ids()
            if since is None:
                catalog.pull_requests.remove([number for number in known if number not in changes])
        step: list[PageRow] = []
        for done, (number, change) in enumerate(changes.items(), start=1):
            page = self._page(number, change, store)
            if known.get(number) != page.content_id:
                step.append(self._with_chunks(page))
            if len(step) >= _PAGES_A_STEP or done == len(changes):
                check("reading pull requests", done, len(changes))
                # Before the page is another, so that no kill leaves an old file behind.
                self._remove([self._file(page.number) for page in step])
                with self._lock:
                    catalog.pull_requests.put(step)
                step = []
        with self._lock:
            catalog.pull_requests.keep_newest(MAX_PAGES)

    def _page(self, number: int, change: HistoryChange, store: PullRequestStore | None) -> PageRow:
        """The page of a change, not cut yet."""
        text = page_text(change, told_about(store, number, change.commit, change.title))
        return PageRow(number, change.landed, _digest(self._identity, text), text, ())

    def _with_chunks(self, page: PageRow) -> PageRow:
        chunks = self._cut(f"{_FOLDER}/{page.number}.md", page.text)
        return replace(page, chunks=[(chunk, vector_key(self._encoder, chunk)) for chunk in chunks])

    def _read_older(self, catalog: Catalog, numbers: Sequence[int]) -> None:
        """Make pages of pull requests that were merged before the newest :data:`MAX_PAGES`, where the history has them.

        They go when the next pull request lands, and come back when they are named again.
        """
        with self._lock:
            if not catalog.meta(PULL_REQUESTS_READ):
                return
            known = catalog.pull_requests.content_ids()
            commits = {number: catalog.history.commit_of(number) for number in numbers if number not in known}
        found = {number: commit for number, commit in commits.items() if commit is not None}
        if not found:
            return
        try:
            store = PullRequestStore.if_there(self._state_dir)
            try:
                pages = [
                    self._with_chunks(self._page(number, change, store))
                    for number, commit in found.items()
                    for change in read_changes(self._repository, commit, limit=1)
                ]
            finally:
                if store is not None:
                    store.close()
            with self._lock:
                catalog.pull_requests.put(pages)
        except InhouseError as error:  # a full disk, or another process holds the catalog
            _log.warning("older pull requests are left out: %s", error)

    def forget_vectors(self) -> None:
        """More vectors were computed: the next search reads them."""
        with self._lock:
            self._vectors = None

    # -- files -----------------------------------------------------------------------------------------------

    def holds(self, path: str) -> bool:
        """Whether ``path`` is the name of a page."""
        return path.startswith(self._prefix)

    def text(self, catalog: Catalog, path: str) -> str | None:
        """The page at ``path``; ``None`` when there is none."""
        name = path.removeprefix(self._prefix)
        if not self.holds(path) or not (match := re.fullmatch(r"(\d{1,9})\.md", name)):
            return None
        number = int(match[1])
        with self._lock:
            return catalog.pull_requests.texts([number]).get(number)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.md"

    def _write_files(self, catalog: Catalog) -> None:
        """Write what is missing or of another size, and take away what is no page any more."""
        with self._lock:
            sizes = catalog.pull_requests.sizes()
        try:
            there = {entry.name: entry.stat().st_size for entry in os.scandir(self._folder)}
        except FileNotFoundError:
            there = {}
        self._write(catalog, [number for number, size in sizes.items() if there.get(self._file(number).name) != size])
        self._remove([self._folder / name for name in there.keys() - {self._file(number).name for number in sizes}])

    def _remove(self, files: Sequence[Path]) -> None:
        with self._plain_errors():
            for file in files:
                file.unlink(missing_ok=True)

    def _write(self, catalog: Catalog, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        with self._lock:
            texts = catalog.pull_requests.texts(numbers)
        with self._plain_errors():
            self._folder.mkdir(exist_ok=True)
            for number, text in texts.items():
                partial = self._folder / f"{number}.md.{os.getpid()}"
                partial.write_text(text, encoding="utf-8", newline="")
                partial.replace(self._file(number))

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateUnwritable(
                f"The pages of pull requests cannot be written to {self._folder}: {error.strerror or error}.",
                "Free some disk space or make the folder writable, then try again.",
            ) from error

    # -- search ----------------------------------------------------------------------------------------------

    def beside(
        self,
        catalog: Catalog,
        passages: tuple[Passage, ...],
        question: str,
        vector: Vectors | None,
        limit: int,
        commit: str,
    ) -> tuple[Passage, ...]:
        """``passages``, all of them and in their order, with the pull requests that the question is about.

        One that the question names by its number comes first. Others, at most one for each :data:`SHARE` of ``limit``,
        come last, or right after the best passage where the question asks about the past.

        Args:
            vector: unit vector of the question; without one, pull requests are found by their words.
            limit: passages of code and wiki that were asked for.
        """
        named = numbers_named(question)
        self._read_older(catalog, named)
        with self._lock:
            first: list[_Found] = [(chunk, ("number",)) for chunk in catalog.pull_requests.first_chunks(named)]
            others = self._found(catalog, question, vector) if limit >= SHARE else []
        others = [found for found in others if found[0].number not in named][: limit // SHARE]
        kept = set(self._on_disk(catalog, [chunk.number for chunk, _ in first + others]))
        first, others = ([found for found in each if found[0].number in kept] for each in (first, others))
        at = 1 if _PAST.search(question) else len(passages)
        before, after = passages[:at], passages[at:]

        def made(found: Sequence[_Found], neighbour: Sequence[Passage]) -> list[Passage]:
            score = neighbour[-1].score if neighbour else 1.0
            return [self._passage(chunk, legs, score, commit) for chunk, legs in found]

        return (*made(first, passages[:1]), *before, *made(others, before), *after)

    def _found(self, catalog: Catalog, question: str, vector: Vectors | None) -> list[_Found]:
        """The best chunk of each page that every leg found, best first, with the legs."""
        expression = match_expression(question)
        if expression is None:
            return []
        legs = {"lexical": catalog.pull_requests.match(expression, _DEPTH)}
        if vector is not None and (held := self._held_vectors(catalog)) is not None:
            order = np.argsort(-(held.matrix @ vector), kind="stable")[:_DEPTH]
            legs = {"dense": [held.ids[int(row)] for row in order], **legs}
        chunks = catalog.pull_requests.chunks(sorted({chunk for found in legs.values() for chunk in found}))
        best: dict[int, PageChunk] = {}
        for chunk, _, _ in reciprocal_rank_fusion(legs):
            best.setdefault(chunks[chunk].number, chunks[chunk])
        pages = {name: [chunks[chunk].number for chunk in found] for name, found in legs.items()}
        return [
            (best[number], found_by)
            for number, _, found_by in reciprocal_rank_fusion(pages)
            if len(found_by) == len(legs)
        ]

    def _held_vectors(self, catalog: Catalog) -> _Vectors | None:
        if self._vectors is None:
            keys = catalog.pull_requests.vector_keys()
            vectors = catalog.vectors([key for _, key in keys])
            held = [(chunk, vectors[key]) for chunk, key in keys if key in vectors]
            if not held:
                return None
            self._vectors = _Vectors([chunk for chunk, _ in held], np.stack([vector for _, vector in held]))
        return self._vectors

    def _on_disk(self, catalog: Catalog, numbers: Sequence[int]) -> list[int]:
        """Those of ``numbers`` whose file is there, written again if somebody took it away."""
        lost = [number for number in numbers if not self._file(number).is_file()]
        try:
            self._write(catalog, lost)
        except StateUnwritable as error:
            _log.warning("pull requests are left out: %s", error)
            return [number for number in numbers if number not in lost]
        return list(numbers)

    def _passage(self, chunk: PageChunk, legs: tuple[str, ...], score: float, commit: str) -> Passage:
        return Passage(
            f"{self._prefix}{chunk.number}.md",
            chunk.start_line,
            chunk.end_line,
            chunk.text,
            "pull_request",
            "",
            commit,
            score,
            legs,
            (chunk.heading.removeprefix("# Pull request ").replace(": ", " ", 1),),
            updated=day_of(chunk.landed),
        )


def numbers_named(question: str) -> list[int]:
    """The pull requests that a question names by their numbers, such as ``#12``; a few at most."""
    return list(dict.fromkeys(int(number) for number in _NUMBER.findall(question)))[:_NAMED_AT_MOST]


def _relative(path: Path, root: Path) -> str:
    return PurePosixPath(os.path.relpath(path, root)).as_posix()


def _digest(*parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()
