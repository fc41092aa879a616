"""An answer as a Markdown document, in which the model's text can do nothing but be read.

Model text is data: it may repeat what somebody wrote into the repository. Raw HTML, images (which a viewer
fetches) and links out of the document (``command:`` runs things in some editors, and an address can carry away
what the model read) are turned into plain characters. The text is parsed, escaped where needed and parsed again
until nothing active is left, so code keeps its ``<`` and ``[`` as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from inhouse_retrieval import Passage
from inhouse_server.answers import AnswerFinished, Provenance
from inhouse_training.plain_text import visible

_SAFE_LINK = re.compile("#")
_ROUNDS = 8


class _Parser(MarkdownIt):
    """Sees every link: by itself the parser leaves out what it thinks unsafe, and other viewers do not."""

    def validateLink(self, url: str) -> bool:
        return True


def harmless_markdown(text: str) -> str:
    """``text`` with raw HTML, images and links out of the document made plain; code stays as it is."""
    parser = _Parser("commonmark").enable("table")
    text = text.replace("\0", "�")
    for _ in range(_ROUNDS):
        lines = text.split("\n")
        found = list(_active(parser.parse(text)))
        if not found:
            return text
        for start, end, needles in found:
            for number in range(start, min(end, len(lines))):
                for needle in needles:
                    lines[number] = lines[number].replace(needle, _escape(needle))
        text = "\n".join(lines)
    # Something stays active whatever is escaped: show it as code, which no viewer acts on.
    return fenced(text)


def _active(tokens: list[Token]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Line ranges that hold something active, with what to escape there."""
    for token in tokens:
        start, end = token.map or (0, 0)
        if token.type == "html_block":
            yield start, end, ("<",)
        for child in token.children or ():
            href = child.attrGet("href")
            if child.type == "image" or (child.type == "link_open" and not _SAFE_LINK.match(str(href))):
                yield start, end, ("<", "[")
            elif child.type == "html_inline":
                # Only the tag itself, so that `Vec<T>` in the same paragraph's code stays readable.
                yield start, end, ("<",) if "\n" in child.content else (child.content,)


def _escape(text: str) -> str:
    # Character references and not backslashes: a backslash already there would turn ours into a plain one.
    return text.replace("<", "&lt;").replace("[", "&#91;")


def fenced(text: str, language: str = "") -> str:
    """``text`` as a code block, whatever backquotes it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def as_written(text: str) -> str:
    """``text`` as one line of Markdown that shows it as it is written, as far as a reader sees it."""
    line = "".join(f"\\{char}" if char in "\\`*_[]<>&!~|" else char for char in text)
    return visible("".join(char if char.isprintable() else "?" for char in line))


def place_link(path: str, line: int, uri_of: Callable[[str], str]) -> str:
    """``[path:line](file:///…#Lline)``."""
    return f"[{as_written(path)}:{line}]({uri_of(path)}#L{line})"


def citation_link(passage: Passage, uri_of: Callable[[str], str]) -> str:
    """A link to where the passage begins."""
    return place_link(passage.path, passage.start_line, uri_of)


def provenance_line(provenance: Provenance) -> str:
    """One plain sentence that says which model, adapter and commit produced an answer."""
    adapter = f"adapter {provenance.adapter}" if provenance.adapter else "no adapter"
    line = f"Answered by {provenance.base_model} with {adapter}"
    if provenance.index_commit is None:
        return f"{line}, without the index."
    line += f", index at {provenance.index_commit[:12]}"
    if provenance.pending:
        line += f", {provenance.pending} changed file{'s' * (provenance.pending != 1)} not indexed yet"
    return f"{line}."


def answer_document(question: str, answer: str, finished: AnswerFinished, uri_of: Callable[[str], str]) -> str:
    """The answer, then its citations as links, then what produced it.

    Args:
        uri_of: address of a path relative to the repository root.
    """
    parts = [fenced(question.strip(), "text"), harmless_markdown(answer.strip())]
    if finished.citations:
        parts.append("## Sources\n\n" + "\n".join(f"- {citation_link(c, uri_of)}" for c in finished.citations))
    parts += [f"*{harmless_markdown(note)}*" for note in finished.notes]
    parts.append(f"---\n\n{harmless_markdown(provenance_line(finished.provenance))}")
    return "\n\n".join(parts) + "\n"
