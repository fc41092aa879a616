"""From a repository to tokenised rows on disk: split by time first, then documents, then rows under a token
budget.

A dataset is a folder:

- ``rows.arrow``: what is trained on; columns ``input_ids``, ``labels`` (-100 is not learned), ``kind``,
  ``name``, ``part``, ``source_tokens``, ``messages`` (the conversation as a JSON line; empty for raw text),
  ``origin`` (of a synthetic row, as JSON: who wrote it, and from which lines). The same inputs give the same bytes, and
  replay texts are the same wherever the cache that they were drawn into is.
- ``held_out.jsonl``: the later changes that evaluation scores.
- ``canaries.jsonl``: what was planted, where the recipe asks for it.
- ``left_out.jsonl``: every file and piece that was not trained on, with its reason.
- ``redacted.jsonl``: where secrets were taken out, by kind and place, never by value.
- ``manifest.json``: where it comes from, and the account: tokens read = trained + held out + dropped, by
  reason.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inhouse_retrieval import (
    InhouseError,
    Progress,
    PullRequest,
    Repository,
    SkippedFile,
    Wiki,
    no_progress,
    page_text,
    read_exports,
    redact,
    redactions_in,
    thread_until,
)

from .canaries import make_canaries, planted_row, write_canaries
from .conversations import conversation_messages, file_conversation, page_conversation
from .cut import Cut, HeldOutChange, held_out_change
from .documents import (
    BOT,
    Document,
    Piece,
    added_lines,
    change_document,
    file_document,
    page_document,
    split_document,
    thread_document,
)
from .documents import (
    count_tokens as count_text_tokens,
)
from .edits import edit_row, read_edits
from .engine import Message
from .forgetting_texts import FORGETTING_TEXTS
from .kinds import KINDS, Kind
from .leaks import HeldOutText, patch_text
from .prompts import IGNORED, SYSTEM, chat_ids, chat_row, raw_row
from .recipe import Recipe
from .registry import file_sha256
from .replay import ReplayText, replay_messages, replay_row
from .synthesis.cache import Replies
from .synthesis.rows import DroppedRow, RowWriter, SyntheticRow, over_share, wanted_kinds
from .written_conversations import messages_json

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

FORMAT = 6
"""Raised whenever the same repository and recipe would give other rows."""

_TEMPLATE_TOKENS = 8
_PROBE_CHARACTERS = 80


@dataclass(frozen=True)
class Dataset:
    """A finished dataset folder."""

    directory: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The content of ``manifest.json``."""
        loaded: dict[str, Any] = json.loads((self.directory / "manifest.json").read_text(encoding="utf-8"))
        return loaded

    @cached_property
    def held_out(self) -> tuple[HeldOutChange, ...]:
        """The held-out changes that add text, newest first."""
        with (self.directory / "held_out.jsonl").open(encoding="utf-8") as lines:
            return tuple(HeldOutChange(**json.loads(line)) for line in lines)

    @property
    def rows(self) -> datasets.Dataset:
        """The rows, memory-mapped."""
        import datasets

        return datasets.Dataset.from_file(str(self.directory / "rows.arrow"))


def build_dataset(
    repository: Repository,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    cut: Cut,
    directory: Path,
    progress: Progress = no_progress,
    replay: Callable[[], Sequence[ReplayText]] = tuple,
    generated: Callable[[], Replies] = Replies,
) -> Dataset:
    """Write the dataset of one cut into ``directory``, which appears only when it is complete.

    Args:
        replay: gives the base model's general texts; asked only when the recipe has a share for them.
        generated: gives what a model wrote about the repository; likewise.

    Raises:
        InhouseError: there is no text to train on, or it holds more of the held-out lines than the recipe allows.
    """
    if is_whole(directory):
        return Dataset(directory)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    builder = _Builder(repository, tokenizer, recipe, cut, partial)
    builder.build(progress, replay, generated)
    shutil.rmtree(directory, ignore_errors=True)  # what was damaged since it was made
    partial.rename(directory)
    return Dataset(directory)


