"""Finding secrets in text and taking them out, before anything is indexed, prompted or trained on.

Two ways with few false alarms: formats that are known (:mod:`~inhouse_retrieval.secret_formats`), and places where a
secret stands, such as an assignment of a random-looking value to a name like ``password``, an ``Authorization`` header
or the user part of an address. Line breaks survive redaction, so line numbers stay true.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from inhouse_retrieval.secret_commands import COMMANDS, further
from inhouse_retrieval.secret_formats import FORMATS
from inhouse_retrieval.secret_manifests import KUBERNETES_SECRET, in_manifests
from inhouse_retrieval.secret_mentions import is_about, mentioned
from inhouse_retrieval.secret_values import (
    PLACEHOLDER,
    STAND_IN,
    is_drawn,
    is_password,
    is_random_and_bare,
    is_typed_password,
    looks_random,
)

RULES = 3
"""Raised whenever :func:`redact` takes other things out: what was redacted by earlier rules is then read again."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """A secret of ``kind`` was taken out of ``line`` (1-based)."""

    kind: str
    line: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of ``kind`` in characters ``start`` to ``end`` of a text."""

    kind: str
    start: int
    end: int


_NAME = (
    r"(?:passw(?:or)?d|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|account[_-]?key"
    r"|private[_-]?key|signing[_-]?key|encryption[_-]?key|credential)"
)
_NO_REAL_HOST = re.compile(r"(?i)(?:[\w.-]*\.)?example(?:\.(?:com|net|org))?\b|[\w.-]+\.(?:invalid|test)\b")  # RFC 2606
_MARK = re.compile(r"\[REDACTED ([^\]\n]{1,40})\]")


def _is_password(match: re.Match[str]) -> bool:
    return is_password(match["secret"])


def _is_random(match: re.Match[str]) -> bool:
    return looks_random(match["secret"], quoted=True)


def _is_random_and_bare(match: re.Match[str]) -> bool:
    return is_random_and_bare(match["secret"])


def _is_set(match: re.Match[str]) -> bool:
    return _is_random_and_bare(match) and not is_about(match["more"])


def _is_drawn(match: re.Match[str]) -> bool:
    return is_drawn(match["secret"])


def _is_typed(match: re.Match[str]) -> bool:
    """On a command line, and not the name of the user once more."""
    return is_typed_password(match["secret"]) and match["secret"] != match.groupdict().get("user")


def _is_header(match: re.Match[str]) -> bool:
    """Not ``Basic`` and the Base64 of a name and what documentation writes for a password."""
    with suppress(ValueError):
        _, colon, password = b64decode(match["secret"], validate=True).decode().partition(":")
        if colon and (STAND_IN.fullmatch(password) or PLACEHOLDER.search(password)):
            return False
    return _is_random(match)


def _is_login(match: re.Match[str]) -> bool:
    """The password of an address, unless it is as well known as the name, or its host is one for documentation and it
    does not look drawn."""
    documented = _NO_REAL_HOST.match(match["host"]) and not _is_random(match)
    return _is_password(match) and match["secret"] != match["user"] and not documented


_NAMES = ("pass", "pwd", "secret", "token", "key", "credential")

