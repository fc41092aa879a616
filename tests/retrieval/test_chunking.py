"""Chunks cover the file, fit the encoder, begin at definitions and say where they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inhouse_retrieval import Encoder, chunk_text, load_encoder

ENCODER = load_encoder()


def lines(chunks: list) -> list[int]:  # type: ignore[type-arg]
    return [line for chunk in chunks for line in range(chunk.start_line, chunk.end_line + 1)]


SOURCE = '''import os


class Basket:
    """What a customer is about to buy."""

    def add(self, line):
        """Add a line."""
        self.lines.append(line)
        self.total += line.price
        self.audit("added", line)

    def remove(self, line):
        """Take a line out again."""
        self.lines.remove(line)
        self.total -= line.price
        self.audit("removed", line)


# How orders are numbered.
@register
def next_number(orders):
    return max(orders) + 1
'''


def test_cuts_at_definitions_under_a_header(encoder: Encoder) -> None:
    chunks = chunk_text("shop/basket.py", SOURCE, encoder.count_tokens, 56)
    assert [chunk.text.strip().split("\n")[0].strip() for chunk in chunks] == [
        "import os",
        "def add(self, line):",
        "def remove(self, line):",
        "# How orders are numbered.",
    ]
    assert [chunk.header for chunk in chunks] == [
        "shop/basket.py",
        "shop/basket.py > Basket",
        "shop/basket.py > Basket",
        "shop/basket.py",
    ]
    assert [chunk.symbols for chunk in chunks] == [("Basket",), ("add",), ("remove",), ("next_number",)]


def test_headings_enclose_in_documents(encoder: Encoder) -> None:
    text = "# Guide\n\n## Install\n\n" + "Run the installer and wait. " * 12 + "\n\n### Debian\n\nUse apt.\n"
    chunks = chunk_text("docs/guide.md", text, encoder.count_tokens, 100)
    assert chunks[-1].header.startswith("docs/guide.md > Guide > Install")


def test_typescript_components_are_definitions(encoder: Encoder) -> None:
    text = "export const Card = (props: Props) => {\n" + "  const a = compute(props);\n" * 30 + "};\n"
    chunks = chunk_text("Card.tsx", text, encoder.count_tokens, 80)
    assert chunks[0].symbols == ("Card",)
    assert all(chunk.header == "Card.tsx > Card" for chunk in chunks[1:-1])


def test_a_line_longer_than_the_encoder_is_split_and_nothing_lost(encoder: Encoder) -> None:
    line = " ".join(f"word{number}" for number in range(2000)) + "x" * 5000
    chunks = chunk_text("data.txt", f"first\n{line}\nlast\n", encoder.count_tokens, encoder.max_tokens)
    assert "".join(chunk.text for chunk in chunks if chunk.start_line == 2) == line
    assert {chunk.end_line for chunk in chunks} == {1, 2, 3}
    assert max(encoder.count_tokens([chunk.embedded for chunk in chunks])) <= encoder.max_tokens


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.one_of(st.text(max_size=60), st.sampled_from(["def f(x):", "    y = x", "", "}", "# Title", "\t\tz"]))),
    st.sampled_from(["a.py", "b.md", "deep/" * 40 + "c.ts"]),
    st.integers(16, 254),
)
def test_every_line_in_order_and_never_too_long(rows: list[str], path: str, limit: int) -> None:
    text = "\n".join(row.replace("\n", " ") for row in rows)
    chunks = chunk_text(path, text, ENCODER.count_tokens, limit)
    held = "\n".join(chunk.text for chunk in chunks)
    assert "".join(held.split()) == "".join(text.split())
    assert lines(chunks) == sorted(lines(chunks))
    assert all(size <= limit for size in ENCODER.count_tokens([chunk.embedded for chunk in chunks]))


def test_too_small_a_limit(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        chunk_text("a.py", "x\n", encoder.count_tokens, 8)
