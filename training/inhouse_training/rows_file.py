"""The file of rows that trainers read: Arrow, a hundred rows at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def rows_writer(path: Path) -> Any:
    """A ``datasets.arrow_writer.ArrowWriter`` for the columns of ``rows.arrow``."""
    from datasets import Features, Sequence, Value
    from datasets.arrow_writer import ArrowWriter

    ids = Sequence(Value("int32"))
    features = Features(
        {
            "input_ids": ids,
            "labels": ids,
            "kind": Value("string"),
            "name": Value("string"),
            "part": Value("int32"),
            "source_tokens": Value("int32"),
            "messages": Value("string"),
            "origin": Value("string"),
        }
    )
    return ArrowWriter(path=str(path), features=features, writer_batch_size=100)
