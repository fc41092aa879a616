"""The values of Kubernetes secrets, whatever their names are: in a manifest, in a patch of one, and in what is left of
one when it was pasted into a page, a message or a title, and its lines lost their indentation or became one.
"""

from __future__ import annotations

import re
from base64 import b64decode
from bisect import bisect
from collections.abc import Iterator
from contextlib import suppress

from inhouse_retrieval.secret_values import PLACEHOLDER, is_drawn

KUBERNETES_SECRET = "Kubernetes secret"

_DOCUMENTS = re.compile(r"(?<=\n)(?=[ +-]?---[ ]*\n)")
# Of a manifest, or of a patch of one, whose lines begin with a sign.
_KIND = re.compile(r"^[ +-]?kind:[ ]?Secret\b", re.M)
_DATA = re.compile(r"^[ +-]?(?:data|stringData):[ ]*$", re.M)
_VALUE = re.compile(r"^[ +-]?[ ]{1,12}[\w.-]{1,100}:[ ](?P<secret>[^\s\"'|>{\[&*!]\S{7,}|\"[^\"\n]{8,}\")[ ]*$", re.M)

_BEGIN = r"(?:(?<![\w.-])|(?<=\\n))"
"""Of a word; in JSON a line end is written as \\\\n."""
_PASTED_KIND = re.compile(rf"{_BEGIN}kind:[ ]{{0,4}}[\"']?(\w+)")
_PASTED_DATA = re.compile(rf"{_BEGIN}(?:data|stringData):(?=\s|<br|\\n)")
_BREAK = r"(?:[ \t>*+-]|&nbsp;|<br[ ]?/?>)*"
_PASTED_VALUE = re.compile(
    rf"{_BREAK}(?P<line>(?:\n|\\n){_BREAK})?(?P<name>[\w.-]{{1,100}}):[ ]{{1,4}}"
    r"[\"'`]?(?P<secret>[^\s\"'`<>|\\{}\[\]&]{1,4000})[\"'`]?"
)
_NEAR = 2000
"""Characters between the kind and the data of a manifest that was pasted into something longer."""
_OF_MANIFEST = frozenset(("apiVersion", "kind", "metadata", "data", "stringData"))
_OF_METADATA = frozenset(("name", "namespace", "type", "immutable", "creationTimestamp", "uid", "resourceVersion"))


def in_manifests(text: str) -> Iterator[tuple[int, int]]:
    """Where they stand."""
    if "kind:" not in text or "Secret" not in text:
        return
    begin = 0
    for document in _DOCUMENTS.split(text):
        kinds = [(kind.start(), kind[1]) for kind in _PASTED_KIND.finditer(document)]
        if any(kind == "Secret" for _, kind in kinds):
            spans = [*_in_manifest(document), *_pasted(document, kinds)]
            yield from sorted({(begin + start, begin + end) for start, end in spans})
        begin += len(document)


def _in_manifest(document: str) -> Iterator[tuple[int, int]]:
    data = _DATA.search(document)
    if _KIND.search(document) and data:
        for match in _VALUE.finditer(document, data.end()):
            if not PLACEHOLDER.search(match["secret"].strip('"')):
                yield match.span("secret")


def _pasted(document: str, kinds: list[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    for data in _PASTED_DATA.finditer(document):
        place, kind = kinds[max(0, bisect(kinds, (data.start(), "")) - 1)]  # the last one before it, or the first
        if kind == "Secret" and abs(place - data.start()) < _NEAR:
            yield from _pairs(document, data.end())


def _pairs(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Names and values that follow each other, up to the next part of the manifest or the first other word."""
    while (match := _PASTED_VALUE.match(text, at)) is not None and match["name"] not in _OF_MANIFEST:
        value = match["secret"]
        is_whole_line = match["line"] is not None and len(value) >= 8 and not PLACEHOLDER.search(value)
        if match["name"] not in _OF_METADATA and (is_whole_line or is_drawn(value) or _is_encoded(value)):
            yield match.span("secret")
        at = match.end()


def _is_encoded(value: str) -> bool:
    """In Base64, of readable text or of what no word is."""
    if len(value) >= 8 and re.search(r"[A-Z\d+/=]", value[1:]):
        with suppress(ValueError):
            return b64decode(value, validate=True).isascii()
    return False
