"""Adapter versions on disk: immutable, named by their content, promoted atomically, rolled back.

``<root>/<version>/`` holds one adapter with its manifest and is never changed once there. ``<root>/current``
is one small file with the promoted version, and ``<root>/history.jsonl`` one line per promotion. A version
is named by the hash of what is in it, so a name never stands for different weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from inhouse_retrieval import InhouseError, StateUnwritable

MANIFEST_NAME = "manifest.json"
WEIGHTS_NAME = "adapter_model.safetensors"
KEPT_VERSIONS = 5
"""Versions that :meth:`Registry.collect` keeps, those that were promoted last."""
_NAME_LENGTH = 12


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """Where an adapter comes from.

    Attributes:
        base_model, base_sha256: the base that it fits; any other refuses it.
        chat_template: digest of the template that its conversations were rendered with; empty when it is not known.
        snapshot: the commit whose tree it was trained on.
        recipe, dataset: as they were used.
        metrics: what the evaluation measured.
        libraries: version by name.
        parent: the version that was current when this one was trained.
        evaluated: whether the metrics come from the gate's evaluation of exactly these weights.
        created: ISO 8601 in UTC; set by :meth:`Registry.add` when empty.
        version, files: set by :meth:`Registry.add`; ``files`` maps a name to the SHA-256 of its content.
    """

    base_model: str
    base_sha256: str
    snapshot: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    evaluated: bool = False
    chat_template: str = ""
    created: str = ""
    version: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One version in the registry."""

    version: str
    path: Path
    manifest: AdapterManifest
    current: bool


@dataclass(frozen=True, slots=True)
class Promotion:
    """One line of the history. ``version`` is ``None`` when the base model alone became current."""

    version: str | None
    at: str
    note: str


