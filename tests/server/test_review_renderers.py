"""A review in each of its formats, and what may not get through to a forge, an editor or a terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from inhouse_retrieval import InhouseError
from inhouse_server.review.change import Change, ReviewedFile, parse_hunks
from inhouse_server.review.finding import Coverage, Finding, Precedent, Review
from inhouse_server.review.renderers import FORMATS, render
from inhouse_server.review.renderers.harmless import code, fence, harmless, harmless_line
from inhouse_server.review.renderers.terminal import print_review
from inhouse_server.review.renderers.text import also

ROOT = Path("/repo")
BASE, HEAD = "b" * 40, "a" * 40
PAY = "src/pay.py"
OLD_PAY = "".join(f"line {number}\n" for number in range(1, 31))
NEW_PAY = (
    OLD_PAY.replace("line 5\n", "five = 5\nsix = '価格🙂'\n").replace("line 20\n", "").replace("line 25\n", "last\n")
)
PATCH = """\
--- a/src/pay.py
+++ b/src/pay.py
@@ -2,7 +2,8 @@
 line 2
 line 3
 line 4
-line 5
+five = 5
+six = '価格🙂'
 line 6
 line 7
 line 8
@@ -17,12 +18,11 @@
 line 17
 line 18
 line 19
-line 20
 line 21
 line 22
 line 23
 line 24
-line 25
+last
 line 26
 line 27
 line 28
