"""From a repository to tokenised rows on disk: split by time first, then documents, then rows under a token
budget.

A dataset is a folder:

- ``rows.arrow``: what is trained on; columns ``input_ids``, ``labels`` (-100 is not learned), ``kind``,
  ``name``, ``part``, ``source_tokens``, ``messages`` (the conversation as a JSON line; empty for raw text),
  ``origin`` (as JSON: the model that wrote it, the split, and its sources with their commits or blobs). The same
  inputs give the same bytes, and replay texts are the same wherever the cache that they were drawn into is.
- ``held_out.jsonl``: the later changes that evaluation scores.
- ``validation.arrow``: conversations that are not trained on, with the same columns, where the recipe asks for it.
- ``canaries.jsonl``: what was planted, where the recipe asks for it.
- ``left_out.jsonl``: every file and piece that was not trained on, with its reason.
- ``redacted.jsonl``: where secrets were taken out, by kind and place, never by value.
- ``manifest.json``: where it comes from, and the account: tokens read = trained + held out + dropped, by
  reason.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inhouse_retrieval import Progress, Repository, no_progress

from .cut import Cut, HeldOutChange
from .dataset_builder import FORMAT as FORMAT
from .dataset_builder import VALIDATION, Builder
from .dataset_builder import repository_name as repository_name
from .recipe import Recipe
from .registry import file_sha256
from .replay import ReplayText
from .synthesis.cache import Replies

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Dataset:
    """A finished dataset folder."""

    directory: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The content of ``manifest.json``."""
        loaded: dict[str, Any] = json.loads((self.directory / "manifest.json").read_text(encoding="utf-8"))
        return loaded

    @cached_property
    def held_out(self) -> tuple[HeldOutChange, ...]:
        """The held-out changes that add text, newest first."""
        with (self.directory / "held_out.jsonl").open(encoding="utf-8") as lines:
            return tuple(HeldOutChange(**json.loads(line)) for line in lines)

    @property
    def rows(self) -> datasets.Dataset:
        """The rows, memory-mapped."""
        import datasets

        return datasets.Dataset.from_file(str(self.directory / "rows.arrow"))

    @property
    def validation(self) -> datasets.Dataset | None:
        """The conversations that are kept for validation, memory-mapped; ``None`` where the recipe asks for none."""
        import datasets

        path = self.directory / VALIDATION
        return datasets.Dataset.from_file(str(path)) if path.exists() else None


def build_dataset(
    repository: Repository,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    cut: Cut,
    directory: Path,
    progress: Progress = no_progress,
    replay: Callable[[], Sequence[ReplayText]] = tuple,
    generated: Callable[[], Replies] = Replies,
) -> Dataset:
    """Write the dataset of one cut into ``directory``, which appears only when it is complete.

    Args:
        replay: gives the base model's general texts; asked only when the recipe has a share for them.
        generated: gives what a model wrote about the repository; likewise.

    Raises:
        InhouseError: there is no text to train on, or it holds more of the held-out lines than the recipe allows.
    """
    if is_whole(directory):
        return Dataset(directory)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    builder = Builder(repository, tokenizer, recipe, cut, partial)
    builder.build(progress, replay, generated)
    shutil.rmtree(directory, ignore_errors=True)  # what was damaged since it was made
    partial.rename(directory)
    return Dataset(directory)


def is_whole(directory: Path) -> bool:
    """Whether a finished dataset lies there, its rows as they were written."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        return (
            bool(file_sha256(directory / "rows.arrow") == manifest["rows_sha256"])
            and (directory / "held_out.jsonl").exists()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
