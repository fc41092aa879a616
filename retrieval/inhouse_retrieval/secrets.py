"""Finding secrets in text and taking them out, before anything is indexed, prompted or trained on.

A small set of patterns with few false alarms: known token formats, private keys, and assignments of
random-looking values to names such as ``password``. Line breaks survive redaction, so line numbers stay true.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass


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


_FORMATS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN (?P<label>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----"
            r"(?P<secret>.{16,12000}?)-----END (?P=label)-----",
            re.S,
        ),
    ),
    ("AWS access key", re.compile(r"\b(?P<secret>(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})\b")),
    (
        "GitHub token",
        re.compile(r"\b(?P<secret>gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{60,255})\b"),
    ),
    (
        "GitLab token",
        re.compile(r"\b(?P<secret>gl(?:pat|ptt|dt|rt|cbt|agent|oas|soat|ft|imt)-[A-Za-z0-9_-]{20,})"),
    ),
    ("Slack token", re.compile(r"\b(?P<secret>xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,})")),
    ("Slack webhook", re.compile(r"hooks\.slack\.com/(?P<secret>(?:services|workflows)/[A-Za-z0-9+/]{40,})")),
    ("Google API key", re.compile(r"\b(?P<secret>AIza[A-Za-z0-9_-]{35})(?![A-Za-z0-9_-])")),
    ("Google OAuth secret", re.compile(r"\b(?P<secret>GOCSPX-[A-Za-z0-9_-]{28})")),
    (
        "Stripe key",
        re.compile(r"\b(?P<secret>(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,})"),
    ),
    ("OpenAI key", re.compile(r"\b(?P<secret>sk-(?:proj-|svcacct-|ant-)?[A-Za-z0-9_-]{32,})")),
    ("npm token", re.compile(r"\b(?P<secret>npm_[A-Za-z0-9]{36})\b")),
    ("PyPI token", re.compile(r"\b(?P<secret>pypi-AgE[A-Za-z0-9_-]{50,})")),
    ("Hugging Face token", re.compile(r"\b(?P<secret>hf_[A-Za-z0-9]{34,})\b")),
    (
        "JSON web token",
        re.compile(r"\b(?P<secret>eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"),
    ),
)

_CONNECTION = re.compile(r"\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@'\"<>`]{0,100}:(?P<secret>[^\s/@'\"<>`]{3,200})@", re.I)
_ASSIGNMENT = re.compile(
    r"""(?:passw(?:or)?d|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|credential)[\w-]{0,20}
        ["']?\s{0,4}(?::=|=>|[:=])\s{0,4}
        (?:(?P<quote>["'`])(?P<quoted>[^"'`\s]{8,200})(?P=quote)|(?P<bare>[A-Za-z0-9+/_=.~-]{20,200})(?=\s|$))""",
    re.I | re.X,
)
_PLACEHOLDER = re.compile(
    r"(?i)example|placeholder|changeme|your[_-]|xxxx|\*{3,}|\.\.\.|dummy|redacted|^[<${%]|\$\{|\{\{|<[a-z]"
)
_MIN_BITS = 3.0
"""Shannon entropy in bits per character: words and names stay below, random tokens come above."""


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
    spans: list[tuple[int, int, str]] = []
    for kind, pattern in _FORMATS:
        spans += [(*match.span("secret"), kind) for match in pattern.finditer(text)]
    for match in _CONNECTION.finditer(text):
        if not _PLACEHOLDER.search(match["secret"]):
            spans.append((*match.span("secret"), "password in a connection string"))
    for match in _ASSIGNMENT.finditer(text):
        group = "quoted" if match["quoted"] else "bare"
        if _looks_random(match[group], quoted=group == "quoted"):
            spans.append((*match.span(group), "password or token"))
    return tuple(Secret(kind, start, end) for start, end, kind in _merged(spans))


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


def _looks_random(value: str, quoted: bool) -> bool:
    if _PLACEHOLDER.search(value):
        return False
    has_digit = any(letter.isdigit() for letter in value)
    has_letter = any(letter.isalpha() for letter in value)
    if not quoted and re.search(r"[.(]", value):  # code: settings.SECRET_KEY
        return False
    if not (has_digit and has_letter):
        return False
    # A path, a variable or a translation key: words joined by dots, dashes, slashes or underscores.
    words = [word for word in re.split(r"[-_./ ]", value) if word]
    if len(words) > 1 and all(re.fullmatch(r"[A-Za-z]+\d{0,2}|\d{1,4}", word) for word in words):
        return False
    counts = Counter(value)
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return bits >= min(_MIN_BITS, 0.85 * math.log2(len(value)))