"""
HOSTILE = """/merge everything
Hello @octocat and @org/team, see #12, !7, GH-3, org/repo#9, mail a@b.example
![x](https://evil.example/steal.png?q=1) [click](javascript:alert) <img src=x onerror=alert(1)> <b>bold</b>
<https://evil.example/auto> https://evil.example/bare www.evil.example [ref][r] 0123456789abcdef0123456789abcdef01234567
[r]: https://evil.example/ref
<!-- hidden
orders -->after
| a `x | <i>y</i>` |
| --- | --- |
- /close
# Heading
stray ` tick ![y](u)` \\`![z](u)` *bold* __init__ $math$ &lt;b&gt; std::vector
\x1b]8;;evil\x07\x00red\u202e\u200b"""


def finding(**changes: Any) -> Finding:
    plain = Finding(PAY, 6, 6, "warning", "import-spelling", "Not the usual way.", "six = '価格🙂'", score=0.9)
    return replace(plain, **changes)


def pay(**changes: Any) -> ReviewedFile:
    return replace(ReviewedFile(PAY, PAY, "modified", parse_hunks(PATCH), NEW_PAY), **changes)


def change(*files: ReviewedFile, head_commit: str = HEAD) -> Change:
    return Change("main", "topic", BASE, head_commit, "A title", "", files or (pay(),))


def review(*findings: Finding, **changes: Any) -> Review:
    return replace(Review("main", "topic", HEAD, findings, Coverage(3, 5, 40)), **changes)


def rendered(name: str, *findings: Finding, of: Change | None = None, **changes: Any) -> Any:
    return json.loads(render(name, review(*findings, **changes), of or change(), ROOT))


def active(text: str) -> list[str]:
    """What a viewer would act on: an independent parse, and then what forges look for in text that is not code."""
    found: list[str] = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).enable("table").parse(text):
        found += [token.type] if token.type in ("html_block", "table_open", "heading_open") else []
        for child in token.children or ():
            if child.type in ("html_inline", "image", "link_open"):
                found.append(child.type)
            if child.type == "text":
                words = ("@", "://", "www.", "#1", "!7", "#9", "GH-3")
                found += [f"{word} in {child.content!r}" for word in words if word in child.content]
    return found + re.findall(r"^/.*", re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.M | re.S), flags=re.M)


# --- harmless text ---


def test_hostile_text_can_only_be_read() -> None:
    text = harmless(HOSTILE)
    assert active(HOSTILE) and active(text) == []
    assert "<!--" not in text and "hidden" not in text and "after" in text
    assert not any(character in text for character in "\x1b\x07\x00\u202e\u200b")
    assert "`@octocat` and `@org/team`, see `#12`, `!7`," in text
    assert text.startswith("`/merge` everything")
    assert "`![x](https://evil.example/steal.png?q=1)`" in text


@given(st.text(alphabet="`![]()<>@#/\\|*-~ \n\rax1:&!", max_size=60))
def test_no_text_acts(text: str) -> None:
    assert active(harmless(text)) == []
    assert active(harmless_line(text)) == []


@given(st.text(alphabet="` \\a\nb", max_size=20))
def test_a_code_span_holds_any_text(text: str) -> None:
    [_, inline, _] = MarkdownIt("commonmark").parse(f"x {code(text)} y")
    spans = [child.content for child in inline.children or () if child.type == "code_inline"]
    assert [" ".join(span.split()) for span in spans] == [" ".join(text.split())]


def test_plain_words_and_code_of_a_message_stay() -> None:
    message = "`b` is imported from `a`, (`c d`); see a.b, 50% and x/y: it's fine.\n- one\n- two"
    assert harmless(message) == message


def test_code_in_a_message_is_kept_and_is_no_suggestion() -> None:
    message = "Do:\n```suggestion\n    ![x](u) <b> @me  \n/close\n```\nthen @me"
    assert harmless(message) == "Do:\n\n```\n    ![x](u) <b> @me  \n /close\n```\n\nthen `@me`"
    assert harmless("~~~~html\n```\n~~~\n~~~~").split("\n") == ["````", "```", "~~~", "````"]
    assert harmless("```\nopen @me") == "```\nopen @me\n```"


def test_a_fence_is_longer_than_what_it_holds() -> None:
    assert fence("a\n````\n", "suggestion") == "`````suggestion\na\n````\n`````"
    assert fence("", "suggestion") == "```suggestion\n```"


# --- json ---


def test_json_is_the_contract() -> None:
    one = finding(
        replacement="six = 6\n", precedents=(Precedent("a.py", 1, 2, "as here"),), changes=("#12 Retry",), key="k"
    )
    coverage = Coverage(1, 2, 3, {"x.png": "binary"}, 1, ("a.py:3 too long",))
    whole = review(
        one, coverage=coverage, more=1, repeated=2, dropped={"it does not parse": 3}, notes=("Ünï",), base_model="m"
    )
    line = render("json", whole, change(), ROOT)
    assert "\n" not in line and "Ünï" in line
    assert json.loads(line) == {
        "base": "main",
        "head": "topic",
        "head_commit": HEAD,
        "findings": [
            {
                "path": PAY,
                "start_line": 6,
                "end_line": 6,
                "severity": "warning",
                "rule": "import-spelling",
                "message": "Not the usual way.",
                "replacement": "six = 6\n",
                "precedents": [{"path": "a.py", "start_line": 1, "end_line": 2, "note": "as here"}],
                "changes": ["#12 Retry"],
                "also": [],
                "score": 0.9,
                "fingerprint": one.fingerprint,
            }
        ],
        "coverage": {
            "files": 1,
            "hunks": 2,
            "lines": 3,
            "unread": {"x.png": "binary"},
            "seen": 1,
            "unseen": ["a.py:3 too long"],
            "partly": [],
        },
        "more": 1,
        "repeated": 2,
        "dropped": {"it does not parse": 3},
        "notes": ["Ünï"],
        "provenance": {"base_model": "m", "adapter": None},
    }


@pytest.mark.parametrize("name", FORMATS)
def test_a_path_that_is_not_utf8_can_be_written(name: str) -> None:
    path = b"caf\xe9.py".decode("utf-8", "surrogateescape")
    text = render(name, review(finding(path=path)), change(pay(path=path)), ROOT)
    text.encode("utf-8")
    if name == "json":
        assert json.loads(text)["findings"][0]["path"] == path
    if name == "sarif":
        assert '"caf%E9.py"' in text


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(InhouseError, match="no review format 'xml'"):
        render("xml", review(), change(), ROOT)


@pytest.mark.parametrize("name", FORMATS)
def test_further_places_of_the_same_break_are_named_in_every_format(name: str) -> None:
    places = ((9, 9), (12, 13), (15, 15), (16, 16), (18, 18), (20, 20), (22, 22))
    text = render(name, review(finding(also=places, message="Open:\n```\ncode")), change(), ROOT)
    assert name == "json" or "Also at lines 9, 12-13, 15, 16, 18 and 2 more places." in text
    told = json.loads(text.splitlines()[0]) if name in ("json", "rdjsonl", "sarif") else {}
    if name == "json":
        assert told["findings"][0]["also"][:2] == [{"start_line": 9, "end_line": 9}, {"start_line": 12, "end_line": 13}]
    if name == "rdjsonl":
        spans = [each["location"]["range"] for each in told["related_locations"]]
        assert spans[1] == {"start": {"line": 12}, "end": {"line": 13}} and len(spans) == 7
    if name == "sarif":
        places_told = told["runs"][0]["results"][0]["relatedLocations"]
        assert places_told[1]["physicalLocation"]["region"] == {"startLine": 12, "endLine": 13}
        assert [each["id"] for each in places_told] == list(range(7))


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ((), ""),
        (((3, 3),), "Also at line 3."),
        (((3, 4),), "Also at lines 3-4."),
        (((3, 3), (5, 5)), "Also at lines 3 and 5."),
        (tuple((line, line) for line in range(1, 7)), "Also at lines 1, 2, 3, 4, 5 and 1 more place."),
    ],
)
def test_places_are_named_in_words(places: tuple[tuple[int, int], ...], told: str) -> None:
    assert also(places) == told


# --- sarif ---


def test_sarif_has_rules_results_fixes_and_related_places() -> None:
    one = finding(
        path="src/naïve file.py",
        replacement="six = 6\n",
        precedents=(Precedent("a b.py", 1, 2, "as @here"),),
        message="Use {braces}; [x](https://e.example).",
    )
    two = finding(severity="info", rule="name-style")
    log = rendered("sarif", one, two, one, of=change(pay(path="src/naïve file.py"), pay()))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    [run] = log["runs"]
    assert run["tool"]["driver"]["name"] == "inhouse"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["import-spelling", "name-style"]
    first, second, third = run["results"]
    assert (first["ruleId"], first["ruleIndex"], second["ruleIndex"]) == ("import-spelling", 0, 1)
    assert (first["level"], second["level"]) == ("warning", "note")
    assert first["message"]["text"] == "Use {{braces}}; `[x] (https://e.example)`."
    assert first["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "src/na%C3%AFve%20file.py"},
        "region": {"startLine": 6, "endLine": 6},
    }
    assert first["partialFingerprints"] == {"inhouse/v1": one.fingerprint} == third["partialFingerprints"]
    [related] = first["relatedLocations"]
    assert related["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.py"
    assert related["message"]["text"] == "as `@here`"
    assert "fixes" not in second and "relatedLocations" not in second
    [artifact] = first["fixes"][0]["artifactChanges"]
    assert artifact["artifactLocation"]["uri"] == "src/na%C3%AFve%20file.py"
    assert artifact["replacements"] == [
        {
            "deletedRegion": {"startLine": 6, "startColumn": 1, "endLine": 7, "endColumn": 1},
            "insertedContent": {"text": "six = 6\n"},
        }
    ]


def test_sarif_replaces_a_last_line_that_has_no_end() -> None:
    file = ReviewedFile("n", "n", "added", parse_hunks("@@ -0,0 +1,2 @@\n+a\n+b🙂\n"), "a\nb🙂")
    log = rendered("sarif", finding(path="n", start_line=2, end_line=2, replacement="c\n"), of=change(file))
    [fix] = log["runs"][0]["results"][0]["fixes"][0]["artifactChanges"][0]["replacements"]
    assert fix["deletedRegion"] == {"startLine": 2, "startColumn": 1, "endLine": 2, "endColumn": 3}
    assert fix["insertedContent"] == {"text": "c"}


# --- rdjsonl ---


def test_rdjsonl_counts_the_bytes_of_a_line() -> None:
    one = rendered("rdjsonl", finding(replacement="six = 6\n"))
    width = len("six = ''") + 2 * 3 + 4
    assert one["location"] == {
        "path": PAY,
        "range": {"start": {"line": 6, "column": 1}, "end": {"line": 6, "column": width + 1}},
    }
    assert one["suggestions"] == [{"range": one["location"]["range"], "text": "six = 6"}]
    assert (one["severity"], one["code"]["value"]) == ("WARNING", "import-spelling")


def test_rdjsonl_is_one_line_for_each_and_harmless() -> None:
    text = render("rdjsonl", review(finding(message="a\nb @me"), finding(severity="info")), change(), ROOT)
    first, second = map(json.loads, text.splitlines())
    assert first["message"] == "a\nb `@me`" and second["severity"] == "INFO"


def test_rdjsonl_leaves_line_ends_out_of_the_range() -> None:
    file = ReviewedFile("w", "w", "added", parse_hunks("@@ -0,0 +1,2 @@\n+é\r\n+b\r\n"), "é\r\nb\r\n")
    one = rendered("rdjsonl", finding(path="w", start_line=1, end_line=1, replacement="x\r\ny\r\n"), of=change(file))
    assert one["location"]["range"]["end"] == {"line": 1, "column": 3}
    assert one["suggestions"][0]["text"] == "x\r\ny"


def test_rdjsonl_takes_lines_away_by_a_range_without_columns() -> None:
    one = rendered("rdjsonl", finding(start_line=5, replacement=""))
    assert one["suggestions"] == [{"range": {"start": {"line": 5}, "end": {"line": 6}}, "text": ""}]


# --- github ---


def test_github_comments_on_one_line_and_on_several() -> None:
    body = rendered("github", finding(replacement="six = 6\n"), finding(start_line=5, replacement=""))
    assert (body["event"], body["commit_id"]) == ("COMMENT", HEAD)
    one, several = body["comments"]
    assert {key: one[key] for key in one if key != "body"} == {"path": PAY, "line": 6, "side": "RIGHT"}
    assert one["body"].endswith("\n\n```suggestion\nsix = 6\n```")
    assert (several["start_line"], several["start_side"], several["line"]) == (5, "RIGHT", 6)
    assert several["body"].endswith("\n\n```suggestion\n```")
    assert "2 findings. 3 files, 5 hunks, 40 added lines were read." in body["body"]


@pytest.mark.parametrize(("first", "last", "comment"), [(2, 9, True), (9, 10, False), (9, 18, False), (1, 1, False)])
def test_github_takes_comments_inside_one_hunk_only(first: int, last: int, comment: bool) -> None:
    body = rendered("github", finding(start_line=first, end_line=last, replacement="x\n"))
    assert bool(body["comments"]) is comment
    place = f"`{PAY}:{first}" if first == last else f"`{PAY}:{first}-{last}`"
    assert (place in body["body"]) is not comment
    assert ("suggestion" in body["body"]) is False and ("Instead:\n\n```\nx\n```" in body["body"]) is not comment


def test_github_takes_no_comment_on_files_that_are_not_in_the_diff() -> None:
    removed = ReviewedFile(PAY, PAY, "removed", unread="removed")
    assert rendered("github", finding(), of=change(removed))["comments"] == []
    assert rendered("github", finding(path="other.py"))["comments"] == []


def test_github_suggestion_holds_backquotes_and_windows_line_ends() -> None:
    [comment] = rendered("github", finding(replacement="````md\r\n```\r\n"))["comments"]
    assert comment["body"].endswith("`````suggestion\n````md\n```\n`````")


def test_github_body_without_a_commit_names_none() -> None:
    assert "commit_id" not in rendered("github", finding(), of=change(head_commit=""))


def test_nothing_that_acts_gets_to_a_forge() -> None:
    hostile = HOSTILE.replace("\n", " ")
    one = finding(message=HOSTILE, precedents=(Precedent("a`@me`.py", 1, 1, hostile),), changes=(hostile,))
    everything = review(
        one, replace(one, start_line=1), notes=(hostile,), dropped={hostile: 1}, base_model=hostile, adapter="![x](u)"
    )
    everything = replace(everything, coverage=Coverage(1, 1, 1, {hostile: hostile}, 1, (hostile,)))
    github = json.loads(render("github", everything, change(), ROOT))
    gitlab = json.loads(render("gitlab", everything, change(), ROOT))
    bodies = [github["body"], github["comments"][0]["body"], *(each["body"] for each in gitlab)]
    for body in bodies:
        assert active(body) == []
        assert "<!--" not in body.replace(code(hostile), "")
    document = render("markdown", everything, change(), ROOT)
    assert [what for what in active(document) if what != "heading_open"] == []
    sarif = render("sarif", everything, change(), ROOT)
    assert "](" not in sarif and "\\u001b" not in sarif


# --- gitlab ---


def test_gitlab_anchors_on_the_last_line() -> None:
    first, second = rendered("gitlab", finding(start_line=5, replacement="```\n"), finding(replacement=""))
    assert first["position"] == {
        "position_type": "text",
        "base_sha": BASE,
        "start_sha": BASE,
        "head_sha": HEAD,
        "old_path": PAY,
        "new_path": PAY,
        "new_line": 6,
    }
    assert "\n\n````suggestion:-1+0\n```\n````" in first["body"]
    assert second["body"].endswith("\n\n```suggestion:-0+0\n```")
    assert "3 files, 5 hunks" in first["body"] and "3 files" not in second["body"]


@pytest.mark.parametrize(
    ("new", "old"), [(2, 2), (4, 4), (6, None), (7, 6), (9, 8), (20, 19), (21, 21), (25, None), (26, 26)]
)
def test_gitlab_names_the_former_line_of_an_unchanged_one(new: int, old: int | None) -> None:
    before, after = OLD_PAY.split("\n"), NEW_PAY.split("\n")
    assert old is None or before[old - 1] == after[new - 1]
    [one] = rendered("gitlab", finding(start_line=new, end_line=new))
    assert one["position"].get("old_line") == old


def test_gitlab_paths_of_added_and_renamed_files() -> None:
    [added] = rendered("gitlab", finding(), of=change(pay(status="added", former="")))
    [renamed] = rendered("gitlab", finding(), of=change(pay(status="renamed", former="old.py")))
    assert added["position"]["old_path"] == PAY
    assert renamed["position"]["old_path"] == "old.py"


def test_gitlab_remark_outside_the_diff_has_no_position() -> None:
    [one] = rendered("gitlab", finding(start_line=12, end_line=12, replacement="x\n"))
    assert "position" not in one and one["body"].startswith(f"`{PAY}:12`") and "suggestion" not in one["body"]


def test_gitlab_needs_a_commit_for_what_it_places() -> None:
    with pytest.raises(InhouseError, match="not committed"):
        rendered("gitlab", finding(), of=change(head_commit=""))


# --- silence ---


def test_silence_says_what_was_looked_at() -> None:
    coverage = Coverage(3, 5, 1240, {"a.png": "binary", "b.png": "binary", "m": "submodule"}, 4, ("a.py:1 too long",))
    said = (
        "No findings. 3 files, 5 hunks, 1,240 added lines were read; the model read 4 of 5 hunks; "
        "3 changed files were not: binary (2), submodule (1)."
    )
    silent = review(coverage=coverage)
    assert said in render("markdown", silent, change(), ROOT)
    named = "Not read: a.png (binary); b.png (binary); m (submodule).\n\nNot seen by the model: a.py:1 too long."
    assert json.loads(render("github", silent, change(), ROOT)) == {
        "commit_id": HEAD,
        "body": f"{said}\n\n{named}",
        "event": "COMMENT",
        "comments": [],
    }
    [run] = json.loads(render("sarif", silent, change(), ROOT))["runs"]
    assert run["results"] == []
    assert run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"] == said
    assert render("rdjsonl", silent, change(), ROOT) == ""
    assert render("gitlab", silent, change(), ROOT) == "[]"
    lines = named.replace("\n\n", "\n")
    assert printed(silent) == f"{lines}\n{said}\n"


# --- markdown ---


def test_markdown_tells_all() -> None:
    one = finding(
        replacement="-- six\n",
        anchor="-- 価格",
        precedents=(Precedent("a.py", 1, 2, "as here"),),
        changes=("#12 Retry payments",),
    )
    coverage = Coverage(1, 1, 1, {"x_y.png": "binary"}, 0, ("a.py:3 too long",))
    whole = review(
        one,
        coverage=coverage,
        more=2,
        repeated=1,
        dropped={"it does not parse": 1, "it changes nothing": 2},
        notes=("A comment was stripped.",),
        base_model="Qwen",
        adapter="org",
    )
    text = render("markdown", whole, change(), ROOT)
    for part in (
        "# Review of `topic` against `main`",
        "1 finding. 1 file, 1 hunk, 1 added line were read; the model read 0 of 1 hunk; ",
        "; 1 changed file was not: binary.\n",
        f"## `{PAY}:6`",
        "**warning** `import-spelling`",
        "```diff\n--- 価格\n+-- six\n```",
        "- `a.py:1-2`: as here",
        "Past changes: `#12` Retry payments",
        "2 more findings were held back as less sure.",
        "1 finding shown for an earlier push is not repeated.",
        "3 remarks or replacements not proven and dropped: it does not parse (1), it changes nothing (2).",
        "A comment was stripped.",
        "- `x_y.png`: binary",
        "- `a.py:3 too long`",
        "Read by Qwen with adapter org.",
    ):
        assert part in text


# --- terminal ---


def printed(whole: Review, *, terminal: bool = False, of: Change | None = None) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, color_system="truecolor" if terminal else None, width=40)
    print_review(whole, of or change(), ROOT, console)
    return file.getvalue()


def test_terminal_shows_the_place_the_hunk_and_the_difference() -> None:
    one = finding(
        message="[bold]never[/bold] markup :smile:",
        replacement="six = 6\n",
        precedents=(Precedent("a.py", 1, 2, "as [red]here[/red]"),),
        changes=("#12 Retry",),
    )
    assert printed(review(one)) == (
        "src/pay.py:6 warning [import-spelling]\n"
        "[bold]never[/bold] markup :smile:\n"
        "  4   line 4\n"
        "    - line 5\n"
        "  5 + five = 5\n"
        "  6 + six = '価格🙂'\n"
        "  7   line 6\n"
        "  8   line 7\n"
        "  suggested:\n"
        "  -six = '価格🙂'\n"
        "  +six = 6\n"
        "  a.py:1-2 as [red]here[/red]\n"
        "  #12 Retry\n"
        "\n"
        "1 finding. 3 files, 5 hunks, 40 added lines were read.\n"
    )


def test_terminal_places_can_be_clicked_and_code_is_coloured() -> None:
    text = printed(review(finding(replacement="six = 6\n")), terminal=True)
    assert ";file:///repo/src/pay.py#6\x1b\\" in text and "src/pay.py:6" in text
    assert "\x1b[32m  +six = 6\x1b[0m" in text and "\x1b[31m  -six = '価格🙂'\x1b[0m" in text
    assert "\x1b]8;" not in printed(review(finding()))


def test_terminal_obeys_nothing_in_the_repository() -> None:
    evil = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m"
    patch = f"@@ -0,0 +1,2 @@\n+a = 1 # {evil}\n+b\n"
    file = ReviewedFile(f"e{evil}.py", "", "added", parse_hunks(patch), f"a = 1 # {evil}\nb\n")
    one = finding(
        path=file.path, start_line=1, end_line=1, message=evil, rule=evil, anchor=f"a = 1 # {evil}",
        replacement=f"a = 2 # {evil}\n", precedents=(Precedent(f"p{evil}\n", 1, 1, evil),), changes=(evil,),
    )  # fmt: skip
    whole = review(one, notes=(evil,), dropped={evil: 1}, base_model=evil)
    text = printed(whole, of=change(file))
    assert not any(character in text for character in "\x1b\x07\x9b")
    assert all(f"\x1b{end}" not in printed(whole, terminal=True, of=change(file)) for end in ("]52", "[2J"))


def test_terminal_shows_the_lines_themselves_outside_a_hunk_and_hides_secrets() -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    text = printed(
        review(finding(start_line=12, end_line=12, anchor=f'token = "{secret}"', replacement="token = key()\n"))
    )
    assert "  12   token = " in text and secret not in text
    path = b"caf\xe9.py".decode("utf-8", "surrogateescape")
    assert "caf?.py:12" in printed(review(finding(path=path, start_line=12, end_line=12)))
