"""The rows of a finished dataset, to look at and to hand on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inhouse_retrieval import InhouseError

from .dataset import Dataset
from .kinds import Kind
from .prompts import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One row as text.

    Attributes:
        text: the tokens as they are trained on, control tokens spelt out.
        learned: parts of ``text`` that are learned, as ``(begin, end)`` in characters.
        tokens, learned_tokens: of the whole row, and those with a label.
        snapshot: the commit that the dataset was built at.
        origin: where it comes from, as :func:`inhouse_training.provenance.origin` says it.
    """

    kind: Kind
    name: str
    part: int
    snapshot: str
    tokens: int
    learned_tokens: int
    text: str
    learned: tuple[tuple[int, int], ...]
    origin: str


def read_rows(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, kind: Kind | None, name: str, limit: int
) -> Iterator[DatasetRow]:
    """The first ``limit`` rows in the order of training, of one kind if named, whose name matches the pattern ``name``
    (``*``, ``?``, ``[…]``)."""
    rows = dataset.rows
    names = zip(rows["kind"], rows["name"], strict=True)
    wanted = (at for at, (of, called) in enumerate(names) if kind in (None, of) and fnmatchcase(called, name))
    for at in islice(wanted, limit):
        row = rows[at]
        text, learned = _masked(tokenizer, row["input_ids"], row["labels"])
        yield DatasetRow(
            row["kind"], row["name"], row["part"], dataset.manifest["snapshot"], len(row["input_ids"]),
            sum(label != IGNORED for label in row["labels"]), text, learned, row["origin"],
        )  # fmt: skip


def export_conversations(dataset: Dataset, path: Path, kinds: Collection[Kind]) -> dict[str, int]:
    """Write the conversations among the rows as JSON lines of ``messages``, in the order of training.

    An answer that was cut to fit its row is written as it was cut.

    Returns:
        Rows written, by kind.

    Raises:
        InhouseError: the file cannot be written.
    """
    rows = dataset.rows.select_columns(["kind", "messages"])
    written: Counter[str] = Counter()
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for row in rows:
                if row["kind"] in kinds and row["messages"]:
                    file.write(row["messages"] + "\n")
                    written[row["kind"]] += 1
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InhouseError(
            f"{path} cannot be written: {error.strerror}.", "Name a file in a folder of yours."
        ) from error
    return dict(sorted(written.items()))


def _masked(tokenizer: Any, ids: list[int], labels: list[int]) -> tuple[str, tuple[tuple[int, int], ...]]:
    def decode(end: int) -> str:
        return str(tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    text = decode(len(ids))
    spans: list[tuple[int, int]] = []
    begin = tokens = 0
    for is_learned, run in groupby(label != IGNORED for label in labels):
        tokens += len(list(run))
        end = len(decode(tokens)) if tokens < len(ids) else len(text)
        if is_learned:
            spans.append((begin, end))
        begin = end
    return text, tuple(spans)