@dataclass(frozen=True, slots=True)
class Removed:
    """A version that was removed, and the bytes that its files took."""

    version: str
    size: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What a candidate was judged against: the version that was current, ``None`` for the base model alone."""

    current: str | None


class Overtaken(InhouseError):
    """Another version became current than a candidate was judged against."""


class Registry:
    """The adapters of one repository, in ``root``. Several processes may use it; writers take a lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, adapter_dir: Path, manifest: AdapterManifest) -> AdapterVersion:
        """Copy an adapter's files in. The same content for a second time gives the version that is there.

        Raises:
            InhouseError: ``adapter_dir`` holds no adapter.
            StateUnwritable: the disk is full or read-only.
        """
        names = sorted(each.name for each in adapter_dir.glob("*") if each.is_file() and _belongs(each.name))
        if WEIGHTS_NAME not in names or "adapter_config.json" not in names:
            raise InhouseError(
                f"{adapter_dir} holds no adapter: {WEIGHTS_NAME} or adapter_config.json is missing.",
                "Train again.",
            )
        with self._writing():
            work = Path(tempfile.mkdtemp(prefix=".adding-", dir=self.root))
            try:
                for name in names:
                    shutil.copyfile(adapter_dir / name, work / name)
                files = {name: file_sha256(work / name) for name in names}
                version = _version_name(manifest, files)
                created = manifest.created or _now()
                manifest = replace(manifest, version=version, files=files, created=created)
                text = json.dumps(asdict(manifest), indent=1) + "\n"
                (work / MANIFEST_NAME).write_text(text, encoding="utf-8")
                for file in work.iterdir():
                    _fsync(file)
                target = self.root / version
                if target.exists() and self.is_sound(version):
                    return self.get(version)
                if target.exists():  # damaged since; the same content repairs it
                    shutil.rmtree(target)
                work.chmod(0o755)
                work.rename(target)
                _fsync(self.root)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return self.get(version)

    def list(self) -> tuple[AdapterVersion, ...]:
        """All versions whose manifest can be read, oldest first."""
        found: list[AdapterVersion] = []
        for name in self._folders():
            with contextlib.suppress(InhouseError):
                found.append(self.get(name))
        return tuple(sorted(found, key=lambda each: (each.manifest.created, each.version)))

    def damaged(self) -> tuple[InhouseError, ...]:
        """What is wrong with versions whose manifest cannot be read, and with the current one where its files are not
        those that were added. Files of the others are read when they are promoted or loaded."""
        found = []
        current = self.current()
        for name in sorted({*self._folders(), *([current] if current else [])}):
            try:
                self.verify(name) if name == current else self.get(name)
            except InhouseError as error:
                found.append(error)
        return tuple(found)

    def _folders(self) -> Iterator[str]:
        if self.root.is_dir():
            yield from (each.name for each in self.root.iterdir() if each.is_dir() and not each.name.startswith("."))

    def has(self, version: str) -> bool:
        """Whether there is a folder of that version, sound or not."""
        return (self.root / version).is_dir()

    def get(self, version: str) -> AdapterVersion:
        """One version by its name.

        Raises:
            InhouseError: there is none, or its manifest cannot be read.
        """
        path = self.root / version
        if not version or Path(version).name != version or version.startswith(".") or not path.is_dir():
            raise InhouseError(
                f"There is no adapter version {version!r}.", "`inhouse adapters list` shows those that exist."
            )
        try:
            content = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
            known = {each.name for each in fields(AdapterManifest)}
            if lacking := [name for name in ("base_model", "base_sha256", "snapshot") if name not in content]:
                raise _corrupt(version, f"its manifest lacks {', '.join(lacking)}")
            manifest = AdapterManifest(**{key: content[key] for key in content if key in known})
        except (OSError, ValueError, TypeError) as error:
            raise _corrupt(version, f"its manifest cannot be read ({error})") from None
        return AdapterVersion(version, path, manifest, version == self.current())

    def verify(self, version: str) -> Path:
        """The folder of a version, once every file has the content that it was added with.

        Raises:
            InhouseError: there is no such version, or a file is missing, truncated or changed.
        """
        entry = self.get(version)
        if entry.manifest.version != version or not entry.manifest.files:
            raise _corrupt(version, "its manifest is not its own")
        for name, digest in entry.manifest.files.items():
            try:
                actual = file_sha256(entry.path / name)
            except OSError as error:
                raise _corrupt(version, f"{name} cannot be read ({error.strerror})") from None
            if actual != digest:
                raise _corrupt(version, f"{name} is not what was added")
        if _version_name(entry.manifest, entry.manifest.files) != version:
            raise _corrupt(version, "its name does not fit its content")
        return entry.path

    def current(self) -> str | None:
        """The promoted version; ``None`` for the base model alone."""
        try:
            return (self.root / "current").read_text(encoding="utf-8").strip() or None
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None

    def promote(self, version: str, note: str = "", *, judged_against: Judged | None = None) -> AdapterVersion:
        """Make ``version`` current. It is verified first, so that what is current always loads.

        Args:
            judged_against: what was current when it was judged better.

        Raises:
            Overtaken: another version is current than ``judged_against`` says.
            InhouseError: unknown or corrupt; the current version then stays.
        """
        with self._writing():  # what is verified stays until it is current: collect() waits
            self.verify(version)
            self._drop_line_without_effect()
            self._check_overtaken(judged_against, f"while {version} was judged by what was so before")
            self._set_current(version, note)
        return self.get(version)

    def use_base(self, note: str = "", *, judged_against: Judged | None = None) -> None:
        """Make the base model alone current.

        Raises:
            Overtaken: another version is current than ``judged_against`` says.
        """
        with self._writing():
            self._drop_line_without_effect()
            self._check_overtaken(judged_against)
            self._set_current(None, note)

    def rollback(self, note: str = "", *, judged_against: Judged | None = None) -> str | None:
        """Make the version current that was so before; ``None`` stands for the base model alone.

        Rolling back twice goes back twice: a version that was rolled back from is passed over, and so is one that was
        removed or damaged since, which the history then says.

        Args:
            judged_against: what was current when it was found wanting.

        Raises:
            Overtaken: another version is current than ``judged_against`` says.
            InhouseError: nothing has been promoted.
        """
        with self._writing():
            self._drop_line_without_effect()
            self._check_overtaken(judged_against)
            stack, current = _promoted(self.history()), self.current()
            if stack[-1] != current:
                stack.append(current)
            if len(stack) < 2:
                raise InhouseError("No adapter has been promoted yet, so there is nothing to go back to.", "")
            earlier = stack[-2::-1]  # the base model alone is always among them
            previous = next(version for version in earlier if version is None or self.is_sound(version))
            passed = [version for version in earlier[: earlier.index(previous)] if version is not None]
            gone = f" {', '.join(passed)} is not there any more, or damaged." if passed else ""
            self._set_current(previous, f"{ROLLBACK} {stack[-1]}.{gone} {note}".strip())
        return previous

    def history(self) -> tuple[Promotion, ...]:
        """Every promotion and rollback, oldest first. A line cut short by a crash is passed over."""
        entries: list[Promotion] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            text = (self.root / "history.jsonl").read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    entries.append(Promotion(**json.loads(line)))
        return tuple(entries)

    def rejected(self, keep: int = KEPT_VERSIONS, held: Collection[str] = ()) -> tuple[str, ...]:
        """Versions that were evaluated and never promoted, without the ``keep`` newest of them and ``held``. What was
        not evaluated waits for a person."""
        needed = {entry.version for entry in self.history()} | {self.current(), *held}
        never = [each.version for each in self.list() if each.manifest.evaluated and each.version not in needed]
        return tuple(never[: max(0, len(never) - keep)])

    def unused(self, keep: int = KEPT_VERSIONS, held: Collection[str] = ()) -> tuple[Removed, ...]:
        """The versions that :meth:`collect` would remove now, and their size."""
        history, current = self.history(), self.current()
        promoted = dict.fromkeys(entry.version for entry in reversed(history) if entry.version is not None)
        way_back = [version for version in _promoted(history) if version != current]
        kept = {current, *list(promoted)[:keep], *way_back[-1:], *held}
        folders = self.root.iterdir() if self.root.is_dir() else ()
        names = sorted(each.name for each in folders if re.fullmatch(rf"[0-9a-f]{{{_NAME_LENGTH}}}", each.name))
        return tuple(Removed(name, bytes_under(self.root / name)) for name in names if name not in kept)

    def collect(self, keep: int = KEPT_VERSIONS, held: Collection[str] = ()) -> tuple[Removed, ...]:
        """Remove every version that nothing needs.

        What is current stays, and the ``keep`` that were promoted last, what a rollback would go back to, and ``held``.
        A candidate that was never promoted goes. The caller holds the runs: a retraining registers its candidate before
        it promotes it.

        A version goes as a whole: it is renamed into a trash folder and deleted there. What a killed call left in the
        trash, the next one deletes.

        Raises:
            StateUnwritable: the folder is read-only.
        """
        return self._remove(lambda: self.unused(keep, held))

    def collect_rejected(self, keep: int = KEPT_VERSIONS, held: Collection[str] = ()) -> tuple[Removed, ...]:
        """Remove the versions that :meth:`rejected` names, as :meth:`collect` does, so that candidates that the gate
        turned down do not fill the disk."""

        def named() -> tuple[Removed, ...]:
            return tuple(Removed(name, bytes_under(self.root / name)) for name in self.rejected(keep, held))

        return self._remove(named)

    def _remove(self, chosen: Callable[[], tuple[Removed, ...]]) -> tuple[Removed, ...]:
        if not self.root.is_dir():
            return ()
        with self._writing():
            unused = chosen()
            trash = self.root / ".trash"
            trash.mkdir(exist_ok=True)
            for entry in unused:
                # The line comes first: killed in between, a version that is there counts as there.
                self._note_removed(entry)
                target = trash / entry.version
                shutil.rmtree(target, ignore_errors=True)
                (self.root / entry.version).rename(target)
            _fsync(self.root)
            shutil.rmtree(trash)
        return unused

    def removed(self) -> frozenset[str]:
        """Versions that :meth:`collect` removed: that they are gone is no damage."""
        names: set[str] = set()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            text = (self.root / "removed.jsonl").read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    names.add(json.loads(line)["version"])
        return frozenset(names)

    def _note_removed(self, entry: Removed) -> None:
        _append_line(self.root / "removed.jsonl", json.dumps({**asdict(entry), "at": _now()}))

    def _check_overtaken(self, judged_against: Judged | None, when: str = "meanwhile") -> None:
        current = self.current()
        if judged_against is not None and current != judged_against.current:
            raise Overtaken(
                f"{current or 'The base model'} became current {when}.",
                "Look at both, then promote again. A retraining that is called again only judges anew.",
            )

    def _drop_line_without_effect(self) -> None:
        """Remove the last line of the history if the process that wrote it was killed before it took effect."""
        history, current = self.history(), self.current()
        if not history or _promoted(history)[-1] == current or _promoted(history[:-1])[-1] != current:
            return
        work = self.root / ".history"
        work.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in history[:-1]), encoding="utf-8")
        _fsync(work)
        work.replace(self.root / "history.jsonl")
        _fsync(self.root)

    def _set_current(self, version: str | None, note: str) -> None:
        entry = json.dumps({"version": version, "at": _now(), "note": note})
        # The line comes first: killed in between, the history names a version that is not current yet, which a
        # rollback sees. The other way round it would not know what to go back to.
        _append_line(self.root / "history.jsonl", entry)
        work = self.root / ".current"
        with work.open("w", encoding="utf-8") as file:
            file.write(f"{version or ''}\n")
            file.flush()
            os.fsync(file.fileno())
        work.replace(self.root / "current")
        _fsync(self.root)

    def is_sound(self, version: str) -> bool:
        """Whether :meth:`verify` finds nothing wrong with ``version``."""
        try:
            self.verify(version)
        except InhouseError:
            return False
        return True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock"):
                for left in self.root.glob(".adding-*"):  # of a process that was killed: we hold the lock
                    shutil.rmtree(left, ignore_errors=True)
                yield
        except OSError as error:
            raise StateUnwritable(
                f"The adapters in {self.root} cannot be written: {error.strerror or error}.",
                "Free space there or make the folder writable.",
            ) from error


