"""Secrets in running text: in chat, mail and tickets, in the middle of a sentence or a command, beside their names.

A name such as ``DB_PASSWORD`` or ``api key`` is looked for first, and then what follows it: an assignment, a verb, the
cell of a table, the next line. The value must look drawn (:mod:`~inhouse_retrieval.secret_values`), since the same
forms stand in code with names and expressions for values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from inhouse_retrieval.secret_values import is_drawn, is_mixed, is_told, looks_random

_KEYS = ("api", "access", "auth", "account", "private", "signing", "encryption", "master")
_BEGIN = r"(?:(?<![a-z])|(?<=\\n))"
"""Of a word; in JSON a line end is written as \\\\n."""
_NAMES = {
    "pass": rf"passw(?:or)?d|passphrase|passwort|(?<=mot de )passe|{_BEGIN}pass(?![a-z])",
    "pw": rf"pwd|{_BEGIN}pw(?![a-z])",
    "kennwort": r"kennwort",
    "contrase": r"contrase[nñ]a",
    "secret": r"secret",
    "token": r"token(?!i[sz])",
    "key": "|".join(rf"(?<={kind})key|(?<={kind}[ _-])key" for kind in _KEYS),
    "cred": rf"credential|{_BEGIN}creds(?![a-z])",
    "login": rf"{_BEGIN}login(?![a-z])",
}
"""A word that is looked for in small letters, at a tenth of the cost of an expression, and the names that hold it."""
_NAME = {word: re.compile(name) for word, name in _NAMES.items()}
_PASSWORDS = frozenset(("pass", "pw", "kennwort", "contrase"))
_PAIRS = frozenset(("cred", "login"))
_ABOUT_WORDS = (
    "file path dir name url uri type kind class length size count limit ttl expiry expires expiration version algorithm"
    " field label hint policy arn ref regex pattern prefix suffix format header param model color host port region user"
    " date time at"
)
_ABOUT = re.compile(
    rf"(?:(?i:(?:^|[_.-])(?:{_ABOUT_WORDS.replace(' ', '|')}))|{_ABOUT_WORDS.title().replace(' ', '|')})s?$"
)

# What a value is made of; &amp; and the like stand in exports of chat and in HTML. Possessive: it ends where it ends.
_VALUE = (
    r"(?P<secret>(?![$%&*=:#-])(?:&(?:amp|lt|gt|\#\d{1,4});|&(?![\w.-]{1,30}=)|[^&\s\"'`;,(){}\[\]<>|\\\u2026\u201c\u201d\u00ab\u00bb])"
    r"{7,300}+)(?![(\[{])"
)
_MARKS = r"(?:[\"'`*\u201c\u201e\u00ab]|</?[a-z]{1,6}>){0,4}+"
"""Quotation and emphasis, in Markdown, chat and HTML."""
_MORE = r"(?P<more>[\w.-]{0,24}+)"
_VERB = (
    r"(?:(?:is|are|was|will[ ]be|to|ist|lautet|est|es|now|=)(?:[ ](?:now|still|again|set[ ]to|changed[ ]to|jetzt))?:?"
    r"|(?:has[ ]been[ ])?(?:changed|set|reset|rotated)[ ]to:?|[:=])"
)
_FOR = r"(?:[ ](?:for|of|to|on|in|at|from|für|zu|von|pour|de|para)[ ][^\n:=;?!]{1,40}?)?"

_QUOTED = re.compile(
    r"[\w-]{0,20}+[\"']?\]?(?:\s{0,4}(?::=|=>|[:=])\s{0,4}|[\"']\s?,\s?)"
    r"(?P<quote>[\"'`])(?P<secret>[^\"'`\s]{8,200})(?P=quote)"
)
_LONG = re.compile(r"[\w-]{0,20}+[\"']?\s{0,4}(?::=|=>|[:=])\s{0,4}(?P<secret>[A-Za-z0-9+/_=.~-]{20,200})(?=\s|$)")
_ASSIGNED = re.compile(
    rf"{_MORE}{_MARKS}\]?(?P<sep>[ ]?(?::=|=>|->|\u2192|[:=])[ ]{{0,2}}|[ \t]*\n[ ]*:[ ]"
    rf"|(?<=</td>)\s{{1,20}}<td>|(?<=<td>))"
    rf"{_MARKS}[ ]?{_MARKS}{_VALUE}"
)
_SAID = re.compile(rf"(?P<more>s?){_MARKS}{_FOR}(?:[ ]{{1,2}}|(?=[:=]))(?P<verb>{_VERB})[ ]{{1,2}}{_MARKS}{_VALUE}")
_BELOW = re.compile(
    rf"(?P<more>s?){_MARKS}{_FOR}[ ]?{_VERB}{_MARKS}[ \t]*\n(?:[+-]?[ \t>]*\n)?"  # + and - as in a patch
    rf"[+-]?[ \t>]{{0,8}}{_MARKS}{_VALUE}{_MARKS}[ \t]*(?:\n|$)"
)
_CELL = re.compile(rf"{_MORE}{_MARKS}[ ]{{0,9}}\|{{1,2}}[ ]{{0,9}}{_MARKS}{_VALUE}{_MARKS}[ ]{{0,9}}\|")
_BESIDE = re.compile(rf"{_MORE}{_MARKS}[ ]{_MARKS}{_VALUE}")
_PAIR = re.compile(
    rf"(?P<more>s?){_MARKS}{_FOR}(?:[ ](?:is|are)|[ ]?[:=])[ ]{{1,2}}{_MARKS}[\w.@+-]{{1,60}}{_MARKS}[ ]?[/:][ ]?"
    rf"{_MARKS}{_VALUE}"
)


def mentioned(text: str, lowered: str) -> Iterator[tuple[int, int]]:
    """Where secrets stand that are told by a name before them.

    Args:
        lowered: the text in small letters, character by character.
    """
    for word, names in _NAME.items():
        at = lowered.find(word)
        while at >= 0:
            name = names.match(lowered, at)
            found = None if name is None or _is_in_mark(text, name) else _after(text, word, name.end())
            if found is not None:
                yield found
            at = lowered.find(word, found[1] if found is not None else at + len(word))


def _after(text: str, word: str, at: int) -> tuple[int, int] | None:
    for form, is_secret in _FORMS[word]:
        found = form.match(text, at)
        if found is not None and is_secret(found):
            start = found.start("secret")
            return start, start + len(_value(found))
    return None


def is_about(name: str) -> bool:
    """Whether what a name with this end holds is known about a secret, and no secret itself."""
    return _ABOUT.search(name) is not None


def _is_in_mark(text: str, name: re.Match[str]) -> bool:
    """In ``[REDACTED GitHub token]``, which was put in the place of a secret."""
    end = name.end()
    return text[end : end + 1] == "]" and "[REDACTED " in text[max(0, end - 40) : end]


def _value(found: re.Match[str]) -> str:
    """What may be a secret, without the end of the sentence."""
    value: str = found["secret"]
    is_exact = "quote" in found.re.groupindex or value.endswith("...")  # that is no end of a sentence: it was cut
    return value if is_exact else value.rstrip(".:?*_")


def _is_quoted(found: re.Match[str]) -> bool:
    return looks_random(_value(found), quoted=True)


def _is_long(found: re.Match[str]) -> bool:
    return looks_random(_value(found), quoted=False)


def _is_assigned(found: re.Match[str]) -> bool:
    # Without a blank after it, a colon also stands in file.ts:12 and image:tag.
    is_place = found["sep"] == ":" and found["more"] not in ("", "s")
    return not is_place and _is_in_cell(found)


def _is_sentence(found: re.Match[str]) -> bool:
    """In quotation marks that do not close behind it."""
    start, end = found.span("secret")
    return found.string[start - 1] in "\"'" and found.string[end : end + 1] == " "


def _is_in_cell(found: re.Match[str]) -> bool:
    return not is_about(found["more"]) and _is_said(found)


def _is_said(found: re.Match[str]) -> bool:
    return not _is_sentence(found) and is_drawn(_value(found))


def _is_password(found: re.Match[str]) -> bool:
    """Said with a verb, as no code is: then it need not look drawn."""
    return _is_said(found) or (found["verb"] not in ":=" and is_told(_value(found)))


def _is_beside(found: re.Match[str]) -> bool:
    return is_mixed(_value(found))


_Form = tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]


def _forms(word: str) -> tuple[_Form, ...]:
    """What may follow a name, the surest first."""
    in_code: tuple[_Form, ...] = ((_QUOTED, _is_quoted), (_LONG, _is_long)) if word != "login" else ()
    beside: tuple[_Form, ...] = ((_BESIDE, _is_beside),) if word not in _PAIRS else ()
    pair: tuple[_Form, ...] = ((_PAIR, _is_beside),) if word in _PAIRS | _PASSWORDS else ()
    with_verb: _Form = (_SAID, _is_password if word in _PASSWORDS else _is_said)
    said: tuple[_Form, ...] = ((_ASSIGNED, _is_assigned), with_verb, (_BELOW, _is_said), (_CELL, _is_in_cell))
    return (*in_code, *said, *beside, *pair)


_FORMS = {word: _forms(word) for word in _NAMES}
