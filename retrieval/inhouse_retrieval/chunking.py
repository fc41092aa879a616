"""Cutting a file into chunks that an encoder reads whole, each under a header that says where it is.

The cut falls where a person would make it: before a definition or a heading, else at a blank line, else where it
goes through the fewest levels of the syntax, looking back over the last quarter of a full chunk. It is the splitting
and merging of cAST (Zhang et al., arXiv 2506.15655) with lines for leaves and the encoder's own tokens for size. Every
line of the file lands in exactly one chunk (a line too long for the encoder, in several).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from inhouse_retrieval.outline import Outline, leads_in, outline

CHUNKER_VERSION = 2
"""Part of every vector's cache key: raise it when the same file would be cut or headed differently."""

CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines ``start_line`` to ``end_line`` (1-based, inclusive) of ``path``.

    Attributes:
        text: the lines themselves.
        header: path, then the definitions or headings that enclose the first line, such as ``a/b.py > Basket
            > add``.
        symbols: names defined within.
    """

    path: str
    start_line: int
    end_line: int
    text: str
    header: str
    symbols: tuple[str, ...]

    @property
    def embedded(self) -> str:
        """What the encoder reads."""
        return f"{self.header}\n{self.text}"


def chunk_text(path: str, text: str, count_tokens: CountTokens, max_tokens: int) -> list[Chunk]:
    """Cut ``text`` so that header and lines together take at most ``max_tokens`` of ``count_tokens``.

    Raises:
        ValueError: ``max_tokens`` is too small to hold anything (below 16).
    """
    if max_tokens < 16:
        raise ValueError("max_tokens must be at least 16")
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    if not lines:
        return []
    counts = count_tokens(lines)
    built = outline(path, lines)
    headers = _headers(path, set(built.enclosing), count_tokens, max_tokens // 3)
    chunks: list[Chunk] = []
    at = 0
    while at < len(lines):
        header, header_tokens = headers[built.enclosing[at]]
        room = max_tokens - header_tokens
        if counts[at] > room:
            pieces = _split_line(lines[at], count_tokens, room)
            chunks += [Chunk(path, at + 1, at + 1, piece, header, ()) for piece in pieces]
            at += 1
            continue
        end, used = at, 0
        while end < len(lines) and used + counts[end] <= room:
            used += counts[end]
            end += 1
        if end < len(lines):
            end = best_cut(lines, built, at, end)
        body = "\n".join(lines[at:end])
        if body.strip():
            names = (built.definitions[row] for row in range(at, end) if row in built.definitions)
            symbols = tuple(dict.fromkeys(names))
            chunks.append(Chunk(path, at + 1, end, body, header, symbols))
        at = end
    # Tokens of lines need not add up exactly for every tokenizer.
    sizes = count_tokens([chunk.embedded for chunk in chunks])
    return [
        fitting
        for chunk, size in zip(chunks, sizes, strict=True)
        for fitting in ([chunk] if size <= max_tokens else _halves(chunk, count_tokens, max_tokens))
    ]


def _halves(chunk: Chunk, count_tokens: CountTokens, max_tokens: int) -> list[Chunk]:
    """A chunk that came out too long, halved until its parts fit."""
    if count_tokens([chunk.embedded])[0] <= max_tokens or len(chunk.text) < 2:
        return [chunk]
    lines = chunk.text.split("\n")
    if len(lines) > 1:
        row = len(lines) // 2
        first, second, line = "\n".join(lines[:row]), "\n".join(lines[row:]), chunk.start_line + row
        parts = [replace(chunk, text=first, end_line=line - 1), replace(chunk, text=second, start_line=line)]
    else:
        middle = len(chunk.text) // 2
        parts = [replace(chunk, text=chunk.text[:middle]), replace(chunk, text=chunk.text[middle:])]
    return [fitting for part in parts for fitting in _halves(part, count_tokens, max_tokens)]


def _headers(
    path: str, enclosing: Collection[tuple[str, ...]], count_tokens: CountTokens, room: int
) -> dict[tuple[str, ...], tuple[str, int]]:
    """Enclosing names -> header and its tokens: path and names, shortened from the outside until they fit."""
    # The folders above say little more, and every token of a header is paid for in every chunk.
    near = "/".join(path.split("/")[-2:])
    full = {names: " > ".join([near, *names]) for names in enclosing}
    counts = dict(zip(full, count_tokens(list(full.values())), strict=True))
    headers: dict[tuple[str, ...], tuple[str, int]] = {}
    for names, header in full.items():
        if counts[names] <= room:
            headers[names] = header, counts[names]
            continue
        candidates = [" > ".join([near, *names[skip:]]) for skip in range(1, len(names) + 1)]
        name = path.rpartition("/")[2]
        candidates += [name, *("…" + name[-length:] for length in (40, 20, 8))]
        sized = zip(candidates, count_tokens(candidates), strict=True)
        headers[names] = next((pair for pair in sized if pair[1] <= room), ("", 0))
    return headers


def best_cut(lines: Sequence[str], built: Outline, start: int, end: int, back: float = 0.25) -> int:
    """The best row in the last part of ``start..end`` to begin the next chunk at: where the least is taken apart.

    Args:
        back: how much of the rows may be given up for it. For the index a longer look back makes smaller chunks, which
            cost more to embed and are found less well.
    """

    def cost(row: int) -> tuple[int, int, int]:
        blank_above = not lines[row - 1].strip()
        target = row
        while target < len(lines) - 1 and leads_in(lines[target]) and target not in built.definitions:
            target += 1
        depth = built.depths[target] if lines[target].strip() else 99
        if not lines[row].strip() or (leads_in(lines[row - 1]) and not blank_above):
            kind = 3  # would start with nothing, or part a comment from what it explains
        elif target in built.definitions:
            kind = 0
        elif blank_above:
            kind = 1
        else:
            kind = 2
        return depth * 2 + kind * 3, kind, -row

    earliest = start + max(1, int((end - start) * (1 - back)))
    return min(range(earliest, end + 1), key=cost) if earliest <= end < len(lines) else end


def _split_line(line: str, count_tokens: CountTokens, room: int) -> list[str]:
    """Cut one line into pieces of at most ``room`` tokens; joined, they are the line again."""
    pieces: list[str] = []
    rest = line
    while rest:
        low, high = 1, min(len(rest), room * 16)
        while low < high:
            middle = (low + high + 1) // 2
            if count_tokens([rest[:middle]])[0] <= room:
                low = middle
            else:
                high = middle - 1
        space = rest.rfind(" ", low // 2, low) if low < len(rest) else -1
        cut = space + 1 if space > 0 else low
        pieces.append(rest[:cut])
        rest = rest[cut:]
    return pieces
