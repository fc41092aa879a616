"""Builds a dataset folder: reads the sources, makes rows, accounts for every token."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
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
    page_text,
    read_exports,
    redact,
    thread_until,
)

from .canaries import make_canaries, planted_row, write_canaries
from .completions import completion_row, read_completions
from .conversations import conversation_messages, file_conversation, page_conversation
from .cut import Cut, held_out_change
from .dataset_account import Account, printable
from .documents import (
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
from .kinds import Kind
from .leaks import held_out_text, patch_text
from .prompts import IGNORED, SYSTEM, chat_ids, chat_row, raw_row
from .provenance import in_split, origin
from .recipe import Recipe
from .registry import file_sha256
from .replay import ReplayText, replay_messages, replay_row
from .review_prompt import review_answer
from .reviews import NO_REMARKS, UnusedComment, read_reviews, review_row
from .row_choice import Candidate, choose_rows
from .row_spool import RowSpool
from .rows_file import rows_writer
from .synthesis.cache import Replies
from .synthesis.rows import DroppedRow, RowWriter, SyntheticRow, wanted_kinds
from .written_conversations import messages_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 9
"""Raised whenever the same repository and recipe would give other rows."""

VALIDATION = "validation.arrow"
"""Rows that are kept for validation."""

_TEMPLATE_TOKENS = 8
_PROBE_CHARACTERS = 80


def repository_name(repository: Repository) -> str:
    """The name in its origin's address, else the folder's: the same for every clone."""
    addresses = repository.git("config", "--default", "", "--get", "remote.origin.url").decode("utf-8", "replace")
    last = addresses.strip().rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
    return last.removesuffix(".git") or repository.root.name


class Builder:
    """One build: rows go to disk as they are made, and once more in the order in which they were chosen."""

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
        self.account = Account()
        self.spool = RowSpool(directory / "candidates.rows")
        self.leaks: Counter[str] = Counter()
        self.candidates: list[Candidate] = []
        self.learned_changes: list[PullRequest] = []
        self.learned_files: set[str] = set()
        self.synthesis: dict[str, Any] = {}
        self.planted: list[int] = []
        self.validation: tuple[int, ...] = ()
        # inhouse trains on its own repository too, and what tests must not be trained on.
        self.probes = [text[:_PROBE_CHARACTERS] for texts in FORGETTING_TEXTS.values() for text in texts]

    def build(
        self, progress: Progress, replay: Callable[[], Sequence[ReplayText]], generated: Callable[[], Replies]
    ) -> None:
        held_out = [change for change in map(held_out_change, self.cut.held_out) if change is not None]
        self._hold_out(progress)
        self.held_out_text = held_out_text(self.repository, self.cut)
        self.held_out_patches = {_patch_key(change) for change in self.cut.held_out}
        for document in self._documents(progress):
            for piece in self._pieces(document):
                self._write(piece)
        self._write_conversations()
        if self.shares["edit"]:
            self._write_edits(progress)
        if self.shares["completion"]:
            self._write_completions(progress)
        if self.shares["review"]:
            self._write_reviews(progress)
        if self.shares["replay"]:
            self._write_replay(replay())
        if wanted_kinds(self.recipe.data):
            self._write_synthetic(generated(), progress)
        self._refuse_leaks()
        chosen = self._choose()
        if not chosen:
            raise InhouseError(
                f"There is no text to train on before the oldest held-out change ({self.cut.snapshot[:12]}).",
                "Train again when the history is longer.",
            )
        self._write_rows(chosen, progress)
        self.spool.close()
        _write_lines(self.directory / "held_out.jsonl", map(asdict, held_out))
        _write_lines(self.directory / "left_out.jsonl", self.account.left_out)
        _write_lines(self.directory / "redacted.jsonl", self.account.redactions)
        manifest = self._manifest([self.candidates[index] for index in chosen], len(held_out))
        (self.directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def _hold_out(self, progress: Progress) -> None:
        for done, change in enumerate(self.cut.held_out):
            progress("reading held-out changes", done, len(self.cut.held_out))
            tokens, _ = split_document(
                self._clean(change_document(change)), self.tokenizer, self._room(change_document(change))
            )
            self.account.read["change"] += tokens
            self.account.held_out["change"] += tokens

    def _documents(self, progress: Progress) -> Iterator[Document]:
        snapshot = self.repository.snapshot(self.cut.snapshot)
        for skipped in snapshot.skipped:
            self.account.skip(skipped)
        wiki = Wiki(self.repository)
        seen: set[str] = set()
        total = len(snapshot.files)
        texts = chain(self.repository.iter_texts(snapshot), wiki.pages_until(self.cut.as_of))
        for done, item in enumerate(texts):
            progress("reading files", min(done, total), total)
            if isinstance(item, SkippedFile):
                self.account.skip(item)
                continue
            file = item[0]
            path = printable(file.path)
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
            if not is_page:
                self.learned_files.add(path)
            commit = {} if elsewhere else {"commit": self.cut.snapshot}
            told = origin([{"place": path, "blob": file.blob_id, **commit}])
            yield from (replace(document, origin=told) for document in documents)
        for done, change in enumerate(self.cut.training):
            progress("reading changes", done, len(self.cut.training))
            place = change.commit if change.number is None else f"#{change.number}"
            told = origin([{"place": place, "commit": change.commit}])
            document = replace(self._clean(change_document(change)), origin=told)
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
            self.account.note_omissions(change)
            self.learned_changes.append(change)
            yield document
        yield from self._threads(progress)

    def _threads(self, progress: Progress) -> Iterator[Document]:
        """Exported threads as far as they had gone at the snapshot; what was said later is held out."""
        for done, thread in enumerate(read_exports(self.repository.root, self.repository.exports)):
            progress("reading exports", done, None)
            if isinstance(thread, SkippedFile):
                self.account.skip(thread)
                continue
            said = thread_until(thread, self.cut.as_of)
            if thread.is_undated:
                self.account.note_undated(thread.name)
            whole, _ = split_document(document := thread_document(thread), self.tokenizer, self._room(document))
            if said != thread:
                document = thread_document(said) if said is not None else replace(document, header="", sections=())
                known, _ = split_document(document, self.tokenizer, self._room(document))
                self.account.read["thread"] += whole - known
                self.account.held_out["thread"] += whole - known
            if said is None:
                continue
            document = replace(self._clean(document), origin=origin([{"place": thread.name}]))
            text = "\n".join(post.text for post in said.posts)
            if reason := self._reason_to_drop(text):
                self._drop_document(document, reason)
                continue
            self._note_learned(thread.name, text)
            yield document

    def _pieces(self, document: Document) -> Iterator[Piece]:
        tokens, pieces = split_document(document, self.tokenizer, self._room(document))
        self.account.read[document.kind] += tokens
        if not pieces:
            self.account.drop(document.kind, document.name, 0, tokens, "its heading alone fills half a row")
        yield from pieces

    def _write(self, piece: Piece) -> None:
        document = piece.document
        messages: tuple[Message, ...] = ()
        if document.kind == "conversation":
            asked = conversation_messages(piece, self.name, self.cut.as_of)
            messages = (Message("system", SYSTEM), *asked)
            ids, labels = chat_row(self.tokenizer, messages)
        else:
            ids, labels = raw_row(self.tokenizer, piece.text, ends=piece.last)
        if all(label == IGNORED for label in labels):
            self.account.drop(document.kind, document.name, piece.part, piece.source_tokens, "nothing to learn in it")
            return
        if len(ids) > self.recipe.data.max_tokens:
            # Rendering took more tokens than the pieces were cut for; rare, and never silent.
            self.account.drop(document.kind, document.name, piece.part, piece.source_tokens, "longer than a row")
            return
        self._add(document.kind, document.name, piece.part, ids, labels, piece.source_tokens, messages, document.origin)

    def _write_conversations(self) -> None:
        for conversation in self.cut.conversations:
            messages = conversation.messages
            if messages[0].role != "system":
                messages = (Message("system", SYSTEM), *messages)
            text = "\n".join(turn.content for turn in conversation.messages)
            self.account.note_redactions(text, conversation.name, with_lines=False)
            ids, labels = chat_row(self.tokenizer, messages)
            tokens = sum(label != IGNORED for label in labels)
            self.account.read["written"] += tokens
            reason = self._reason_to_drop(text)
            if not reason and len(ids) > self.recipe.data.max_tokens:
                reason = "longer than a row"
            if reason:
                self.account.drop("written", conversation.name, 0, tokens, reason)
                continue
            self._note_learned(conversation.name, text)
            told = origin([{"place": conversation.name}])
            self._add("written", conversation.name, 0, ids, labels, tokens, messages, told)

    def _count_tokens(self, messages: Sequence[Message]) -> int:
        return len(chat_ids(self.tokenizer, messages, add_generation_prompt=True))

    def _write_edits(self, progress: Progress) -> None:
        for done, change in enumerate(self.learned_changes):
            progress("reading edits", done, len(self.learned_changes))
            for edit in read_edits(self.repository, [change]):
                path = printable(edit.path)
                row = edit_row(self.tokenizer, self._count_tokens, edit, self.recipe.data.max_tokens, self.recipe.seed)
                if row is None:
                    tokens = count_text_tokens(self.tokenizer, edit.added)
                    self.account.read["edit"] += tokens
                    self.account.drop("edit", edit.name, 0, tokens, "its question fills a row")
                    continue
                self.account.read["edit"] += row.answer_tokens
                if row.learned_tokens < row.answer_tokens:
                    self.account.drop("edit", edit.name, 0, row.answer_tokens - row.learned_tokens, "beyond one row")
                name = f"{edit.commit}:{path}"
                told = origin([{"place": path, "commit": edit.commit}])
                self._add("edit", name, 0, row.input_ids, row.labels, row.learned_tokens, row.messages, told)

    def _write_completions(self, progress: Progress) -> None:
        data, seed = self.recipe.data, self.recipe.seed
        items = read_completions(self.repository, self.cut.snapshot, self.learned_files, self.learned_changes, seed)
        for done, item in enumerate(items):
            progress("writing completions", done, None)
            tokens = count_text_tokens(self.tokenizer, item.wanted.lstrip())
            self.account.read["completion"] += tokens
            row = completion_row(self.tokenizer, self._count_tokens, item, data.max_tokens, seed)
            # Its words are those of a file of the snapshot: they leak nothing, as the file itself does not.
            if row is None:
                self.account.drop("completion", item.name, 0, tokens, "its question and its answer do not fit a row")
                continue
            self._add("completion", item.name, 0, row.input_ids, row.labels, tokens, row.messages, row.origin)

    def _write_reviews(self, progress: Progress) -> None:
        remarks = 0
        for done, item in enumerate(read_reviews(self.repository, self.learned_changes, self.recipe.seed)):
            progress("reading reviews", done, None)
            if isinstance(item, UnusedComment):
                tokens = count_text_tokens(self.tokenizer, item.text)
                self.account.read["review"] += tokens
                self.account.drop("review", item.name, 0, tokens, item.reason)
                continue
            remarks += len(item.remarks)
            answer = review_answer(item.remarks)
            tokens = count_text_tokens(self.tokenizer, answer)
            self.account.read["review"] += tokens
            row = review_row(self.tokenizer, self._count_tokens, item, self.recipe.data.max_tokens)
            # The hunk is as it was commented, which need not be as it landed.
            text = "\n".join([patch_text("\n".join(item.hunk.lines)), answer])
            reason = self._reason_to_drop(text) or ("" if row else "its hunk and its answer do not fit a row")
            if row is None or reason:
                self.account.drop("review", item.name, 0, tokens, reason)
                continue
            self._note_learned(item.name, text)
            ids, labels, messages = row
            place = item.name.removeprefix(f"{item.commit}:")
            told = origin([{"place": place, "commit": item.commit}])
            self._add("review", item.name, 0, ids, labels, tokens, messages, told)
        if not remarks:
            self.account.drop("review", self.name, 0, 0, NO_REMARKS)

    def _write_replay(self, texts: Sequence[ReplayText]) -> None:
        for text in texts:
            ids, labels = replay_row(self.tokenizer, text)
            tokens = sum(label != IGNORED for label in labels)
            self.account.read["replay"] += tokens
            if len(ids) > self.recipe.data.max_tokens:
                self.account.drop("replay", text.name, 0, tokens, "longer than a row")
            elif any(opening in text.text for opening in self.probes):
                self.account.drop("replay", text.name, 0, tokens, "holds the text that measures forgetting")
            else:
                told = origin([{"place": text.name}], self.recipe.base_model)
                self._add("replay", text.name, 0, ids, labels, tokens, replay_messages(text), told)

    def _write_synthetic(self, replies: Replies, progress: Progress) -> None:
        made = RowWriter(
            self.repository, self.cut, self.tokenizer, self.recipe.data, self.recipe.seed, self.name, replies
        )
        for row in made.rows(progress):
            reason = row.reason if isinstance(row, DroppedRow) else self._write_synthetic_row(row)
            made.count(row, reason)
            if reason:
                tokens = count_text_tokens(self.tokenizer, row.text)
                self.account.read[row.kind] += tokens
                self.account.drop(row.kind, row.name, 0, tokens, reason)
        self.synthesis = made.account()

    def _write_synthetic_row(self, row: SyntheticRow) -> str:
        """Write the row; else why not. What a model wrote may hold anything, whatever it was shown."""
        text = "\n".join(turn.content for turn in row.messages)
        if reason := self._reason_to_drop(text):
            return reason
        ids, labels = chat_row(self.tokenizer, row.messages)
        if len(ids) > self.recipe.data.max_tokens:
            return "longer than a row"
        self._note_learned(row.name, text)
        tokens = sum(label != IGNORED for label in labels)
        self.account.read[row.kind] += tokens
        self._add(row.kind, row.name, 0, ids, labels, tokens, row.messages, row.origin)
        return ""

    def _add(
        self,
        kind: Kind,
        name: str,
        part: int,
        ids: list[int],
        labels: list[int],
        source_tokens: int,
        messages: Sequence[Message],
        told: str,
    ) -> None:
        self.spool.append(
            {
                "input_ids": ids,
                "labels": labels,
                "kind": kind,
                "name": name,
                "part": part,
                "source_tokens": source_tokens,
                "messages": messages_json(messages) if messages else "",
                "origin": told,
            }
        )
        key = f"{self.recipe.seed}\0{kind}\0{name}\0{part}"
        order = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        learned = sum(label != IGNORED for label in labels)
        self.candidates.append(Candidate(kind, name, part, len(ids), learned, source_tokens, order))

    def _choose(self) -> tuple[int, ...]:
        """Indices of the rows to train on, shuffled."""
        choice = choose_rows(self.candidates, self.recipe.data)
        for index, reason in choice.dropped:
            row = self.candidates[index]
            self.account.drop(row.kind, row.name, row.part, row.source_tokens, reason)
        for index in choice.validation:
            row = self.candidates[index]
            self.account.held_out[row.kind] += row.source_tokens
        self.validation = choice.validation
        return choice.order

    def _write_rows(self, chosen: Sequence[int], progress: Progress) -> None:
        with rows_writer(self.directory / "rows.arrow") as writer:
            for done, index in enumerate(chosen):
                progress("writing rows", done, len(chosen))
                writer.write(self.spool.read(index))
            self._write_canaries(writer, [self.spool.read(index) for index in self._raw(chosen)])
            writer.finalize()
        if self.validation:
            with rows_writer(self.directory / VALIDATION) as writer:
                for index in self.validation:
                    row = self.spool.read(index)
                    writer.write({**row, "origin": in_split(row["origin"], "validation")})
                writer.finalize()

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

    def _manifest(self, rows: Sequence[Candidate], held_out: int) -> dict[str, Any]:
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
            "tokens": self.account.tokens(trained),
            "changes": {
                "trained": len(self.cut.training),
                "held_out": len(self.cut.held_out),
                "scored": held_out,
                "comments": sum(len(change.said) for change in self.cut.training),
                "later_comments": self.cut.later_comments,
                "training_commits": [change.commit for change in self.cut.training],
                "held_out_commits": [change.commit for change in self.cut.held_out],
            },
            "skipped_files": dict(sorted(self.account.skipped.items())),
            "redactions": dict(sorted(Counter(found["secret"] for found in self.account.redactions).items())),
            "overlap": {
                "held_out_lines": len(self.held_out_text.lines),
                "also_in_training": len(self.held_out_text.past_lines | self.held_out_text.leaked_lines),
                "leaked": len(self.held_out_text.leaked_lines),
                "share": round(self.held_out_text.overlap, 6),
            },
            **({"validation": self._validation()} if self.validation else {}),
            **({"synthesis": self.synthesis} if self.synthesis else {}),
        }

    def _validation(self) -> dict[str, int]:
        rows = [self.candidates[index] for index in self.validation]
        return {"rows": len(rows), "row_tokens": sum(row.tokens for row in rows)}

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
        self.account.note_redactions(clean, name, with_lines)
        return clean

    def _clean(self, document: Document) -> Document:
        def clean(text: str) -> str:
            return self._redact(text, document.name, with_lines=False)

        sections = tuple(type(section)(section.header, clean(section.body)) for section in document.sections)
        return replace(document, header=clean(document.header), sections=sections)

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

    def _drop_document(self, document: Document, reason: str) -> None:
        tokens, _ = split_document(document, self.tokenizer, self._room(document))
        self.account.read[document.kind] += tokens
        self.account.drop(document.kind, document.name, 0, tokens, reason)


def _patch_key(change: PullRequest) -> str:
    added = "\0".join(text for file in change.files if (text := added_lines(file.patch)))
    return hashlib.sha256(added.encode("utf-8", "surrogateescape")).hexdigest() if added else ""


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
