"""Bringing the index in line with the work tree: with all of it, or with files that are named.

Each step leaves a usable index behind, so that the next refresh goes on where one was killed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from inhouse_retrieval.catalog_rows import vector_key
from inhouse_retrieval.chunking import Chunk
from inhouse_retrieval.documents import Documents
from inhouse_retrieval.held_catalog import HeldCatalog
from inhouse_retrieval.history import MAX_CHANGES, read_changes
from inhouse_retrieval.index_report import IndexReport
from inhouse_retrieval.mirror import Mirror
from inhouse_retrieval.missing_vectors import MissingVectors
from inhouse_retrieval.pending import PendingFiles
from inhouse_retrieval.progress import Progress
from inhouse_retrieval.pull_request_pages import PullRequestPages
from inhouse_retrieval.secrets import redactions_in
from inhouse_retrieval.snapshot import SkippedFile, Snapshot
from inhouse_retrieval.syntax import has_grammar
from inhouse_retrieval.within import Within

_log = logging.getLogger(__name__)

_FILES_A_STEP = 20
_NAMED_AT_MOST = 200
"""Files that are looked at by name; for more, a look at all of them takes no longer."""
_ALL = -1
"""As a limit, to SQLite."""
_DECIDE_ABOUT_OTHERS = frozenset({".gitignore", ".gitattributes", "inhouse.toml"})
_VANISHED = "vanished while reading"


@dataclass(frozen=True, slots=True)
class Refresh:
    """The refresh of one index. Its owner sees to it that there is one at a time.

    Attributes:
        identity: names the encoder and how text is cut; under another one everything is cut again.
    """

    documents: Documents
    held: HeldCatalog
    missing: MissingVectors
    mirror: Mirror
    pages: PullRequestPages
    pending: PendingFiles
    identity: str

    def everything(self, progress: Progress, embed: bool) -> IndexReport:
        """As :meth:`inhouse_retrieval.Index.refresh` says."""
        started = time.monotonic()
        self.held.check(progress, "reading", 0, None)
        snapshot = self.documents.work_tree()
        if embed:
            self._load_encoder_early(snapshot)
        with self.held.lock:
            former = self.held.former_encoder(self.documents.encoder.name)
            if former:
                _log.warning(
                    "the encoder was %s and is %s: everything is embedded again", former, self.documents.encoder.name
                )
                self.mirror.forget()
            changed = self._refresh_chunks(snapshot, progress)
            self.held.catalog.set_meta("commit", snapshot.commit)
            files, chunks, missing = self.held.catalog.counts()
            self.held.note_unembedded(missing)
            self.pending.note_none()
        self._refresh_history(snapshot.commit, progress)
        unread = self.pages.refresh(self.held.catalog, snapshot.commit, lambda *step: self.held.check(progress, *step))
        embedded = 0
        if embed:
            embedded = self.missing.embed_chunks(progress)
            self.missing.embed_titles(progress)
            unreachable = self.mirror.try_to_update(progress)
            if self.missing.embed(
                "embedding pull requests", self.held.catalog.pull_requests.without_vector, None, progress
            ):
                self.pages.forget_vectors()
            with self.held.lock:
                self.held.catalog.prune_vectors()
                chunks = self.held.catalog.counts()[1]
            if unreachable is not None:
                raise unreachable
        with self.held.lock:
            read = [SkippedFile(path, reason) for path, reason in self.held.catalog.skipped()]
            redactions = tuple(self.held.catalog.redactions())
            plain = Counter(PurePosixPath(path).suffix for path in self.held.catalog.paths() if not has_grammar(path))
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
            self.documents.encoder.name,
            former,
        )

    def named(self, paths: Sequence[str], progress: Progress) -> IndexReport | None:
        """As :meth:`inhouse_retrieval.Index.refresh_files` says; ``None`` where that takes :meth:`everything`."""
        started = time.monotonic()
        paths = [path for path in paths if _can_be_told(path)]
        decisive = any(
            PurePosixPath(path).name in _DECIDE_ABOUT_OTHERS
            or ".git" in PurePosixPath(path).parts[1:]  # the folder around it may have become a repository of its own
            or self.documents.wiki.holds(path)
            for path in paths
        )
        if decisive or not 0 < len(paths) <= _NAMED_AT_MOST:
            return None
        self.held.check(progress, "reading", 0, None)
        with self.held.lock:
            commit = self.held.catalog.meta("commit")
            if not commit or self.held.catalog.meta("encoder") != self.identity:
                return None
            known = self.held.catalog.files_below(paths)
        if any(
            self.documents.wiki.holds(path) for path in known
        ):  # a folder was named that has a wiki of its own in it
            return None
        files, skipped = self.documents.repository.files_below(paths)
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
            read = self.documents.read_current(file.path) or SkippedFile(file.path, _VANISHED)
            if isinstance(read, SkippedFile):
                unread.append(read)
                (gone if read.reason == _VANISHED else []).append(file.path)
                step += [(file.path, file.blob_id, read.reason)] if read.reason != _VANISHED else []
                continue
            current, text = read
            redactions += [(file.path, found.line, found.kind) for found in redactions_in(text)]
            chunks = self.documents.cut(file.path, text)
            texts |= {vector_key(self.documents.encoder.name, chunk): chunk.embedded for chunk in chunks}
            step.append((file.path, current.blob_id, chunks))
        with self.held.lock:
            self.held.check_open()
            former = self.held.catalog.vector_keys(Within((*gone, *(file.path for file in changed))), _ALL)
            self.held.catalog.remove(gone)
            self.held.catalog.replace(self.documents.encoder.name, step)
            held = self.held.catalog.vectors(list(texts))
            missing = [(key, text) for key, text in texts.items() if key not in held]
            self.held.unembedded += len(missing)
            self.pending.note_fewer(len(changed) + len(gone))
        if missing:
            self.missing.wait_for_encoder()
            self.missing.embed_page("embedding", missing, 0, len(missing), progress)
        self.mirror.replace(former, list(texts))
        with self.held.lock:
            indexed, chunks_held = self.held.catalog.sizes()
        return IndexReport(
            indexed,
            chunks_held,
            len(missing),
            max(0, chunks_held - self.held.unembedded - len(missing)),
            tuple(sorted([*skipped, *unread], key=lambda file: file.path)),
            time.monotonic() - started,
            commit,
            tuple(redactions),
            dict(Counter(PurePosixPath(file.path).suffix for file in changed if not has_grammar(file.path))),
            len(changed) + len(gone),
            encoder=self.documents.encoder.name,
            named=True,
        )

    def _refresh_chunks(self, snapshot: Snapshot, progress: Progress) -> int:
        """Cut what changed. Returns how many files that were."""
        identity = self.identity
        known = self.held.catalog.files() if self.held.catalog.meta("encoder") == identity else {}
        if not known:
            # Nothing indexed, or by other means: cut everything; what has a vector under these means keeps
            # it.
            self.held.catalog.remove(self.held.catalog.files())
            self.held.catalog.set_meta("encoder", identity)
            self.held.catalog.set_meta("history", "")
        now = {file.path for file in snapshot.files}
        gone = [path for path in known if path not in now]
        if gone:
            self.held.catalog.remove(gone)
        changed = tuple(file for file in snapshot.files if known.get(file.path) != file.blob_id)
        step: list[tuple[str, str, Sequence[Chunk] | str]] = []
        for done, file in enumerate(changed, start=1):
            read = self.documents.read_current(file.path) or SkippedFile(file.path, _VANISHED)
            if isinstance(read, SkippedFile):
                if read.reason == _VANISHED:
                    self.held.catalog.remove([file.path])
                else:
                    step.append((file.path, file.blob_id, read.reason))
            else:
                current, text = read
                step.append((file.path, current.blob_id, self.documents.cut(file.path, text)))
            if len(step) >= _FILES_A_STEP or done == len(changed):
                self.held.catalog.replace(self.documents.encoder.name, step)
                step = []
                self.held.check(progress, "reading", done, len(changed))
        return len(changed) + len(gone)

    def _refresh_history(self, commit: str, progress: Progress) -> None:
        """Take in the changes that lead to ``commit``; those of a history that was left are forgotten.

        Git reads without the lock: in a large repository that takes a while, and searches go on.
        """
        with self.held.lock:
            known = self.held.catalog.meta("history")
        if known == commit:
            return
        self.held.check(progress, "reading the history", 0, None)
        chain = (
            self.documents.repository.git("rev-list", "--first-parent", f"--max-count={MAX_CHANGES}", commit)
            .decode()
            .split()
        )
        since = known if known in chain else None
        changes = [change for change in read_changes(self.documents.repository, commit, since) if change.parents]
        with self.held.lock:
            self.held.check_open()
            self.held.catalog.history.add_changes(
                self.documents.encoder.name, reversed(changes), MAX_CHANGES, anew=since is None
            )
            self.held.catalog.set_meta("history", commit)
            self.held.forget_votes()

    def _load_encoder_early(self, snapshot: Snapshot) -> None:
        """Load the model while files are read, when there is much to embed."""
        with self.held.lock:
            known = self.held.catalog.files()
        if sum(known.get(file.path) != file.blob_id for file in snapshot.files) >= _FILES_A_STEP:
            self.missing.load_encoder()


def _can_be_told(path: str) -> bool:
    """Whether git and the catalog take ``path``. A file with another name is not indexed."""
    try:
        return b"\0" not in path.encode()
    except UnicodeEncodeError:
        return False
