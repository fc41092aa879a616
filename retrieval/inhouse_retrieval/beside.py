"""The index that another process holds, seen from beside it.

SQLite lets others read while one process writes, so the catalog can be read and copied at any time. Chroma does not:
two clients on one folder corrupt it. So its folder is never opened here, and a search goes by words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inhouse_retrieval.catalog import Catalog
from inhouse_retrieval.catalog_file import CatalogCorrupt, NotMadeYet
from inhouse_retrieval.documents import count_pending
from inhouse_retrieval.embedding import Encoder
from inhouse_retrieval.errors import InhouseError
from inhouse_retrieval.held_catalog import UNEMBEDDED
from inhouse_retrieval.index import CATALOG, Index
from inhouse_retrieval.index_report import IndexStatus
from inhouse_retrieval.pull_request_pages import PULL_REQUESTS_READ
from inhouse_retrieval.repository import Repository
from inhouse_retrieval.reranking import Reranker
from inhouse_retrieval.vector_store import VectorFolder
from inhouse_retrieval.wiki import Wiki


def status_beside(repository: Repository, state_dir: Path) -> IndexStatus:
    """What the index in ``state_dir`` holds, whoever holds it; nothing is written, and nobody is held up.

    Raises:
        InhouseError: the catalog cannot be read, or is of another version.
    """
    wiki = Wiki(repository)
    try:
        with _reading(state_dir) as catalog:
            files, chunks, missing = catalog.counts()
            pending = count_pending(catalog.files(), repository, wiki)
            return IndexStatus(catalog.meta("commit") or "", files, chunks, pending, missing)
    except NotMadeYet:
        return IndexStatus("", 0, 0, count_pending({}, repository, wiki))


def readable_beside(state_dir: Path) -> bool:
    """Whether words find what some refresh read to its end."""
    try:
        with _reading(state_dir) as catalog:
            return bool(catalog.meta("commit"))
    except InhouseError:
        return False


def open_beside(
    repository: Repository, state_dir: Path, folder: Path, encoder: Encoder, reranker: Reranker | None = None
) -> Index:
    """An index over a copy of the catalog in ``state_dir``, made in the empty ``folder``. It is not to be refreshed.

    Code and wiki are found by their words, path, definitions and history, and each hit is compared with the work tree
    as ever. Pull requests are not, since their pages are written by whoever holds the index.

    Raises:
        InhouseError: the catalog cannot be read or copied.
    """
    with _reading(state_dir) as held:
        held.copy_to(folder / CATALOG)
    copy = Catalog(folder / CATALOG)
    copy.forget_mirror()
    copy.pull_requests.remove(list(copy.pull_requests.content_ids()))
    copy.set_meta(PULL_REQUESTS_READ, "")
    copy.set_meta(UNEMBEDDED, str(copy.sizes()[1]))
    copy.close()
    return Index.open(repository, folder, encoder, VectorFolder(folder / "vectors"), reranker)


@contextmanager
def _reading(state_dir: Path) -> Iterator[Catalog]:
    catalog: Catalog | None = None
    if not (state_dir / CATALOG).exists():
        raise NotMadeYet("This repository has no index yet.", "Run 'inhouse index'.")
    try:
        catalog = Catalog(state_dir / CATALOG, read_only=True)
        yield catalog
    except CatalogCorrupt as error:
        raise InhouseError("The index cannot be read.", "Run 'inhouse index', which builds it anew.") from error
    finally:
        if catalog is not None:
            catalog.close()
