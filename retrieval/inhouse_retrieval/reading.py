"""Which files are worth reading, and how bytes become text. Pure functions: no git, no disk.

Everything that is not read gets one of the reasons below, and the reason reaches the user.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

MAX_FILE_BYTES = 1_000_000
"""A larger text file is data or generated; reading it would crowd out the code."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LOCK_NAMES = _words(
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb poetry.lock "
    "uv.lock pdm.lock pipfile.lock cargo.lock gemfile.lock composer.lock go.sum flake.lock mix.lock "
    "podfile.lock packages.lock.json gradle.lockfile pubspec.lock conda-lock.yml deno.lock"
)
VENDORED_FOLDERS = _words(
    "node_modules bower_components jspm_packages vendor vendored third_party third-party .yarn .venv "
    "venv site-packages __pycache__ dist"
)
_GENERATED_NAME = re.compile(
    r"(\.min\.(js|css|mjs)|\.(map|snap)|\.pb\.go|_pb2(_grpc)?\.pyi?|\.designer\.cs|\.g\.(dart|cs)|\.svg)$"
)
_SECRET_NAME = re.compile(
    r"^(\.env(\..+)?|.*\.env|id_(rsa|dsa|ecdsa|ed25519)|\.netrc|_netrc|\.pgpass|\.git-credentials|\.htpasswd"
    r"|.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk))$"
)
_SECRET_TEMPLATE = re.compile(r"\.(example|sample|template|dist|defaults?)$")
_TEST = re.compile(
    r"(^|/)(tests?|__tests__|specs?|testing)/|(^|/)test_[^/]*$|[._-](test|spec|tests)\.[^/]*$"
    r"|(Test|Tests|Spec|IT)\.\w+$"
)
_GENERATED_MARK = re.compile(r"@generated\b|\b(auto-?)?generated\b.{0,80}\bDO NOT (EDIT|MODIFY)", re.I | re.S)
_EXPORTED_PAGE = re.compile(r"confluence|wiki-content|mediawiki|mw-content-text|markdown-body", re.I)
_MINIFIED_SUFFIXES = frozenset({".js", ".mjs", ".cjs", ".css", ".html", ".json", ".xml"})


def reason_by_name(path: str) -> str | None:
    """Why a file of this name is not read, or ``None`` when it is."""
    pure = PurePosixPath(path)
    name = pure.name.lower()
    if path == "inhouse.toml":  # its comments name everything that anyone asks about
        return "settings of inhouse"
    if name in _LOCK_NAMES:
        return "lock file"
    if any(part.lower() in VENDORED_FOLDERS for part in pure.parts[:-1]):
        return "vendored"
    if _GENERATED_NAME.search(name):
        return "generated"
    if _SECRET_NAME.match(name) and not _SECRET_TEMPLATE.search(name):
        return "may hold secrets"
    return None


def is_test(path: str) -> bool:
    """Whether the file's name or folder says that it is a test, and one that people write."""
    return _TEST.search(path) is not None and reason_by_name(path) is None


def reason_by_size(size: int) -> str | None:
    """Why a file of ``size`` bytes is not read, or ``None``."""
    if size == 0:
        return "empty"
    if size > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES // 1_000_000} MB"
    return None


class NotText(Exception):
    """These bytes are not text worth reading; ``str()`` of it is the reason."""


def decode(path: str, data: bytes) -> str:
    """Text with ``\\n`` line ends: UTF-8, or UTF-16 with a byte order mark.

    Lone carriage returns end a line too, as in the Language Server Protocol, so line numbers agree with
    editors.

    Raises:
        NotText: binary, another encoding, empty, a Git LFS pointer, generated or minified.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError:
            raise NotText("binary") from None
    elif b"\0" in data:
        raise NotText("binary")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NotText("not UTF-8 text") from None
    if "\0" in text:
        raise NotText("binary")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise NotText("empty")
    if text.startswith("version https://git-lfs.github.com/spec/"):
        raise NotText("Git LFS pointer")
    if _GENERATED_MARK.search(text[:1000]):
        raise NotText("generated")
    suffix = PurePosixPath(path).suffix.lower()
    long_lines = len(text) > 4096 and len(text) / (text.count("\n") + 1) > 400
    # Wikis export a page's text on one line; that is no minified code.
    if suffix in _MINIFIED_SUFFIXES and long_lines and not (suffix == ".html" and _EXPORTED_PAGE.search(text[:8000])):
        raise NotText("minified")
    return text
