"""Which part of the repository somebody may see: folders and files by their path."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from inhouse_retrieval.errors import InhouseError


@dataclass(frozen=True, slots=True)
class Within:
    """The files at or below some paths.

    Attributes:
        paths: from the repository's root, with forward slashes and none at the ends; ``None`` for all there is, which
            takes in wiki pages outside the repository and pull requests.
    """

    paths: tuple[str, ...] | None = None

    @classmethod
    def of(cls, paths: Iterable[str]) -> Within:
        """The files at or below ``paths``.

        Raises:
            InhouseError: one of them is no path within the repository, or there is none.
        """
        found: list[str] = []
        for path in paths:
            plain = path.strip("/")
            if not plain or path.startswith("/") or "\0" in path or {"", ".", ".."} & {*plain.split("/")}:
                raise InhouseError(
                    f"{path!r} names no part of the repository.", "Write it from the root, such as services/billing."
                )
            found.append(plain)
        if not found:
            raise InhouseError("No part of the repository is named.", "Name one, such as services/billing.")
        return cls(tuple(sorted(set(found))))

    @property
    def everywhere(self) -> bool:
        """Whether nothing is left out."""
        return self.paths is None

    def holds(self, path: str) -> bool:
        """Whether ``path`` may be seen; upper and lower case differ."""
        if self.paths is None:
            return True
        leads_elsewhere = not {".", ".."}.isdisjoint(path.split("/"))
        return not leads_elsewhere and any(path == each or path.startswith(f"{each}/") for each in self.paths)

    def condition(self, column: str) -> tuple[str, list[str]]:
        """The same as a condition of SQL on ``column``, a path of the table ``files``, and its values.

        The index on that table's paths serves it. However many paths there are, it nests no deeper: SQLite takes no
        expression of more than 1,000 levels.
        """
        if self.paths is None:
            return "1", []
        paths = json.dumps(self.paths)
        # CROSS JOIN has SQLite go from the paths to the files. "0" is the character after "/".
        below = """SELECT files.path FROM json_each(?) CROSS JOIN files
                   WHERE files.path > value || '/' AND files.path < value || '0'"""
        return f"{column} IN (SELECT value FROM json_each(?) UNION ALL {below})", [paths, paths]


EVERYWHERE = Within()
