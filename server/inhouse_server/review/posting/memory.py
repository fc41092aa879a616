"""What was posted, in the state directory. This is the truth: what stands at the forge can be edited by others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from inhouse_retrieval import Forge, InhouseError, StateUnwritable

FILE_NAME = "posted.json"
_KEPT = 2_000
"""Pull requests, the last ones posted to."""


@dataclass(frozen=True, slots=True)
class PostedHead:
    """What was said about one commit.

    Attributes:
        done: all that there was to say.
        fingerprints: of the remarks that are at the forge.
    """

    done: bool
    fingerprints: tuple[str, ...]


_PULLS = TypeAdapter(dict[str, dict[str, PostedHead]])


class Posted:
    """What was posted to one pull request.

    Raises:
        InhouseError: the file is damaged.
    """

    def __init__(self, state_dir: Path, forge: Forge, number: int) -> None:
        self._path = state_dir / FILE_NAME
        self._name = f"{forge.kind} {forge.address} {forge.project} {number}"
        try:
            self._pulls = _PULLS.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            self._pulls = {}
        except (OSError, ValidationError) as error:
            raise InhouseError(
                f"What was posted before cannot be read from {self._path}.",
                "Delete it: reviews that are at the forge are found there, and not repeated.",
            ) from error
        self._heads = self._pulls.get(self._name, {})

    def is_done(self, head: str) -> bool:
        """Whether all about ``head`` was said."""
        return head in self._heads and self._heads[head].done

    def at(self, head: str) -> frozenset[str]:
        """Fingerprints of what was said about ``head``."""
        return frozenset(self._heads[head].fingerprints) if head in self._heads else frozenset()

    def before(self, head: str) -> frozenset[str]:
        """Fingerprints of what was said about the pull request's other commits."""
        return frozenset().union(*(self.at(other) for other in self._heads if other != head))

    def add(self, head: str, fingerprints: Iterable[str], done: bool) -> None:
        """Remember what is at the forge now; on disk when this returns.

        Raises:
            StateUnwritable: the file cannot be written.
        """
        said = sorted({*self.at(head), *fingerprints})
        self._heads = {**self._heads, head: PostedHead(done or self.is_done(head), tuple(said))}
        others = {name: heads for name, heads in self._pulls.items() if name != self._name}
        self._pulls = dict([*others.items(), (self._name, self._heads)][-_KEPT:])
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                file.write(json.dumps(_PULLS.dump_python(self._pulls)).encode())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            raise StateUnwritable(
                f"What was posted cannot be kept in {self._path}: {error.strerror}.", "Make the folder writable."
            ) from error