ROLLBACK = "rolled back from"
"""How the note of a promotion begins that goes back to an earlier version."""


def _promoted(history: Sequence[Promotion]) -> list[str | None]:
    """The versions that a rollback can go back through, the current one last; it begins with the base model."""
    stack: list[str | None] = [None]
    for entry in history:
        if len(stack) > 1 and entry.note.startswith(ROLLBACK):
            stack.pop()
            while len(stack) > 1 and stack[-1] != entry.version:  # passed over, since it could not be used any more
                stack.pop()
        elif entry.version != stack[-1]:
            stack.append(entry.version)
    return stack


def _version_name(manifest: AdapterManifest, files: Mapping[str, str]) -> str:
    """First 12 hex digits of SHA-256 over the base's hash and every file's name and hash.

    The base belongs in it: the same weights on another base are another model.
    """
    whole = hashlib.sha256(f"base {manifest.base_sha256}\n".encode())
    for name in sorted(files):
        whole.update(f"{name} {files[name]}\n".encode())
    return whole.hexdigest()[:_NAME_LENGTH]


def _belongs(name: str) -> bool:
    """Pickles (optimizer state, training arguments) stay out: a version is data, and loading it runs no
    code."""
    return name != MANIFEST_NAME and not name.startswith(".") and Path(name).suffix not in {".bin", ".pt", ".pth"}


def _corrupt(version: str, reason: str) -> InhouseError:
    return InhouseError(
        f"The adapter {version} is damaged: {reason}.",
        "It is not used; roll back with `inhouse adapters rollback`, or retrain.",
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_under(folder: Path) -> int:
    """The size of all files in ``folder``; 0 when it is not there."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _append_line(log_file: Path, line: str) -> None:
    torn = log_file.exists() and not log_file.read_bytes().endswith(b"\n") and log_file.stat().st_size > 0
    with log_file.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
