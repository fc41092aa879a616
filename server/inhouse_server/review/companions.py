"""What past changes say is missing from this one: files that usually change together, tests that usually come along.

Co-change mining after Zimmermann, Weißgerber, Diehl and Zeller, "Mining version histories to guide software changes"
(ICSE 2004): the share of a file's changes in which another file changed as well. How sure, how often and how lately
were chosen on five repositories and measured on others (docs/review.md).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from inhouse_retrieval import HistoryChange, todays_names
from inhouse_retrieval.reading import is_test, reason_by_name

WINDOW = 1_500
"""Newest changes that count: what went together years ago says little."""
MAX_FILES = 30
"""A change of more files is a mass edit: everything goes with everything in it."""
TOGETHER = 5
CONFIDENCE = 0.5
LIFT = 1.5
"""A companion changes this many times as often with the file as it does in general; otherwise it is merely busy."""
RECENT = 60 * 86_400
"""Seconds before the newest change within which a companion was changed: a file that is let be no longer is one."""
TESTED = 0.7
TESTED_CHANGES = 12
NAMED = 3

_CODE = re.compile(
    r"\.(py|js|jsx|ts|tsx|mjs|cjs|java|kt|kts|go|rs|c|cc|cpp|h|hpp|cs|rb|php|scala|swift|ex|lua|sh|vue)$"
)
_NO_COMPANION = re.compile(r"(^|/)(CHANGELOG|CHANGES|HISTORY|NEWS)[^/]*$|\.snap$", re.I)
_SNAPSHOT = re.compile(r"\.snap$")


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that usually changes with one that was touched.

    Attributes:
        because: the touched file.
        together, of: in how many of ``because``'s changes ``path`` changed as well.
        changes: the newest of those changes, as a person would name them.
    """

    path: str
    because: str
    together: int
    of: int
    changes: tuple[str, ...]

    @property
    def confidence(self) -> float:
        """Share of the changes, one more assumed without it: three of three are no certainty."""
        return self.together / (self.of + 1)


@dataclass(frozen=True, slots=True)
class MissingTests:
    """Code of this kind usually changes with a test.

    Attributes:
        because: the touched file with most changes to go by, or its folder.
        likely: the test files that changed most often with it.
    """

    because: str
    tested: int
    of: int
    likely: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def confidence(self) -> float:
        return self.tested / (self.of + 1)


def is_source(path: str) -> bool:
    """Whether the file is code, tests included."""
    return _CODE.search(path) is not None


def is_code(path: str) -> bool:
    """Whether the file is code that is no test."""
    return _CODE.search(path) is not None and not is_test(path)


def _folder(path: str) -> str:
    """The folder with its slash; empty at the root."""
    return path[: path.rfind("/") + 1]


class History:
    """Past changes by the files that they touched, under the names of today.

    Args:
        changes: newest first, none of them later than the base of what is reviewed.
        exists: whether a file is still there.
    """

    def __init__(self, changes: Iterable[HistoryChange], exists: Callable[[str], bool]) -> None:
        self._changes: list[HistoryChange] = []
        self._newest = 0
        self._files: list[frozenset[str]] = []
        self._of: dict[str, list[int]] = defaultdict(list)
        self._of_folder: dict[str, list[int]] = defaultdict(list)
        self._exists = exists
        held = list(changes)
        for change, names in zip(held, todays_names(held), strict=True):
            if len(self._changes) == WINDOW:
                break
            files = frozenset(names)
            if not files or len(files) > MAX_FILES:
                continue
            for path in files:
                self._of[path].append(len(self._changes))
            for folder in {_folder(path) for path in files if is_code(path)}:
                self._of_folder[folder].append(len(self._changes))
            self._changes.append(change)
            self._files.append(files)
            self._newest = max(self._newest, change.landed)

    def companions(
        self, touched: Collection[str], least: float = CONFIDENCE, moved: Collection[str] = ()
    ) -> list[Companion]:
        """Untouched files that usually change with a touched one, the surest first.

        Args:
            moved: those of ``touched`` that are removed, or renamed and else as they were. Of what goes with them,
                only what hardly changes without them is named, such as a test or a snapshot, however long ago it did.
        """
        best: dict[str, Companion] = {}
        for because in sorted(touched):
            rows = self._of.get(because, [])
            counts = Counter(path for row in rows for path in self._files[row] if path not in touched)
            for path, together in counts.items():
                if together < TOGETHER:
                    continue
                if because in moved:
                    if not self._is_bound(path, together):
                        continue
                elif not self._is_recent(path) or not self._worth_naming(path):
                    continue
                # A test may be added to code that stays as it is.
                if is_test(because) and not is_test(path) and not _SNAPSHOT.search(path):
                    continue
                companion = Companion(path, because, together, len(rows), self._named(rows, path))
                expected = len(self._of[path]) / len(self._changes)
                if companion.confidence < max(least, LIFT * expected):
                    continue
                if path not in best or best[path].confidence < companion.confidence:
                    best[path] = companion
        return sorted(best.values(), key=lambda found: (-found.confidence, found.path))

    def missing_tests(self, touched: Collection[str]) -> MissingTests | None:
        """Whether changes to this code usually touch a test, when this one touches none."""
        code = [path for path in touched if is_code(path)]
        if not code or any(is_test(path) for path in touched):
            return None
        found: MissingTests | None = None
        for path in sorted(code):
            rows, because = self._of.get(path, []), path
            if len(rows) < TESTED_CHANGES and _folder(path):  # a young file is judged by its folder
                rows, because = self._of_folder.get(_folder(path), []), _folder(path)
            if len(rows) < TESTED_CHANGES:
                continue
            tested = [row for row in rows if any(is_test(name) for name in self._files[row])]
            tests = Counter(name for row in tested for name in self._files[row] if is_test(name) and self._exists(name))
            missing = MissingTests(
                because,
                len(tested),
                len(rows),
                tuple(name for name, _ in tests.most_common(NAMED)),
                tuple(self._name(row) for row in tested[:NAMED]),
            )
            if missing.confidence >= TESTED and (found is None or missing.confidence > found.confidence):
                found = missing
        return found

    def most_changed(self, touched: Collection[str], newest: int = 200) -> str | None:
        """The untouched file that changed most often of late: what a guess without the history's pairs would name."""
        counts = Counter(path for files in self._files[:newest] for path in files if path not in touched)
        worth = [(count, path) for path, count in counts.items() if self._worth_naming(path)]
        return max(worth)[1] if worth else None

    def _is_recent(self, path: str) -> bool:
        return self._newest - self._changes[self._of[path][0]].landed <= RECENT

    def _is_bound(self, path: str, together: int) -> bool:
        """Whether most changes of ``path`` are those ``together`` with the other file. A snapshot counts here: it is
        written anew with every change, and not removed by any."""
        named = _SNAPSHOT.search(path) is not None or self._worth_naming(path)
        return named and self._exists(path) and together >= CONFIDENCE * (len(self._of[path]) + 1)

    def _worth_naming(self, path: str) -> bool:
        return not _NO_COMPANION.search(path) and reason_by_name(path) is None and self._exists(path)

    def _named(self, rows: Sequence[int], path: str) -> tuple[str, ...]:
        return tuple(self._name(row) for row in [row for row in rows if path in self._files[row]][:NAMED])

    def _name(self, row: int) -> str:
        change = self._changes[row]
        name = f"#{change.number}" if change.number is not None else change.commit[:8]
        return f"{name} {change.title}"
