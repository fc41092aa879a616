"""Text between Slack and the assistant. Nothing that a model writes can mention, link, embed or format.

An answer is sent as rich text, whose text elements Slack shows as they are: a mention or a link would be an element of
another kind. The plain text beside it, which notifications show, has ``&``, ``<`` and ``>`` escaped, as Slack asks. Web
addresses are broken, since some clients make links of whatever looks like one.
"""

from __future__ import annotations

import re
from typing import Any

LONGEST = 12_000
"""Characters of an answer that are shown; Slack cuts messages at 40,000 with all that belongs to them."""
_ELEMENT = 2_900
_ADDRESS = re.compile(r":(?=//)|\bmailto:|\bwww\.", re.I)
_TAG = re.compile(r"<(?P<kind>[@#!]?)(?P<what>[^>|]*)(?:\|(?P<label>[^>]*))?>")


def escaped(text: str) -> str:
    """``text`` as mrkdwn that shows it: https://docs.slack.dev/messaging/formatting-message-text#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def read(text: str, me: str) -> str:
    """What somebody wrote, without Slack's markup: our own mention goes, others and links become their words."""

    def words(found: re.Match[str]) -> str:
        if found["kind"] == "@" and found["what"] == me:
            return ""
        return found["label"] or found["kind"] + found["what"]

    plain = _TAG.sub(words, text)
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


def inert(text: str) -> str:
    """``text`` without what clients take for a web address, and without characters that are not text."""
    shown = "".join(each for each in text if each in "\n\t" or each.isprintable())
    return _ADDRESS.sub(lambda found: found[0] + " ", shown)


def answer_blocks(answer: str, below: str = "") -> list[dict[str, Any]]:
    """The blocks of a message: the answer with its code set apart, then what belongs below it in italics."""
    shown = inert(answer)
    if len(shown) > LONGEST:
        shown = shown[:LONGEST] + "\n… cut: Slack shows no more."
    elements: list[dict[str, Any]] = []
    for kind, part in _parts(shown):
        elements += [{"type": kind, "elements": [_text(piece)]} for piece in _pieces(part)]
    if below:
        elements += [{"type": "rich_text_section", "elements": [_text("\n" + inert(below), italic=True)]}]
    return [{"type": "rich_text", "elements": elements or [{"type": "rich_text_section", "elements": [_text("…")]}]}]


def sources(contract: dict[str, Any]) -> str:
    """Citations, notes and provenance of an answer contract, a line each."""
    lines = [f"{each['path']}:{each['start_line']}-{each['end_line']}" for each in contract["citations"]]
    provenance = contract["provenance"]
    adapter = f"adapter {provenance['adapter']}" if provenance["adapter"] else "no adapter"
    made = f"Answered by {provenance['base_model']} with {adapter}"
    if provenance["index_commit"]:
        made += f", index at {provenance['index_commit'][:12]}"
    return "\n".join([*(["Sources:", *lines] if lines else []), *contract["notes"], made + "."])


def _text(text: str, italic: bool = False) -> dict[str, Any]:
    return {"type": "text", "text": text, **({"style": {"italic": True}} if italic else {})}


def _parts(text: str) -> list[tuple[str, str]]:
    """Prose and fenced code in turn, as Slack's kinds of element."""
    parts: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            inside = not inside
            parts.append(("", []))
            continue
        kind = "rich_text_preformatted" if inside else "rich_text_section"
        if not parts or parts[-1][0] != kind:
            parts.append((kind, []))
        parts[-1][1].append(line)
    return [(kind, "\n".join(lines)) for kind, lines in parts if kind and any(line.strip() for line in lines)]


def _pieces(text: str) -> list[str]:
    return [text[at : at + _ELEMENT] for at in range(0, len(text), _ELEMENT)]