_PLACES: tuple[tuple[str, tuple[str, ...], re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    (
        "password in a connection string",
        ("://",),
        re.compile(
            r"\b[a-z][a-z0-9+.-]{1,30}://(?P<user>[^\s/:@'\"<>`]{0,100}):(?P<secret>[^\s/@'\"<>`]{3,200})"
            r"@(?P<host>[\w.-]{0,100})",
            re.I,
        ),
        _is_login,
    ),
    (
        "password in a connection string",
        _NAMES,  # Server=db;User Id=shop;Password=…;
        re.compile(r"[;\"'](?:password|pwd)=(?P<secret>[^;\"'\s]{4,200})(?=[;\"'\s]|$)", re.I),
        _is_password,
    ),
    (
        "password or token",
        _NAMES,  # a line of .env, of properties or of YAML
        re.compile(
            rf"^[ \t+>-]{{0,40}}(?:export[ ]|ENV[ ]|set[ ])?[\w.-]{{0,40}}{_NAME}(?P<more>[\w.-]{{0,20}})(?:=|:[ ]?)"
            r"(?P<secret>[^\s\"'`;,(){}\[\]<>$]{7,200})[ \t]*(?:\#.*)?$",
            re.I | re.M,
        ),
        _is_set,
    ),
    (
        "password or token",
        _NAMES,
        re.compile(
            rf"(?<![\w-])--?[\w-]{{0,20}}(?:{_NAME}|(?<=-)pass)[ =][\"']?(?P<secret>[^\s\"'`$<,;)\]}}]{{7,200}})", re.I
        ),
        _is_drawn,
    ),
    (
        "authorization header",
        ("bearer", "basic"),
        re.compile(r"\b(?:Bearer|Basic)\s{1,4}(?P<secret>[A-Za-z0-9._~+/-]{16,2000}={0,2})(?![A-Za-z0-9._~+/-])"),
        _is_header,
    ),
    (
        "authorization header",
        ("authorization",),
        re.compile(
            r"authorization[\"']?\s?[:=,]\s?[\"']?(?:\w{2,12}\s)?(?P<secret>[A-Za-z0-9._~+/-]{16,2000}={0,2})", re.I
        ),
        _is_header,
    ),
    (
        "token in an address",
        (*_NAMES, "sig=", "signature=", "auth="),
        re.compile(
            rf"[?&](?:[\w-]{{0,20}}{_NAME}|key|sig|signature|auth)=(?P<secret>[A-Za-z0-9%._~+/-]{{12,500}})", re.I
        ),
        _is_random,
    ),
    (
        "one-time password seed",
        ("otpauth://",),
        re.compile(r"otpauth://[^\s\"']{1,200}?secret=(?P<secret>[A-Z2-7]{16,})", re.I),
        _is_password,
    ),
    (
        "session cookie",
        ("cookie:",),
        re.compile(r"cookie:[^\n]{0,400}?(?:sess|sid|auth)[^=\s;]{0,40}=(?P<secret>[^;\s]{16,4000})", re.I),
        _is_random,
    ),
    (
        "password or token",
        ('"auth"',),  # of a Docker registry
        re.compile(r"\"auth\"\s?:\s?\"(?P<secret>[A-Za-z0-9+/]{12,}={0,2})\""),
        _is_password,
    ),
    (
        "password or token",
        _NAMES,
        re.compile(
            rf"<(?P<tag>[\w:.-]{{0,30}}{_NAME}[\w:.-]{{0,20}})>\s?(?P<secret>[^<>\s]{{6,500}})\s?</(?P=tag)>", re.I
        ),
        _is_random_and_bare,
    ),
    (
        "password or token",
        _NAMES,
        re.compile(
            rf"\b(?:key|name)=\"[^\"\n]{{0,60}}{_NAME}[^\"\n]{{0,20}}\"\s+value=\"(?P<secret>[^\"\s]{{7,500}})\"", re.I
        ),
        _is_random,
    ),
    (
        "password or token",
        ("login",),  # .netrc
        re.compile(r"\blogin[ \t]+\S{1,100}[ \t\n]+password[ \t]+(?P<secret>\S{4,200})"),
        _is_password,
    ),
    (
        "password or token",
        (":",),  # .pgpass
        re.compile(r"^[+-]?[\w.*-]{1,100}:(?:\d{2,5}|\*):[\w*-]{1,60}:[\w*-]{1,60}:(?P<secret>\S{4,200})$", re.M),
        _is_password,
    ),
    (
        "password or token",
        (":5432:", ":6432:"),  # the same, in the middle of a line
        re.compile(
            r"(?<![\w.*:-])[\w.*-]{1,100}:(?:5432|6432):[\w*-]{1,60}:[\w*-]{1,60}:(?P<secret>[^\s\"'`<>,;:]{7,200})"
        ),
        _is_random,
    ),
    *(("password or token", words, pattern, _is_typed) for words, pattern in COMMANDS),
)


def redact(text: str) -> tuple[str, tuple[Redaction, ...]]:
    """``text`` with each secret replaced by ``[REDACTED kind]``, and what was found. Redacting twice changes
    nothing."""
    secrets = find_secrets(text)
    if not secrets:
        return text, ()
    pieces: list[str] = []
    found: list[Redaction] = []
    at = 0
    for secret in secrets:
        breaks = text.count("\n", secret.start, secret.end)
        pieces += [text[at : secret.start], f"[REDACTED {secret.kind}]", "\n" * breaks]
        found.append(Redaction(secret.kind, text.count("\n", 0, secret.start) + 1))
        at = secret.end
    pieces.append(text[at:])
    return "".join(pieces), tuple(found)


def find_secrets(text: str) -> tuple[Secret, ...]:
    """The secrets that :func:`redact` would take out, in order."""
    spans = [*_known(text), *_placed(text), *((*span, KUBERNETES_SECRET) for span in in_manifests(text))]
    return tuple(Secret(kind, start, end) for start, end, kind in _merged(spans))


def redactions_in(text: str) -> tuple[Redaction, ...]:
    """What was taken out of a redacted text: where its marks stand. Text about marks, such as this file, has none."""
    marks = (mark for mark in _MARK.finditer(text) if mark[1] in _kinds())
    return tuple(Redaction(mark[1], text.count("\n", 0, mark.start()) + 1) for mark in marks)


@cache
def _kinds() -> frozenset[str]:
    return frozenset([*(known.kind for known in FORMATS), *(kind for kind, *_ in _PLACES), KUBERNETES_SECRET])


def _known(text: str) -> Iterator[tuple[int, int, str]]:
    for known in FORMATS:
        lines = _lines_with(text, known.words)
        for begin, end in [(0, len(text))] if lines and known.over_lines else lines:
            for match in known.pattern.finditer(text, begin, end):
                if _MARK.sub("", match["secret"]).strip():  # otherwise it was taken out before
                    yield *match.span("secret"), known.kind


def _placed(text: str) -> Iterator[tuple[int, int, str]]:
    lowered = text.lower()
    if len(lowered) != len(text):  # in some languages a small letter takes two characters
        lowered = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    for start, end in mentioned(text, lowered):
        yield start, end, "password or token"
    spans = {words: _lines_with(lowered, words) for words in {words for _, words, _, _ in _PLACES}}
    for kind, words, pattern, is_secret in _PLACES:
        for begin, end in spans[words]:
            for first in pattern.finditer(text, begin, end):
                for match in (first, *further(text, first)):
                    if is_secret(match):
                        yield *match.span("secret"), kind


def _lines_with(text: str, words: Iterable[str]) -> list[tuple[int, int]]:
    """Where the lines lie that hold one of the words, each with the line after it: most lines are never searched."""
    found: list[tuple[int, int]] = []
    for word in words:
        at = text.find(word)
        while at >= 0:
            line_end = text.find("\n", at)
            next_end = text.find("\n", line_end + 1) if line_end >= 0 else -1
            found.append((text.rfind("\n", 0, at) + 1, next_end if next_end >= 0 else len(text)))
            at = text.find(word, line_end) if line_end >= 0 else -1
    ranges: list[tuple[int, int]] = []
    for begin, end in sorted(found):
        if ranges and begin <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((begin, end))
    return ranges


def _merged(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Spans in order; those that overlap become one, named by the first: two patterns may each see a part."""
    merged: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(spans):
        if merged and start < merged[-1][1]:
            begun, until, first = merged[-1]
            merged[-1] = (begun, max(until, end), first)
        else:
            merged.append((start, end, kind))
    return merged
