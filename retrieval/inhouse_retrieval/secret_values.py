"""Whether what stands where a secret would is one, or a word, a name in code, a placeholder.

The stricter the place, the less the value has to show: after ``mysql -p`` nearly anything is a password, while in
running text only what looks drawn is.
"""

from __future__ import annotations

import math
import re
from collections import Counter

PLACEHOLDER = re.compile(
    r"(?i)example|placeholder|changeme|your[_-]|xxxx|\*{3,}|\.\.\.|dummy|redacted|^[<\[${%]|\$\{|\{\{|<[a-z]|\]\{\d"
)
STAND_IN = re.compile(r"(?i)(?:my)?(?:pass|passwd|password|pwd|secret|token|user|foo|bar|foobar|test)\d{0,4}|[^a-z]*")
"""What documentation and tests write where a password would stand."""
_ACCOUNT = re.compile(r"(?i)root|admin|guest|postgres|mysql|mariadb|mongo|redis|docker|vagrant|ubuntu")
"""The same, for a command: the name of an account, often repeated as its password."""
_LETTERS_A_WORD = 3
_LETTERS_A_NAME = 3.5
"""The same where a name in code is told by other signs as well. Of drawn letters one in two is a capital."""
_MIN_BITS = 3.0
"""Shannon entropy in bits per character: words and names stay below, random tokens come above."""
_LEAST_BITS = 2.6
"""The same where names are told by other signs: of passwords of 12 drawn characters one in forty stays below 3."""

_NUMBERED = re.compile(
    r"(?i)u?int(?:8|16|32|64|128)|float(?:16|32|64)|base(?:16|32|36|58|62|64)|(?:hmac-?)?sha-?(?:224|256|384|512|[123])"
    r"|md[45]|utf-?(?:8|16)|x509|pbkdf2|oauth-?[12]|argon2(?:id?)?|(?:ed|x)25519|[rehp]s(?:256|384|512)|aes-?(?:128|256)"
    r"|[pk]256|http2|s3|k8s|ec2|i18n|l10n|[im]?pkcs-?\d\d?|v\d{1,2}(?:alpha|beta|rc)\d{1,2}|(?:alpha|beta|rc)\d{1,2}"
    r"|(?-i:(?<![A-Za-z\d])[a-z]{1,5}[24][a-z]{1,6}(?![A-Za-z\d]))|fp(?:8|16|32)"
)
"""Terms with a number in them, of which names are made: ``Uint8Array``, ``base64Key``, ``id2label``."""
_IDENTIFIER = re.compile(r"[A-Za-z]+\d{0,2}|\d{0,4}[a-z]?")
_CLASS_NAME = re.compile(r"(?:[A-Z][a-z]{2,}[\d_]{0,3})+[A-Z][a-z]{2,}")
_ATTRIBUTE = re.compile(r"(?P<of>[A-Za-z_]+(?:\.[A-Za-z_]+){0,5})\.[A-Za-z_]\w*")
_BETWEEN = re.compile(r"[-_./+*%&|^~@:=,?!#\\ ]+")
_MEASURE = re.compile(
    r"(?i)[+-]?(?:\d[\d_]*)?\.?\d+(?:e[+-]?\d+)?[a-z%]{0,3}"  # a number, with its unit
    r"|0x[0-9a-f]{1,8}|\#[0-9a-f]{3,8}"
    r"|(?:\d+(?:ms|[usmhdw]))+"  # 1h30m
    r"|\d{4}-\d\d-\d\d.*|v?\d+\.\d+\.\d+.*"  # a date, a version
    r"|(?:abc|def|ghi|jkl|mno|xyz|a1b2|c3d4|e5f6|0?123|012|456|789|0)+"  # counted up
)
_ADDRESS = re.compile(r"[\w.+-]+://.*|[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,6}|(?:\.\.?|~)?(?:/[\w.@-]+)+/?", re.I)
_CLASSES = tuple(map(re.compile, ("[a-z]", "[A-Z]", r"[0-9]", r"[^\w\s]")))


def is_password(value: str) -> bool:
    """Of a place that says so: whatever does not obviously stand for a password."""
    return not PLACEHOLDER.search(value) and not (STAND_IN.fullmatch(value) or value.isdigit())


def is_typed_password(value: str) -> bool:
    """Of a command line, where the name of an account also stands for one."""
    return is_password(value) and not _ACCOUNT.fullmatch(value)


def is_random_and_bare(value: str) -> bool:
    """Not quoted: in code that could be a name, such as ``token = parsedValue1``, of words of some letters each."""
    if _MEASURE.fullmatch(value):
        return False
    if re.fullmatch(r"[A-Za-z_]+\d{0,2}", _NUMBERED.sub("Word", value)) and _is_of_words(value):
        return False
    return looks_random(value, quoted=False)


def is_drawn(value: str) -> bool:
    """In running text and in the middle of lines of code: no name, expression, number, date, address or path.

    Unlike :func:`is_random_and_bare` this takes passwords with dots; what is put together of names is code.
    """
    if not _may_be_drawn(value) or _CLASS_NAME.fullmatch(value):
        return False
    if (attribute := _ATTRIBUTE.fullmatch(value)) and _is_of_words(attribute["of"]):
        return False
    return not (_is_of_names(value) or _is_of_names(_NUMBERED.sub("Word", value))) and _is_even(value, _LEAST_BITS)


def is_told(value: str) -> bool:
    """After ``the password is``: anything with a letter and a digit, such as ``hunter2``, but for terms like SHA256."""
    return _may_be_drawn(_NUMBERED.sub("Word", value))


def is_mixed(value: str) -> bool:
    """Drawn, and of three kinds of characters, mixed: what nothing but its place beside a name says to be a secret."""
    kinds = sum(kind.search(value) is not None for kind in _CLASSES)
    return kinds >= 3 and re.search(r"\d[^\W\d_]", value) is not None and is_drawn(value)


def looks_random(value: str, quoted: bool) -> bool:
    """Letters and digits that no words, paths or names are made of."""
    if PLACEHOLDER.search(value) or STAND_IN.fullmatch(value):
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
    return _is_even(value)


def _may_be_drawn(value: str) -> bool:
    """A letter and a digit, and nothing that is known to be something else."""
    if not (any(map(str.isdigit, value)) and any(map(str.isalpha, value))):
        return False
    if PLACEHOLDER.search(value) or STAND_IN.fullmatch(value):
        return False
    return not (_MEASURE.fullmatch(value) or _is_address(value))


def _is_of_names(value: str) -> bool:
    parts = [part for part in _BETWEEN.split(value) if part]
    letters = _LETTERS_A_WORD if len(parts) > 1 else _LETTERS_A_NAME
    return all(map(_IDENTIFIER.fullmatch, parts)) and _is_of_words(value, letters)


def _is_of_words(value: str, letters: float = _LETTERS_A_WORD) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", value)
    return sum(map(len, words)) >= letters * len(words)


def _is_address(value: str) -> bool:
    """Of a site, of a mailbox, or a path whose parts are no random strings, as those of Base64 would be."""
    if _ADDRESS.fullmatch(value) is None:
        return False
    return not value.startswith("/") or len(value) < 4 * value.count("/") or _is_of_words(value)


def _is_even(value: str, least: float = _MIN_BITS) -> bool:
    """Whether its characters are spread as those of a random string are."""
    counts = Counter(value)
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return bits >= min(least, 0.85 * math.log2(len(value)))