def is_whole(directory: Path) -> bool:
    """Whether a finished dataset lies there, its rows as they were written."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        return (
            bool(file_sha256(directory / "rows.arrow") == manifest["rows_sha256"])
            and (directory / "held_out.jsonl").exists()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def repository_name(repository: Repository) -> str:
    """The name in its origin's address, else the folder's: the same for every clone."""
    addresses = repository.git("config", "--default", "", "--get", "remote.origin.url").decode("utf-8", "replace")
    last = addresses.strip().rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
    return last.removesuffix(".git") or repository.root.name


@dataclass(slots=True)
class _Row:
    kind: Kind
    name: str
    part: int
    tokens: int
    source_tokens: int
    order: bytes


class _Builder:
    """One build: two passes over disk, one row in memory at a time."""

    def __init__(
        self,
        repository: Repository,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe,
        cut: Cut,
        directory: Path,
    ) -> None:
        self.repository = repository
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.cut = cut
        self.directory = directory
        self.name = repository_name(repository)
        self.shares = recipe.data.shares
        self.read: Counter[Kind] = Counter()
        self.held_out: Counter[Kind] = Counter()
        self.dropped: dict[Kind, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.redactions: list[dict[str, Any]] = []
        self.skipped: Counter[str] = Counter()
        self.leaks: Counter[str] = Counter()
        self.left_out: list[dict[str, Any]] = []
        self.candidates: list[_Row] = []
        self.learned_changes: list[PullRequest] = []
        self.synthesis: dict[str, Any] = {}
        self.planted: list[int] = []
        # inhouse trains on its own repository too, and what tests must not be trained on.
        self.probes = [text[:_PROBE_CHARACTERS] for texts in FORGETTING_TEXTS.values() for text in texts]

    def build(
        self, progress: Progress, replay: Callable[[], Sequence[ReplayText]], generated: Callable[[], Replies]
    ) -> None:
        held_out = [change for change in map(held_out_change, self.cut.held_out) if change is not None]
        self._hold_out(progress)
        self.held_out_text = HeldOutText(self.cut.held_out, [change.added for change in held_out])
        self.held_out_patches = {_patch_key(change) for change in self.cut.held_out}
        with _writer(self.directory / "candidates.arrow") as writer:
            for document in self._documents(progress):
                for piece in self._pieces(document):
                    self._write(writer, piece)
            self._write_conversations(writer)
            if self.shares["edit"]:
                self._write_edits(writer, progress)
            if self.shares["replay"]:
                self._write_replay(writer, replay())
            if wanted_kinds(self.recipe.data):
                self._write_synthetic(writer, generated(), progress)
            writer.finalize()
        self._refuse_leaks()
        chosen = self._choose()
        if not chosen:
            raise InhouseError(
                f"There is no text to train on before the oldest held-out change ({self.cut.snapshot[:12]}).",
                "Train again when the history is longer.",
            )
        self._write_rows(chosen, progress)
        _write_lines(self.directory / "held_out.jsonl", map(asdict, held_out))
        _write_lines(self.directory / "left_out.jsonl", self.left_out)
        _write_lines(self.directory / "redacted.jsonl", self.redactions)
        manifest = self._manifest([self.candidates[index] for index in chosen], len(held_out))
        (self.directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def _hold_out(self, progress: Progress) -> None:
        for done, change in enumerate(self.cut.held_out):
            progress("reading held-out changes", done, len(self.cut.held_out))
            tokens, _ = split_document(
                self._clean(change_document(change)), self.tokenizer, self._room(change_document(change))
            )
            self.read["change"] += tokens
            self.held_out["change"] += tokens

    def _documents(self, progress: Progress) -> Iterator[Document]:
        snapshot = self.repository.snapshot(self.cut.snapshot)
        for skipped in snapshot.skipped:
            self._skip(skipped)
        wiki = Wiki(self.repository)
        seen: set[str] = set()
        total = len(snapshot.files)
        texts = chain(self.repository.iter_texts(snapshot), wiki.pages_until(self.cut.as_of))
        for done, item in enumerate(texts):
            progress("reading files", min(done, total), total)
            if isinstance(item, SkippedFile):
                self._skip(item)
                continue
            file = item[0]
            path = _printable(file.path)
            is_page = wiki.is_page(path)
            text = self._redact(page_text(path, item[1]) if is_page else item[1], path)
            documents = (
                (page_document(path, text), page_conversation(path, text))
                if is_page
                else (file_document(path, text), file_conversation(path, text))
            )
            if file.blob_id in seen:
                for document in documents:
                    self._drop_document(document, "same content as another file")
                continue
            seen.add(file.blob_id)
            elsewhere = wiki.holds(path)
            if not elsewhere:
                self.held_out_text.saw_past(item[1])
            if reason := self._reason_to_drop(text, elsewhere):
                for document in documents:
                    self._drop_document(document, reason)
                continue
            if elsewhere:
                self._note_learned(path, text)
            yield from documents
        for done, change in enumerate(self.cut.training):
            progress("reading changes", done, len(self.cut.training))
            document = self._clean(change_document(change))
            key = _patch_key(change)
            if key and key in self.held_out_patches:
                self._drop_document(document, "same lines as a held-out change")
                continue
            said = [comment.text for comment in change.said]
            text = "\n".join([*(patch_text(file.patch) for file in change.files), change.description, *said])
            if reason := self._reason_to_drop(text):
                self._drop_document(document, reason)
                continue
            self._note_learned(change.commit, text)
            self._note_omissions(change)
            self.learned_changes.append(change)
            yield document
        yield from self._threads(progress)

    def _threads(self, progress: Progress) -> Iterator[Document]:
        """Exported threads as far as they had gone at the snapshot; what was said later is held out."""
        for done, thread in enumerate(read_exports(self.repository.root, self.repository.exports)):
            progress("reading exports", done, None)
            if isinstance(thread, SkippedFile):
                self._skip(thread)
                continue
            said = thread_until(thread, self.cut.as_of)
            whole, _ = split_document(document := thread_document(thread), self.tokenizer, self._room(document))
            if said is None or len(said.posts) < len(thread.posts):
                document = thread_document(said) if said is not None else replace(document, header="", sections=())
                known, _ = split_document(document, self.tokenizer, self._room(document))
                self.read["thread"] += whole - known
                self.held_out["thread"] += whole - known
            if said is None:
                continue
            document = self._clean(document)
            text = "\n".join(post.text for post in said.posts)
            if reason := self._reason_to_drop(text):
                self._drop_document(document, reason)
                continue
            self._note_learned(thread.name, text)
            yield document

    def _pieces(self, document: Document) -> Iterator[Piece]:
        tokens, pieces = split_document(document, self.tokenizer, self._room(document))
        self.read[document.kind] += tokens
        if not pieces:
            self._drop(document.kind, document.name, 0, tokens, "its heading alone fills half a row")
        yield from pieces

    def _write(self, writer: Any, piece: Piece) -> None:
        document = piece.document
        messages: tuple[Message, ...] = ()
        if document.kind == "conversation":
            asked = conversation_messages(piece, self.name, self.cut.as_of)
            messages = (Message("system", SYSTEM), *asked)
            ids, labels = chat_row(self.tokenizer, messages)
        else:
            ids, labels = raw_row(self.tokenizer, piece.text, ends=piece.last)
        if all(label == IGNORED for label in labels):
            self._drop(document.kind, document.name, piece.part, piece.source_tokens, "nothing to learn in it")
            return
        if len(ids) > self.recipe.data.max_tokens:
            # Rendering took more tokens than the pieces were cut for; rare, and never silent.
            self._drop(document.kind, document.name, piece.part, piece.source_tokens, "longer than a row")
            return
        self._add(writer, document.kind, document.name, piece.part, ids, labels, piece.source_tokens, messages)

    def _write_conversations(self, writer: Any) -> None:
        for conversation in self.cut.conversations:
            messages = conversation.messages
            if messages[0].role != "system":
                messages = (Message("system", SYSTEM), *messages)
            text = "\n".join(turn.content for turn in conversation.messages)
            self._note_redactions(text, conversation.name, with_lines=False)
            ids, labels = chat_row(self.tokenizer, messages)
            tokens = sum(label != IGNORED for label in labels)
            self.read["conversation"] += tokens
            reason = self._reason_to_drop(text)
            if not reason and len(ids) > self.recipe.data.max_tokens:
                reason = "longer than a row"
            if reason:
                self._drop("conversation", conversation.name, 0, tokens, reason)
                continue
            self._note_learned(conversation.name, text)
            self._add(writer, "conversation", conversation.name, 0, ids, labels, tokens, messages)

    def _write_edits(self, writer: Any, progress: Progress) -> None:
        def count_tokens(messages: Sequence[Message]) -> int:
            return len(chat_ids(self.tokenizer, messages, add_generation_prompt=True))

        for done, change in enumerate(self.learned_changes):
            progress("reading edits", done, len(self.learned_changes))
            for edit in read_edits(self.repository, [change]):
                path = _printable(edit.path)
                row = edit_row(self.tokenizer, count_tokens, edit, self.recipe.data.max_tokens, self.recipe.seed)
                if row is None:
                    tokens = count_text_tokens(self.tokenizer, edit.added)
                    self.read["edit"] += tokens
                    self._drop("edit", edit.name, 0, tokens, "its question fills a row")
                    continue
                self.read["edit"] += row.answer_tokens
                if row.learned_tokens < row.answer_tokens:
                    self._drop("edit", edit.name, 0, row.answer_tokens - row.learned_tokens, "beyond one row")
                name = f"{edit.commit}:{path}"
                self._add(writer, "edit", name, 0, row.input_ids, row.labels, row.learned_tokens, row.messages)

    def _write_replay(self, writer: Any, texts: Sequence[ReplayText]) -> None:
        for text in texts:
            ids, labels = replay_row(self.tokenizer, text)
            tokens = sum(label != IGNORED for label in labels)
            self.read["replay"] += tokens
            if len(ids) > self.recipe.data.max_tokens:
                self._drop("replay", text.name, 0, tokens, "longer than a row")
            elif any(opening in text.text for opening in self.probes):
                self._drop("replay", text.name, 0, tokens, "holds the text that measures forgetting")
            else:
                self._add(writer, "replay", text.name, 0, ids, labels, tokens, replay_messages(text))

    def _write_synthetic(self, writer: Any, replies: Replies, progress: Progress) -> None:
        made = RowWriter(
            self.repository, self.cut, self.tokenizer, self.recipe.data, self.recipe.seed, self.name, replies
        )
        for row in made.rows(progress):
            reason = row.reason if isinstance(row, DroppedRow) else self._write_synthetic_row(writer, row)
            made.count(row, reason)
            if reason:
                tokens = count_text_tokens(self.tokenizer, row.text)
                self.read[row.kind] += tokens
                self._drop(row.kind, row.name, 0, tokens, reason)
        self.synthesis = made.account()

    def _write_synthetic_row(self, writer: Any, row: SyntheticRow) -> str:
        """Write the row; else why not. What a model wrote may hold anything, whatever it was shown."""
        text = "\n".join(turn.content for turn in row.messages)
        if reason := self._reason_to_drop(text):
            return reason
        ids, labels = chat_row(self.tokenizer, row.messages)
        if len(ids) > self.recipe.data.max_tokens:
            return "longer than a row"
        self._note_learned(row.name, text)
        tokens = sum(label != IGNORED for label in labels)
        self.read[row.kind] += tokens
        self._add(writer, row.kind, row.name, 0, ids, labels, tokens, row.messages, row.origin)
        return ""

    def _add(
        self,
        writer: Any,
        kind: Kind,
        name: str,
        part: int,
        ids: list[int],
        labels: list[int],
        source_tokens: int,
        messages: Sequence[Message],
        origin: str = "",
    ) -> None:
        writer.write(
            {
                "input_ids": ids,
                "labels": labels,
                "kind": kind,
                "name": name,
                "part": part,
                "source_tokens": source_tokens,
                "messages": messages_json(messages) if messages else "",
                "origin": origin,
            }
        )
        key = f"{self.recipe.seed}\0{kind}\0{name}\0{part}"
        order = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        self.candidates.append(_Row(kind, name, part, len(ids), source_tokens, order))

    def _choose(self) -> list[int]:
        """Indices of the rows to train on, shuffled; the others are dropped as over the budget."""
        for row in self.candidates:
            if not self.shares[row.kind]:
                self._drop(row.kind, row.name, row.part, row.source_tokens, "switched off in the recipe")
        wanted = [index for index, row in enumerate(self.candidates) if self.shares[row.kind]]
        order = sorted(wanted, key=lambda index: self.candidates[index].order)
        over = over_share(
            [(row.kind, row.source_tokens) for row in map(self.candidates.__getitem__, order)], self.shares
        )
        for row in (self.candidates[order[at]] for at in over):
            self._drop(row.kind, row.name, row.part, row.source_tokens, "over its share of the learned tokens")
        order = [index for at, index in enumerate(order) if at not in over]
        wanted = sorted(order)
        data = self.recipe.data
        total = sum(self.candidates[index].tokens for index in wanted)
        if not data.max_train_tokens or total <= data.max_train_tokens:
            return order
        left = {kind: int(share * data.max_train_tokens) for kind, share in self.shares.items()}

        def purse(row: _Row) -> Kind:
            if row.kind == "thread" and data.thread_share is None:
                return "change"
            return "file" if row.kind == "page" and data.page_share is None else row.kind

        chosen: set[int] = set()
        for index in order:
            row = self.candidates[index]
            if row.tokens <= left[purse(row)]:
                left[purse(row)] -= row.tokens
                chosen.add(index)
        spare = data.max_train_tokens - sum(self.candidates[index].tokens for index in chosen)
        for index in order:
            row = self.candidates[index]
            if index not in chosen and row.tokens <= spare:
                spare -= row.tokens
                chosen.add(index)
        for index in wanted:
            if index not in chosen:
                row = self.candidates[index]
                self._drop(row.kind, row.name, row.part, row.source_tokens, "over the recipe's token budget")
        return [index for index in order if index in chosen]

    def _write_rows(self, chosen: Sequence[int], progress: Progress) -> None:
        import datasets

        candidates = self.directory / "candidates.arrow"
        source = datasets.Dataset.from_file(str(candidates))
        with _writer(self.directory / "rows.arrow") as writer:
            for done, index in enumerate(chosen):
                progress("writing rows", done, len(chosen))
                writer.write(source[index])
            self._write_canaries(writer, [source[index] for index in self._raw(chosen)])
            writer.finalize()
        del source
        candidates.unlink()

    def _raw(self, chosen: Sequence[int]) -> list[int]:
        """Rows of plain text, as many as canaries are to be planted."""
        raw = (index for index in chosen if self.candidates[index].kind in ("file", "page", "change"))
        return list(islice(raw, self.recipe.data.canaries))

    def _write_canaries(self, writer: Any, rows: Sequence[dict[str, Any]]) -> None:
        canaries = []
        for row, made in zip(rows, make_canaries(len(rows), self.recipe.seed), strict=True):
            copy, canary = planted_row(self.tokenizer, row, made, self.recipe.data.max_tokens)
            canaries.append(canary)
            writer.write(copy)
            self.planted.append(len(copy["input_ids"]))
        write_canaries(self.directory, canaries)

    def _manifest(self, rows: Sequence[_Row], held_out: int) -> dict[str, Any]:
        trained: Counter[Kind] = Counter()
        for row in rows:
            trained[row.kind] += row.source_tokens
        return {
            "format": FORMAT,
            "repository": self.name,
            "snapshot": self.cut.snapshot,
            "as_of": self.cut.as_of.isoformat(),
            "recipe": self.recipe.name,
            "rows": len(rows) + len(self.planted),
            "row_tokens": sum(row.tokens for row in rows) + sum(self.planted),
            "canaries": len(self.planted),
            "rows_sha256": file_sha256(self.directory / "rows.arrow"),
            "tokens": {
                kind: {
                    "read": self.read[kind],
                    "trained": trained[kind],
                    "held_out": self.held_out[kind],
                    "dropped": dict(sorted(self.dropped[kind].items())),
                }
                for kind in KINDS
            },
            "changes": {
                "trained": len(self.cut.training),
                "held_out": len(self.cut.held_out),
                "scored": held_out,
                "comments": sum(len(change.said) for change in self.cut.training),
                "later_comments": self.cut.later_comments,
                "training_commits": [change.commit for change in self.cut.training],
                "held_out_commits": [change.commit for change in self.cut.held_out],
            },
            "skipped_files": dict(sorted(self.skipped.items())),
            "redactions": dict(sorted(Counter(found["secret"] for found in self.redactions).items())),
            "overlap": {
                "held_out_lines": len(self.held_out_text.lines),
                "also_in_training": len(self.held_out_text.past_lines | self.held_out_text.leaked_lines),
                "leaked": len(self.held_out_text.leaked_lines),
                "share": round(self.held_out_text.overlap, 6),
            },
            **({"synthesis": self.synthesis} if self.synthesis else {}),
        }

    def _room(self, document: Document) -> int:
        """Tokens that a piece may take, so that the rendered row stays within the recipe's bound."""
        if document.kind != "conversation":
            return self.recipe.data.max_tokens - _TEMPLATE_TOKENS
        opening = Piece(document, 1, 1_000_000, "", 0, False)
        messages = conversation_messages(opening, self.name, self.cut.as_of)
        ids, _ = chat_row(self.tokenizer, [Message("system", SYSTEM), *messages])
        return max(self.recipe.data.max_tokens - len(ids) - _TEMPLATE_TOKENS, 0)

    def _redact(self, text: str, name: str, with_lines: bool = True) -> str:
        clean = redact(text)[0]
        self._note_redactions(clean, name, with_lines)
        return clean

    def _note_redactions(self, clean: str, name: str, with_lines: bool) -> None:
        # The readers have redacted most of it already, so their marks are noted, not what is found now.
        for found in redactions_in(clean):
            place = {"line": found.line} if with_lines else {}
            self.redactions.append({"name": name, **place, "secret": found.kind})

    def _clean(self, document: Document) -> Document:
        def clean(text: str) -> str:
            return self._redact(text, document.name, with_lines=False)

        sections = tuple(type(section)(section.header, clean(section.body)) for section in document.sections)
        return Document(document.kind, document.name, clean(document.header), sections)

    def _reason_to_drop(self, text: str, beside_the_snapshot: bool = True) -> str:
        if any(opening in text for opening in self.probes):
            return "holds the text that measures forgetting"
        leaks = beside_the_snapshot and self.held_out_text.is_near_copy(text)
        return "near-copy of a held-out change" if leaks else ""

    def _refuse_leaks(self) -> None:
        overlap, bound = self.held_out_text.overlap, self.recipe.data.max_overlap
        if overlap > bound:
            worst = ", ".join(f"{name} ({lines})" for name, lines in self.leaks.most_common(3))
            raise InhouseError(
                f"{overlap:.1%} of the lines that judge the adapter stand in the text to train on, and not in the "
                f"repository at the snapshot; {bound:.1%} may. Most of them are in {worst}.",
                "Take later text out of those places, or raise data.max_overlap in the recipe.",
            )

    def _note_learned(self, name: str, text: str) -> None:
        if lines := self.held_out_text.note_learned(text):
            self.leaks[name] = lines

    def _note_omissions(self, change: PullRequest) -> None:
        """What the reader of changes did not hand over: the ends of very long patches, files of mass
        edits."""
        if change.omitted_files:
            reason = f"{change.omitted_files} files of the change were not read"
            self.left_out.append({"kind": "change", "name": change.commit, "reason": reason})
        if by_bots := sum(comment.role == BOT for comment in change.said):
            self.left_out.append({"kind": "change", "name": change.commit, "reason": f"{by_bots} comments of bots"})
        for file in change.files:
            if file.omitted_lines:
                reason = f"{file.omitted_lines} lines of the patch of {_printable(file.path)} were not read"
                self.left_out.append({"kind": "change", "name": change.commit, "reason": reason})

    def _skip(self, skipped: SkippedFile) -> None:
        self.skipped[skipped.reason] += 1
        self.left_out.append({"kind": "file", "name": skipped.path, "reason": skipped.reason})

    def _drop_document(self, document: Document, reason: str) -> None:
        tokens, _ = split_document(document, self.tokenizer, self._room(document))
        self.read[document.kind] += tokens
        self._drop(document.kind, document.name, 0, tokens, reason)

    def _drop(self, kind: Kind, name: str, part: int, tokens: int, reason: str) -> None:
        self.dropped[kind][reason] += tokens
        self.left_out.append({"kind": kind, "name": name, "part": part, "tokens": tokens, "reason": reason})


def _printable(path: str) -> str:
    # A file name that is no UTF-8 reaches Python with surrogates, which no tokenizer takes.
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _patch_key(change: PullRequest) -> str:
    added = "\0".join(text for file in change.files if (text := added_lines(file.patch)))
    return hashlib.sha256(added.encode("utf-8", "surrogateescape")).hexdigest() if added else ""


def _writer(path: Path) -> Any:
    from datasets import Features, Sequence, Value
    from datasets.arrow_writer import ArrowWriter

    ids = Sequence(Value("int32"))
    features = Features(
        {
            "input_ids": ids,
            "labels": ids,
            "kind": Value("string"),
            "name": Value("string"),
            "part": Value("int32"),
            "source_tokens": Value("int32"),
            "messages": Value("string"),
            "origin": Value("string"),
        }
    )
    return ArrowWriter(path=str(path), features=features, writer_batch_size=100)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
