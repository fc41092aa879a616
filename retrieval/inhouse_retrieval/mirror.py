"""The vectors of the catalog in the vector store: brought in line, filled again when lost, searched.

The store only mirrors the catalog. So it is given up whenever in doubt, and while it is out of reach (with a server
that does not answer) or being filled again, words find everything.

Every record must be found by its own vector. Chroma's graph (HNSW) does not promise that: of 30,000 random vectors 25
were not. So each is asked for after it was written, and all in turn after a change; what is not found is put again, and
where that does not help, all are put into a store beside, once, which takes the place of the first one.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from inhouse_retrieval.catalog_file import CatalogCorrupt
from inhouse_retrieval.embedding import Vectors
from inhouse_retrieval.errors import InhouseError, StateUnwritable, VectorsUnreachable
from inhouse_retrieval.held_catalog import HeldCatalog
from inhouse_retrieval.progress import Progress, no_progress
from inhouse_retrieval.vector_store import MirrorLost, VectorPlace, VectorStore
from inhouse_retrieval.within import Within

_log = logging.getLogger(__name__)

_MIRROR_A_STEP = 200
_FILLED_AT_ONCE = 2_000
"""Records that a search has put back before it answers; more are put back beside it, while words find."""
_EXACT_AT_MOST = 5_000
"""Chunks of a part of the repository that are compared one by one; of a larger part Chroma finds enough."""
_PROBED_A_STEP = 100
"""Records that are asked for while searches wait: some 20 ms, 100 on a busy machine."""
_PROBED_A_REFRESH = 2_000
"""Records asked for in turn by one refresh; a store of no more is asked whole after each change."""
_PUT_AGAIN = 10
"""How often a record that is not found is put again before all are."""
_PROBED = "probed up to"
_CHANGED = "changed while it was probed"
_REBUILT = "built for lost records"
_ALL = "~"
"""As what was probed: every record was found since the last change. Stands behind all keys, which are hexadecimal."""
_APART_S = 5.0
"""How long searches go by words alone before they try a server again that did not answer."""
_ROOM_FOR_VECTORS = 20_000_000
"""Bytes below which a vector store that cannot be built is put down to the disk."""


class Mirror:
    """The vector store of one index, opened when it is needed.

    Args:
        held: the catalog that it mirrors.
        place: where the records are kept.
        state_dir: the folder whose disk must have room for them.
        refreshing: held by whoever refreshes the index; filling beside the searches waits for it.
    """

    def __init__(self, held: HeldCatalog, place: VectorPlace, state_dir: Path, refreshing: threading.Lock) -> None:
        self._held = held
        self._place = place
        self._state_dir = state_dir
        self._refreshing = refreshing
        self._store: VectorStore | None = None
        self._beside: int | None = None
        """Generation that is being built; to be spared by whoever opens another."""
        self._apart_until = 0.0
        self._apart = False
        self._filling: threading.Thread | None = None

    def close(self) -> None:
        """Let go of the store and of its place. Called with the lock."""
        self.let_go()
        self._place.close()

    def let_go(self) -> None:
        """Close the store; the next use opens it again. Called with the lock."""
        if self._store is not None:
            self._store.close()
            self._store = None

    # -- keeping up ------------------------------------------------------------------------------------------

    def try_to_update(self, progress: Progress) -> VectorsUnreachable | None:
        """Bring the vector store in line and ask for its records; why not, where its server is gone: a refresh has more
        to do than that. Called by whoever refreshes."""
        try:
            self.update(progress)
            try:
                self._probe(progress)
            except MirrorLost as error:
                self._give_up(error)
                self.update(progress)
        except VectorsUnreachable as error:
            self._set_apart(error)
            return error
        return None

    def update(self, progress: Progress = no_progress) -> None:
        """Bring the vector store in line with the catalog; a lost one is filled again from the cached
        vectors."""
        for _ in range(2):
            with self._held.lock:
                add, drop = self._held.catalog.to_mirror()
            if not add and not drop:
                return
            try:
                self._update_once(progress)
                return
            except MirrorLost as error:
                self._give_up(error)
        if shutil.disk_usage(self._state_dir).free < _ROOM_FOR_VECTORS:
            # Chroma says many things when the disk is full, few of them that.
            raise StateUnwritable(
                f"The vectors in {self._state_dir} cannot be written: the disk is full.",
                "Free some disk space, then try again; what was embedded is kept.",
            )
        raise InhouseError("The vector store cannot be built.", f"Remove {self._place.holds} and index again.")

    def _update_once(self, progress: Progress) -> None:
        self._place.prepare()
        with self._held.lock:
            self.opened_store()
            add, drop = self._held.catalog.to_mirror()  # opening may have found records missing
            self._note_change()
        for at in range(0, len(add), _MIRROR_A_STEP):
            keys = add[at : at + _MIRROR_A_STEP]
            with self._held.lock:
                self._held.check_open()
                vectors = self._held.catalog.vectors(keys)
                # Asked for anew at each step: between two, a search that got no answer may have closed it.
                _put(self.opened_store(), vectors)
                self._put_the_lost(vectors)
                self._held.catalog.note_mirrored(added=list(vectors))
            self._held.check(progress, "storing vectors", min(at + _MIRROR_A_STEP, len(add)), len(add))
        if drop:
            with self._held.lock:
                self.opened_store().remove(drop)
                self._held.catalog.note_mirrored(dropped=drop)

    def replace(self, former: Sequence[str], keys: Sequence[str]) -> None:
        """Put some records into the vector store in place of ``former`` ones; of those, the ones in use stay.

        Otherwise the former texts of a file that is saved often would crowd all others out of what is nearest. A store
        that was lost gets the records with all the others.
        """
        if not former and not keys:
            return
        try:
            self._place.prepare()
            with self._held.lock:
                vectors = self._held.catalog.vectors(self._held.catalog.not_mirrored(keys))
                if vectors:
                    self._note_change()
                    _put(self.opened_store(), vectors)
                    self._put_the_lost(vectors)
                    self._held.catalog.note_mirrored(added=list(vectors))
                unused = self._held.catalog.unused(former)
                if unused:
                    self._note_change()
                    self.opened_store().remove(unused)
                    self._held.catalog.note_mirrored(dropped=unused)
        except MirrorLost as error:
            self._give_up(error)
            self.update()
        except VectorsUnreachable as error:
            self._set_apart(error)
            raise

    # -- asking for what is there ----------------------------------------------------------------------------

    def _note_change(self) -> None:
        """Records change, so all are asked for anew: those of a large store once more after the turn that is under way.
        Called with the lock."""
        catalog = self._held.catalog
        if catalog.meta(_PROBED) == _ALL or catalog.mirrored() <= _PROBED_A_REFRESH:
            catalog.set_meta(_PROBED, "")
        elif not catalog.meta(_CHANGED):
            catalog.set_meta(_CHANGED, "yes")

    def _put_the_lost(self, vectors: Mapping[str, Vectors]) -> list[str]:
        """Put records again until each is found; those that are not in the end. Called with the lock."""
        store = self.opened_store()
        lost = store.lost(vectors)
        for _ in range(_PUT_AGAIN):
            if not lost:
                break
            store.add(lost, np.stack([vectors[key] for key in lost]))
            lost = store.lost({key: vectors[key] for key in lost})
        return lost

    def _probe(self, progress: Progress) -> None:
        """Ask for the next records in turn, until all were found since the last change."""
        with self._held.lock:
            if self._held.catalog.meta(_PROBED) == _ALL or not self._held.catalog.is_mirrored():
                return
            most = min(self._held.catalog.mirrored(), _PROBED_A_REFRESH)
        self._place.prepare()
        for done in range(0, most + 1, _PROBED_A_STEP):
            if done:  # of a small store it takes no time that is worth a word
                self._held.check(progress, "checking vectors", done, most)
            lost, is_over = self._probe_once()
            if (lost and not self._build_beside(progress)) or is_over:
                return

    def _probe_once(self) -> tuple[int, bool]:
        """Ask for one step of the turn.

        Returns:
            How many records are lost for which a new store has to be built, and whether the turn is over. The turn
            goes past them only when this store was built for lost ones already.
        """
        with self._held.lock:
            self._held.check_open()
            catalog = self._held.catalog
            keys = catalog.mirrored_after(catalog.meta(_PROBED) or "", _PROBED_A_STEP)
            lost = self._put_the_lost(catalog.vectors(keys))
            if lost and catalog.meta(_REBUILT) != str(self._generation()):
                return len(lost), False
            if lost:
                _log.warning("%d records of a new vector store are not found; words find them", len(lost))
            is_over = len(keys) < _PROBED_A_STEP
            again = is_over and bool(catalog.meta(_CHANGED))
            if again:
                catalog.set_meta(_CHANGED, "")
            catalog.set_meta(_PROBED, "" if again else _ALL if is_over else keys[-1])
            return 0, is_over

    def _build_beside(self, progress: Progress) -> bool:
        """Put all records into a new store while the present one answers, then take that one; whether it was done.

        Called by whoever refreshes. A search may give the present store up meanwhile, and begin one of its own.
        """
        _log.warning("the vector store does not find all of its records: they are put into a new one")
        store: VectorStore | None = None
        try:
            with self._held.lock:
                former = self._generation()
                self._place.drop_others(former)
                self._beside = former + 1
                store = self._place.open(self._beside, former)
                count = self._held.catalog.mirrored()
            there: set[str] = set()
            last = ""
            for done in range(0, count, _MIRROR_A_STEP):
                self._held.check(progress, "storing vectors", done, count)
                with self._held.lock:
                    self._check_generation(former)
                    vectors = self._held.catalog.vectors(self._held.catalog.mirrored_after(last, _MIRROR_A_STEP))
                _put(store, vectors)
                there.update(vectors)
                last = max(vectors, default=last)
            with self._held.lock:
                self._held.check_open()
                self._check_generation(former)
                held = self._held.catalog.mirrored_after("", len(there) + _PROBED_A_REFRESH)
                _put(store, self._held.catalog.vectors([key for key in held if key not in there]))
                self.let_go()
                self._store, store = store, None
                self._held.catalog.set_meta(_REBUILT, str(self._beside))
                self._held.catalog.set_meta(_PROBED, "")
                self._held.catalog.set_meta("generation", str(self._beside))
            return True
        except (MirrorLost, StateUnwritable) as error:
            _log.warning("the new vector store cannot be had: %s", error)
            return False
        finally:
            if store is not None:
                store.close()
            with self._held.lock:
                self._beside = None
                self._place.drop_others(self._generation())

    def _check_generation(self, expected: int) -> None:
        """Called with the lock.

        Raises:
            MirrorLost: the store was given up meanwhile.
        """
        if self._generation() != expected:
            raise MirrorLost("the present one was given up meanwhile")

    # -- opening and giving up -------------------------------------------------------------------------------

    def opened_store(self) -> VectorStore:
        """The store, opened. Called with the lock.

        Raises:
            MirrorLost: it lost records, or cannot be used.
            StateUnwritable: the disk is full or the folder read-only.
            VectorsUnreachable: its server cannot be had.
        """
        if self._store is None:
            store = self._place.open(self._generation(), self._beside)
            # A kill between a write and its note leaves more records than noted, which is harmless.
            if store.count() < self._held.catalog.mirrored():
                store.close()
                raise MirrorLost("it holds fewer records than were written")
            self._store = store
            self._apart = False
        return self._store

    def _generation(self) -> int:
        return int(self._held.catalog.meta("generation") or 0)

    def _set_apart(self, error: VectorsUnreachable) -> None:
        """The server of the vectors is gone: words find for a while, then it is tried again."""
        with self._held.lock:
            if not self._apart:
                _log.warning("searching by words alone: %s", error)
            self.let_go()
            self._apart = True
            self._apart_until = time.monotonic() + _APART_S

    def _give_up(self, error: MirrorLost) -> None:
        _log.warning("the vector store is rebuilt from cached vectors: %s", error)
        self.forget()

    def forget(self) -> None:
        """Begin with an empty store."""
        with self._held.lock:
            self.let_go()
            self._held.catalog.forget_mirror()
            self._held.catalog.set_meta(_PROBED, "")
            following = self._generation() + 1
            self._held.catalog.set_meta("generation", str(following + (following == self._beside)))

    # -- finding ---------------------------------------------------------------------------------------------

    def holds_any(self) -> bool:
        """Whether there are records to compare with, also while they are out of reach. Called with the lock."""
        return self._apart or self._held.catalog.is_mirrored()

    def by_words_alone(self) -> int:
        """Chunks that have no vector, or whose vectors are out of reach or not put back yet."""
        filling = self._filling is not None and self._filling.is_alive()
        with self._held.lock:
            if not self._apart and not filling:
                return self._held.unembedded
            _, chunks, missing = self._held.catalog.counts()
            return chunks if self._apart else missing + len(self._held.catalog.to_mirror()[0])

    def nearest_within(self, question: Vectors, depth: int, within: Within) -> list[tuple[str, float]]:
        """``(vector key, cosine similarity)`` of the nearest chunks there, best first.

        Those of a small part are compared one by one; for a large one, the store is asked for more until they suffice.
        """
        if within.everywhere:
            return self._nearest(question, depth)
        with self._held.lock:
            keys = self._held.catalog.vector_keys(within, _EXACT_AT_MOST + 1)
            vectors = self._held.catalog.vectors(keys) if len(keys) <= _EXACT_AT_MOST else None
        if vectors is not None:
            scored = [(key, float(vector @ question)) for key, vector in vectors.items()]
            return sorted(scored, key=lambda pair: -pair[1])[:depth]
        wanted = depth
        while True:
            found = self._nearest(question, wanted)
            with self._held.lock:
                seen = self._held.catalog.chunks_of_vectors([key for key, _ in found], within)
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
                    self._place.prepare()
                    with self._held.lock:
                        was_apart = self._apart
                        self.opened_store()
                    if was_apart:
                        self._fill_again()
                    with self._held.lock:
                        return self.opened_store().nearest(question, depth)
                except MirrorLost as error:
                    self._give_up(error)
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
        with self._held.lock:
            missing = len(self._held.catalog.to_mirror()[0])
            if missing > _FILLED_AT_ONCE:
                if self._filling is None or not self._filling.is_alive():
                    self._filling = threading.Thread(target=self._fill_beside, name="vectors", daemon=True)
                    self._filling.start()
                return False
        self.update()
        return True

    def _fill_beside(self) -> None:
        # The next refresh or search meets what is wrong, and tells.
        with self._refreshing, suppress(InhouseError, CatalogCorrupt, sqlite3.Error):
            if not self._held.closed:
                self.update()


def _put(store: VectorStore, vectors: Mapping[str, Vectors]) -> None:
    if vectors:
        store.add(list(vectors), np.stack(list(vectors.values())))
