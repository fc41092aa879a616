"""The files of the repository and the pages of the wiki as they are now, cut as the index cuts them.

A search checks each hit against them, and ranks unsaved text as if it were saved. What was cut and embedded for that
alone is remembered in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from inhouse_retrieval.chunking import Chunk, chunk_text
from inhouse_retrieval.embedding import Encoder, Vectors
from inhouse_retrieval.held_catalog import HeldCatalog
from inhouse_retrieval.html_pages import is_html, lines_of_source, page_name, read_html
from inhouse_retrieval.reading import NotText, decode, reason_by_size
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.search import UNCHANGED, Document
from inhouse_retrieval.secrets import redact
from inhouse_retrieval.snapshot import SkippedFile, Snapshot, TrackedFile
from inhouse_retrieval.wiki import Wiki

_K = TypeVar("_K")
_V = TypeVar("_V")

_CUTS_KEPT = 256


class Documents:
    """What one index reads, and by which encoder its text is measured."""

    def __init__(self, repository: Repository, wiki: Wiki, encoder: Encoder, held: HeldCatalog) -> None:
        self.repository = repository
        self.wiki = wiki
        self.encoder = encoder
        self._held = held
        self._cuts: OrderedDict[tuple[str, str], tuple[Chunk, ...]] = OrderedDict()
        self._loose: OrderedDict[str, Vectors] = OrderedDict()

    def work_tree(self) -> Snapshot:
        """The files of the repository and the wiki pages outside it, as they are now."""
        snapshot = self.repository.work_tree()
        pages, skipped = self.wiki.work_tree()
        return replace(snapshot, files=(*snapshot.files, *pages), skipped=(*snapshot.skipped, *skipped))

    def read_current(self, path: str) -> tuple[TrackedFile, str] | SkippedFile | None:
        """What is at ``path`` now, redacted; ``None`` when nothing is."""
        return self.wiki.read_current(path) if self.wiki.holds(path) else self.repository.read_current(path)

    def current_blob(self, path: str) -> str | None:
        """Blob id of what is at ``path`` now; ``None`` when it is gone or not readable any more."""
        return self.wiki.current_blob(path) if self.wiki.holds(path) else self.repository.current_blob(path)

    def cut(self, path: str, text: str) -> list[Chunk]:
        """Chunks of a file's text."""
        if is_html(path) and self.wiki.is_page(path):
            page = read_html(text)
            # A secret that stood between tags is seen only now.
            chunks = chunk_text(
                page_name(path), redact(page.text)[0], self.encoder.count_tokens, self.encoder.max_tokens
            )
            return lines_of_source(path, page, chunks)
        return chunk_text(path, text, self.encoder.count_tokens, self.encoder.max_tokens)

    def reread(self, path: str, blob_id: str) -> Document | None:
        """What became of a file that was indexed as ``blob_id``: ``UNCHANGED``, its text now, or ``None``: gone."""
        current = self.current_blob(path)
        if current == blob_id:
            return UNCHANGED
        read = self.read_current(path) if current is not None else None
        if not isinstance(read, tuple):
            return None
        file, text = read
        return file.blob_id, self._cut_once(file, text)

    def unsaved(self, path: str, data: bytes) -> Document | None:
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
        with self._held.lock:
            known = self._cuts.get(key)
        if known is None:
            known = tuple(self.cut(file.path, text))
            with self._held.lock:
                _keep(self._cuts, key, known, _CUTS_KEPT)
        return known

    def vectors_of(self, texts: Mapping[str, str]) -> dict[str, Vectors]:
        """Vectors of chunks that may not be indexed; computed ones are remembered, in memory only."""
        with self._held.lock:
            found = self._held.catalog.vectors(list(texts))
            found |= {key: self._loose[key] for key in texts if key in self._loose}
        missing = [key for key in texts if key not in found]
        if missing:
            for key, vector in zip(missing, self.encoder.encode_documents([texts[k] for k in missing]), strict=True):
                found[key] = vector
                with self._held.lock:
                    _keep(self._loose, key, vector, _CUTS_KEPT * 8)
        return found


def count_pending(known: Mapping[str, str], repository: Repository, wiki: Wiki) -> int:
    """How many files of the work tree read differently from ``known``, which is path -> blob id."""
    files = (*repository.work_tree().files, *wiki.work_tree()[0])
    now = {file.path: file.blob_id for file in files}
    return sum(known.get(path) != blob for path, blob in now.items()) + sum(path not in now for path in known)


def _keep(cache: OrderedDict[_K, _V], key: _K, value: _V, limit: int) -> None:
    cache[key] = value
    while len(cache) > limit:
        cache.popitem(last=False)
