"""Model text in Markdown is read and does nothing; code in it stays as it is."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from inhouse_retrieval import Passage
from inhouse_server.answers import AnswerFinished, Provenance, Timings
from inhouse_server.locations import file_uri
from inhouse_server.markdown import answer_document, citation_link, fenced, harmless_markdown


class EveryLink(MarkdownIt):
    def validateLink(self, url: str) -> bool:
        return True


def active(text: str) -> list[str]:
    """What a viewer would act on, as an independent look at the parsed document."""
    found = []
    for token in EveryLink("commonmark").enable("table").parse(text):
        found += ["html"] if token.type == "html_block" else []
        for child in token.children or ():
            href = str(child.attrGet("href") or "")
            if child.type in ("image", "html_inline"):
                found.append(child.type)
            elif child.type == "link_open" and not href.startswith("#"):
                found.append(href)
    return found


@pytest.mark.parametrize(
    "hostile",
    [
        "Look: ![x](https://example.com/steal.png)",
        "See [the docs](https://evil.example/?q=secret) or <https://evil.example>.",
        "See [the docs][1].\n\n[1]: https://evil.example",
        "[run](command:workbench.action.terminal.new)",
        "<command:workbench.action.terminal.new>",
        "[x](javascript:alert(1)) [y](data:text/html,hi) [z](file:///etc/passwd)",
        "[go][r]\n\n[r]: command:x",
        "![go][r]\n\n[r]: https://example.com/x.png",
        "<script>\nalert(1)\n</script>",
        "text <img src=x onerror=alert(1)> text",
        "<a\nhref='command:x'>k</a>",
        "| a | b |\n|---|---|\n| <i> | ![x](u) |",
        "- a\n\n  ```\nout ![x](u)",
        "`\n` ![x](u) `",
        r"\![x](u) \\![x](v)",
        "> <b>\n> ![x](u)",
        "<!-- hidden -->",
    ],
)
def test_nothing_active_is_left(hostile: str) -> None:
    assert active(hostile)
    assert active(harmless_markdown(hostile)) == []


@pytest.mark.parametrize(
    "plain",
    [
        "Use `Vec<T>` and `a[0]`, see [below](#usage).",
        "```html\n<div>![x](y)</div>\n```",
        "    <indented code>\n\n1 < 2 and a[1]",
        "~~~~\n```\n<b>\n~~~~",
        "",
    ],
)
def test_what_is_harmless_is_left_as_it_is(plain: str) -> None:
    assert harmless_markdown(plain) == plain


def test_code_beside_html_stays_readable() -> None:
    assert "`Vec<T>`" in harmless_markdown("Use `Vec<T>`, not <b>this</b>.")


@given(st.lists(st.sampled_from([*"<>![]()`\n \\ab|->#~", "```", "![x](u)", "[a](command:b)", "<b>"])))
def test_nothing_active_is_left_of_anything(pieces: list[str]) -> None:
    assert active(harmless_markdown("".join(pieces))) == []


def test_a_fence_is_longer_than_any_inside() -> None:
    assert fenced("a\n````\nb").splitlines()[0] == "`````"


def passage(path: str) -> Passage:
    return Passage(path, 12, 20, "text", "code", "0" * 40, "1" * 40, 1.0, ("dense",))


def test_a_citation_opens_whatever_the_path_holds(tmp_path: Path) -> None:
    link = citation_link(passage("a b/größe [1]<x>.py"), partial(file_uri, tmp_path))
    quoted = f"{tmp_path.as_uri()}/a%20b/gr%C3%B6%C3%9Fe%20%5B1%5D%3Cx%3E.py#L12"
    assert link == f"[a b/größe \\[1\\]\\<x\\>.py:12]({quoted})"
    children = EveryLink("commonmark").parseInline(link)[0].children
    assert children is not None
    assert [child.type for child in children] == ["link_open", "text", "link_close"]
    assert children[1].content == "a b/größe [1]<x>.py:12"


def test_an_answer_has_its_text_then_its_sources_then_its_provenance(tmp_path: Path) -> None:
    finished = AnswerFinished(
        citations=(passage("a.py"),),
        omitted=(),
        notes=("One note.",),
        reason="stop",
        provenance=Provenance("SmolLM2-135M-Instruct", "0123456789ab", "f" * 40, 1),
        timings=Timings(1, 2, 3, 4, 5),
    )
    document = answer_document("Why?", "Because ![x](u).", finished, partial(file_uri, tmp_path))
    order = [
        document.index(part)
        for part in (
            "Why?",
            "Because",
            f"[a.py:12]({tmp_path.as_uri()}/a.py#L12)",
            "One note.",
            "SmolLM2-135M-Instruct with adapter 0123456789ab, index at ffffffffffff, 1 changed file not",
        )
    ]
    assert order == sorted(order)
