"""Scope completion with cross-file context: the rest of a function or class, asked for as the evaluation asks.

Targets cut at a syntactic scope teach a repository's own ways better than lines cut anywhere (IBM, arXiv 2602.05780).
One scope of each file of code is drawn. What is shown is the lines before it, and the definitions in other files of the
names that it uses, one hop far: such names lead there as a search would (RepoCoder, Zhang et al., 2023), and a program
finds them. A quarter is asked without, so that the model learns both to use what it is shown and to do without.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inhouse_retrieval import Passage, PullRequest, Repository, SkippedFile, TrackedFile, redact, redactions_in
from inhouse_retrieval.defined_names import DefinedName, defined_names
from inhouse_retrieval.reading import is_test
from inhouse_retrieval.syntax import Definition, language, parse

from .dataset_account import printable
from .documents import added_lines, shorten
from .engine import Message
from .prompts import build_answer_prompt, chat_row, completion_question
from .provenance import origin
from .scopes import CodeBefore, code_before, rest_of
from .snapshot_search import WINDOW_LINES
from .synthesis.sources import NO_CODE, name_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PASSAGES = 6
"""As many as the product offers by default (``answer.passages``)."""
_ASKED_WITHOUT = 64
"""Of 256."""
_MARGIN = 16
_LONGEST_LINE = 200
_STYLES = frozenset({".css", ".html", ".htm"})
_NAME = re.compile(r"[^\W\d][\w$]*|\$[\w$]+")
_COMMENT = re.compile(r"^\s*(?:#|//|/?\*|--)")


_Homes = dict[tuple[str, str], Passage | None]
"""Language and name -> how the only definition of that name begins; ``None`` where there are several."""


@dataclass(frozen=True, slots=True)
class ScopeCompletion:
    """The rest of one definition of the snapshot.

    Attributes:
        first, last: the lines (1-based) that are to be written.
        question: asks for them, under the title of the change that wrote them where it is one of those learned.
        context: what other files define of the names in them, in the order in which they are used.
    """

    path: str
    blob_id: str
    first: int
    last: int
    question: str
    before: CodeBefore
    wanted: str
    context: tuple[Passage, ...]

    @property
    def name(self) -> str:
        """``path:first-last``."""
        return f"{self.path}:{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class _Defined:
    """A definition.

    Attributes:
        is_open: it can be named from outside: it stands at the top, or right in a class that does.
        is_class: it is a class or the like: an interface, a structure.
    """

    definition: Definition
    is_open: bool
    is_function: bool
    is_class: bool


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """A tokenised completion; ``origin`` has the lines that it comes from, and those that are shown, as JSON."""

    input_ids: list[int]
    labels: list[int]
    messages: tuple[Message, ...]
    origin: str


def read_completions(
    repository: Repository, commit: str, paths: Collection[str], changes: Sequence[PullRequest], seed: int
) -> Iterator[ScopeCompletion]:
    """One scope of each file among ``paths`` that has one, in the order of the files; the same for the same seed.

    Functions go before classes, and what uses names of other files before what does not.

    Args:
        commit: the training snapshot.
        paths: files of it that may be read, as they are printable; of others nothing is asked or shown.
        changes: whose titles may be told, newest first.
    """
    homes: _Homes = {}
    for file, path, text in _code(repository, commit, paths):
        lines = text.split("\n")
        for each in _definitions(path, text):
            if each.is_open and _is_telling(each.definition.name):
                key = language(path), each.definition.name
                # A name with several homes says nothing about which one is meant.
                homes[key] = None if key in homes else _passage(path, file.blob_id, commit, lines, each.definition)
    titles = _titles(changes)
    for file, path, text in _code(repository, commit, paths):
        lines = text.split("\n")
        defined = _definitions(path, text)
        own = {each.definition.name for each in defined}
        defined.sort(key=lambda each: _draw(f"{path}\0{each.definition.first}\0{each.definition.name}", seed))
        asked = [each for each in (_asked(item, path, lines, own, homes) for item in defined) if each is not None]
        if asked:
            # Of equals the first.
            item, rest, context = max(asked, key=lambda each: (each[0].is_function, bool(each[2])))
            wanted = lines[rest.start - 1 : rest.stop - 1]
            title = _title([lines[rest.start - 2], *wanted], titles.get(file.path, ()))
            yield ScopeCompletion(
                path,
                file.blob_id,
                rest.start,
                rest.stop - 1,
                completion_question(item.definition.name, path, title),
                code_before(path, lines, rest.start),
                "\n".join(wanted),
                context,
            )


def completion_row(
    tokenizer: PreTrainedTokenizerBase,
    count_tokens: Callable[[Sequence[Message]], int],
    item: ScopeCompletion,
    max_tokens: int,
    seed: int,
) -> CompletionRow | None:
    """The completion as a conversation of at most ``max_tokens`` tokens; ``None`` when there is no room for it."""
    # As the chat template would strip it, so that what is counted is what is learned.
    answer = Message("assistant", item.wanted.lstrip())
    budget = max_tokens - count_tokens([Message("user", answer.content)]) - _MARGIN
    bare = build_answer_prompt(item.question, (), lambda messages: 0, 0, selection=item.before).messages
    if count_tokens(bare) > budget:
        return None
    shown = item.context if _draw(item.name, seed)[0] >= _ASKED_WITHOUT else ()
    prompt = build_answer_prompt(item.question, shown, count_tokens, budget, selection=item.before)
    messages = (*prompt.messages, answer)
    ids, labels = chat_row(tokenizer, messages)
    if len(ids) > max_tokens:
        return None
    sources = [{"place": item.name, "blob": item.blob_id}]
    sources += [{"place": f"{p.path}:{p.start_line}-{p.end_line}", "blob": p.blob_id} for p in prompt.included]
    return CompletionRow(ids, labels, messages, origin(sources))


def _code(repository: Repository, commit: str, paths: Collection[str]) -> Iterator[tuple[TrackedFile, str, str]]:
    """The files of code among ``paths``, with their printable paths and redacted texts."""
    for item in repository.iter_texts(repository.snapshot(commit)):
        if isinstance(item, SkippedFile):
            continue
        file, text = item
        path = printable(file.path)
        if path in paths and PurePosixPath(path).suffix.lower() not in NO_CODE | _STYLES:
            yield file, path, text


def _definitions(path: str, text: str) -> list[_Defined]:
    """What a file defines, keys of objects and titles of tests aside."""
    named: dict[str, list[DefinedName]] = defaultdict(list)
    for each in defined_names(path, text):
        named[each.name].append(each)
    syntax = parse(path, text)
    found: list[_Defined] = []
    around: list[tuple[int, bool]] = []  # last row of a definition, and whether what lies in it is open to others
    for definition in syntax.definitions if syntax is not None else ():
        while around and around[-1][0] < definition.first:
            around.pop()
        is_open = not around or around[-1][1]
        rows = range(definition.first, definition.last + 1)
        known = [each for each in named[definition.name] if each.line - 1 in rows]
        is_class = any(each.kind == "class" for each in known)
        around.append((definition.last, is_open and is_class))
        if known and _NAME.fullmatch(definition.name):
            found.append(_Defined(definition, is_open, any(each.is_function for each in known), is_class))
    return found


def _is_telling(name: str) -> bool:
    """Whether a name says by itself what it is: one plain word is many a variable's, too."""
    return len(name_words(name)) > 1 or name[0].isupper()


def _passage(path: str, blob_id: str, commit: str, lines: Sequence[str], definition: Definition) -> Passage:
    """How a definition begins, about as much of it as a passage has."""
    last = min(definition.last, definition.first + WINDOW_LINES - 1)
    text = "\n".join(lines[definition.first : last + 1])
    return Passage(path, definition.first + 1, last + 1, text, "code", blob_id, commit, 0.0, ())


def _asked(
    item: _Defined, path: str, lines: Sequence[str], own: Collection[str], homes: _Homes
) -> tuple[_Defined, range, tuple[Passage, ...]] | None:
    """The lines of a definition that can be asked for, and what other files define of them; ``None`` where there is
    nothing to ask: what a class or the like has is no one's to guess from its own file alone."""
    rest = rest_of(item.definition)
    if rest is None or not (item.is_function or item.is_class):
        return None
    wanted = lines[rest.start - 1 : rest.stop - 1]
    if not _is_written(wanted):
        return None
    context = _context(path, wanted, own, homes)
    return (item, rest, context) if item.is_function or context else None


def _is_written(lines: Sequence[str]) -> bool:
    """Whether somebody wrote code there: brackets and comments alone say nothing, a very long line is data, and the
    mark of a secret that was taken out is not to be learned."""
    telling = [line for line in lines if _NAME.search(line) and not _COMMENT.match(line)]
    plain = max(map(len, lines)) <= _LONGEST_LINE and not redactions_in("\n".join(lines))
    return len(telling) > 1 and plain


def _context(path: str, lines: Sequence[str], own: Collection[str], homes: _Homes) -> tuple[Passage, ...]:
    used = dict.fromkeys(match[0] for line in lines for match in _NAME.finditer(line))
    found = (homes.get((language(path), name)) for name in used if name not in own)
    others = [each for each in found if each is not None and each.path != path]
    # A test may have stand-ins of the same name, which only tests use.
    known = dict.fromkeys(each for each in others if is_test(path) or not is_test(each.path))
    return tuple(known)[:_PASSAGES]


def _titles(changes: Sequence[PullRequest]) -> dict[str, list[tuple[str, frozenset[str]]]]:
    """Path -> the changes that add lines to it, newest first, each as its title and these lines."""
    found: dict[str, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for change in changes:
        title = redact(shorten(change.title))[0]
        for file in change.files:
            if added := added_lines(file.patch):
                found[file.path].append((title, frozenset(added.split("\n"))))
    return found


def _title(lines: Sequence[str], changes: Sequence[tuple[str, frozenset[str]]]) -> str:
    """The title of the change that wrote all of ``lines``; empty where it is none of ``changes``."""
    written = [line for line in lines if line.strip()]
    return next((title for title, added in changes if added.issuperset(written)), "")


def _draw(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
