"""What fine-tuning buys on a repository's later changes, and which kind of row pays: SmolLM2-135M on one GPU.

    python benchmarks/finetuning_quality.py prepare CLONE DATA [--until 2023-12-31] [--elsewhere CLONE …] [--state DIR]
    python benchmarks/finetuning_quality.py run DATA OUT [--base FOLDER] [--variants NAME …] [--seconds 540]

``prepare`` needs no GPU: it cuts the clone's history at the last first-parent commit before a day, builds the rows of
every kind as `inhouse dataset build` does, and the rows that are scored:

- ``oracle``: added lines of later edits, the file before the edit in the prompt. The first 90 edits of TypeScript files
  of fewer than 9,000 characters, in the order in which they were merged (``--glob`` and ``--characters`` change that).
- ``retrieved``: the same, with passages that the evaluation's own search finds in the snapshot.
- ``closed``: the same, with nothing.
- ``scopes``, ``scopes_closed``: the rest of definitions that later changes add, as in `inhouse eval model`, with
  passages that the search finds and with none.
- ``reviews``: what reviewers said of later changes, and hunks that they passed, in the form of the reading reviewer;
  only where ``--state`` names the state directory that `inhouse sync` wrote.
- ``new_files``: files first added later, as raw text.
- ``later_changes``: later changes, as raw text.
- ``python``, ``english``: what must not be forgotten: files of Python's standard library, descriptions of installed
  packages.
- questions, asked with passages and graded by programs as in `inhouse eval model`: spans of known code (found by the
  search) and of later code (shown among others), names that there are not, and the real names beside them; with
  ``--elsewhere`` spans of the later code of repositories that nothing is learned of, too.

``run`` trains each variant through :func:`inhouse_training.finetune.finetune` and scores it: nats per token, the share
of the answers that are right, and 95 % intervals of the gain over the base from a bootstrap over rows or questions.
Only the list of edits may be published.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import random
import re
import shutil
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from inhouse_retrieval import (
    Passage,
    PullRequest,
    PullRequestStore,
    Repository,
    read_pull_requests,
    said_until,
    with_forge,
)
from inhouse_training import BaseModel, load_tokenizer, resolve_base_model
from inhouse_training.cut import Cut
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.documents import added_lines, change_document, file_document
from inhouse_training.engine import BASE, Message, ScoredRow
from inhouse_training.evaluation import paired_gain
from inhouse_training.facts import holds_span
from inhouse_training.finetune import finetune, training_curve
from inhouse_training.measures import paired_difference
from inhouse_training.measures.abstention import abstains, names_to_ask, real_question
from inhouse_training.measures.completion import SCOPE, Completion, completions
from inhouse_training.measures.spans import known_questions, later_questions
from inhouse_training.probes.answers import House, read_house
from inhouse_training.prompts import build_answer_prompt, chat_ids, chat_row, edit_question, raw_row, without_end
from inhouse_training.recipe import Recipe
from inhouse_training.registry import file_sha256
from inhouse_training.replay import replay_row, replay_texts
from inhouse_training.reviews import Review, read_reviews, review_row
from inhouse_training.snapshot_search import SnapshotSearch

ROW_TOKENS = 2048
ANSWER_TOKENS = 96
SEED = 3407
FILES = {"file": 3, "conversation": 3, "change": (3, 100)}
"""Kind -> how often each of its rows is seen, or that and how many of the newest changes it is taken from."""
EDITS = {"file": 2, "conversation": 1, "change": (2, 100), "edit": (1, 400)}
ALL_EDITS = {**EDITS, "edit": 1}
REPLAY = {"replay": 1}
LOOKUP = {"lookup": 1}
ABSENT = {"absent": 1}
COMPLETION = {"completion": 1}
REVIEW = {"review": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    "article": {"rows": FILES, "learning_rate": 2e-5, "warmup": 0.0},
    "files": {"rows": FILES},
    "no conversations": {"rows": {**FILES, "conversation": 0}},
    "edits": {"rows": EDITS},
    "edits+replay": {"rows": {**EDITS, **REPLAY}},
    "edits+replay, half the rate": {"rows": {**EDITS, **REPLAY}, "learning_rate": 5e-4},
    "edits+lookup": {"rows": {**EDITS, **LOOKUP}},
    "edits+lookup+absent": {"rows": {**EDITS, **LOOKUP, **ABSENT}},
    "edits+lookup+replay": {"rows": {**EDITS, **LOOKUP, **REPLAY}},
    "edits+lookup+2 replay": {"rows": {**EDITS, **LOOKUP, "replay": 2}},
    "edits+lookup+3 replay": {"rows": {**EDITS, **LOOKUP, "replay": 3}},
    "article, no conversations": {"rows": {**FILES, "conversation": 0}, "learning_rate": 2e-5, "warmup": 0.0},
    "edits, no conversations": {"rows": {**EDITS, "conversation": 0}},
    "all that pay": {"rows": {**EDITS, "conversation": 0, **LOOKUP, "replay": 2, **COMPLETION}},
    "all that pay+conversations": {"rows": {**EDITS, **LOOKUP, "replay": 2, **COMPLETION}},
    "edits+completion": {"rows": {**EDITS, **COMPLETION}},
    "edits+review": {"rows": {**EDITS, **REVIEW}},
    "all edits+replay": {"rows": {**ALL_EDITS, **REPLAY}},
    "all edits+replay, half the rate": {"rows": {**ALL_EDITS, **REPLAY}, "learning_rate": 5e-4},
    "edits alone": {"rows": {"edit": (1, 400)}},
}

# -- on any machine ---------------------------------------------------------------------------------------------


def prepare(arguments: argparse.Namespace) -> None:
    repository = Repository.open(arguments.clone).excluding(arguments.exclude)
    tokenizer = load_tokenizer(resolve_base_model())
    listed = ("rev-list", "--first-parent", "-1", f"--before={arguments.until}T00:00:00Z", "HEAD")
    snapshot = repository.git(*listed).decode().strip()
    stamp = repository.git("show", "-s", "--format=%cI", snapshot).decode().strip()
    as_of = datetime.fromisoformat(stamp)
    store = PullRequestStore.if_there(arguments.state) if arguments.state else None
    told = with_forge(read_pull_requests(repository, until=snapshot, limit=arguments.changes), store)
    training = [said_until(change, as_of) for change in told]
    after = set(repository.git("rev-list", f"{snapshot}..HEAD").decode().split())
    later = [change for change in read_pull_requests(repository, limit=100_000) if change.commit in after]
    later.reverse()  # in the order in which they were merged
    cut = Cut(snapshot, as_of, tuple(training), tuple(reversed(later[:300])))
    shutil.rmtree(arguments.data, ignore_errors=True)
    dataset = build_dataset(repository, tokenizer, recipe({}, every_kind=True), cut, arguments.data / "rows", say)
    edits = first_edits(repository, snapshot, later, arguments)
    rows: dict[str, list[ScoredRow]] = {
        kind: [] for kind in ("oracle", "retrieved", "closed", "scopes", "scopes_closed")
    }
    rows["new_files"] = list(new_files(repository, snapshot, later, tokenizer))
    rows["later_changes"] = []
    rows |= forgetting_rows(tokenizer)
    for change in later[:60]:
        document = change_document(change)
        text = document.header + "".join(section.header + section.body for section in document.sections)
        rows["later_changes"].append(raw(tokenizer, text))
    search = SnapshotSearch(repository, snapshot)
    for change, path, added, before in edits:
        whole = Passage(path, 1, before.count("\n") + 1, before, "code", "", change.parent, 0.0, ())
        found = search(f"{change.title} {path}", 8)
        for mode, passages, budget in (
            ("oracle", [whole], 8000),
            ("retrieved", found, ROW_TOKENS),
            ("closed", [], 8000),
        ):
            rows[mode].append(edit_row(tokenizer, change, path, added, passages, budget))
    for scope in completions(repository, cut.held_out, arguments.edits):
        if scope.kind == SCOPE:
            rows["scopes"].append(scope_row(tokenizer, scope, search(scope.query, 8)))
            rows["scopes_closed"].append(scope_row(tokenizer, scope, []))
    if store is not None:
        rows["reviews"] = list(review_rows(repository, with_forge(cut.held_out, store), tokenizer))
        store.close()
    elsewhere = [Repository.open(clone).excluding(arguments.exclude) for clone in arguments.elsewhere]
    asked = list(questions(repository, cut, search, tokenizer, arguments.questions, elsewhere))
    search.close()
    (arguments.data / "asked.json").write_text(json.dumps(asked))
    (arguments.data / "scored.json").write_text(json.dumps({k: [asdict(r) for r in v] for k, v in rows.items()}))
    listing = {"snapshot": snapshot, "edits": [{"commit": c.commit, "path": p} for c, p, _, _ in edits]}
    (arguments.data / "edits.json").write_text(json.dumps(listing, indent=1) + "\n")
    figures = {"snapshot": snapshot, "as_of": stamp, "changes": len(training), "later": len(later)}
    figures |= {"asked": Counter(each["subject"] for each in asked)}
    figures |= {"scored": {kind: len(group) for kind, group in rows.items()}, "tokens": dataset.manifest["tokens"]}
    print(json.dumps(figures, indent=1))


def recipe(
    variant: dict[str, Any], every_kind: bool = False, batch_rows: int = 16, seed: int = SEED, **trainer: Any
) -> Recipe:
    shares = {"file_share": 0.2, "page_share": 0.1, "conversation_share": 0.2, "change_share": 0.2}
    if every_kind:
        shares |= {"change_share": 0.15, "edit_share": 0.15, "absent_share": 0.05, "lookup_share": 0.05}
        shares |= {"completion_share": 0.05, "review_share": 0.05}
    return Recipe.model_validate_json(
        json.dumps(
            {
                "name": "benchmark",
                "base_model": "SmolLM2-135M-Instruct",
                "seed": seed,
                "data": {"max_tokens": ROW_TOKENS, **shares},
                "lora": {"rank": 64, "alpha": 64},
                "optimizer": {
                    "learning_rate": variant.get("learning_rate", 1e-3),
                    "schedule": "cosine",
                    "warmup": variant.get("warmup", 0.04),
                    "max_passes": 1,
                    "batch_rows": batch_rows,
                },
                "trainer": {"kind": "trl", "checkpoint_seconds": 100_000, **trainer},
            }
        )
    )


def first_edits(
    repository: Repository, snapshot: str, later: Sequence[PullRequest], arguments: argparse.Namespace
) -> list[tuple[PullRequest, str, str, str]]:
    found: list[tuple[PullRequest, str, str, str]] = []
    for change in later:
        for file in change.files:
            if file.status != "modified" or not any(fnmatch.fnmatch(file.path, glob) for glob in arguments.glob):
                continue
            (before,) = repository.iter_texts_at([(change.parent, file.path)])
            added = added_lines(file.patch)
            if before and len(before) < arguments.characters and added.strip():
                found.append((change, file.path, added, before))
            if len(found) == arguments.edits:
                return found
    return found


def edit_row(
    tokenizer: Any, change: PullRequest, path: str, added: str, passages: Sequence[Passage], budget: int
) -> ScoredRow:
    def count(messages: Sequence[Message]) -> int:
        return len(chat_ids(tokenizer, messages, add_generation_prompt=True))

    prompt = build_answer_prompt(edit_question(change.title, path), passages, count, budget)
    ids, labels = chat_row(tokenizer, [*prompt.messages, Message("assistant", added[:6000])])
    ids, labels = without_end(tokenizer, ids, labels)
    return ScoredRow(tuple(ids[:8192]), tuple(labels[:8192]))


def scope_row(tokenizer: Any, scope: Completion, passages: Sequence[Passage]) -> ScoredRow:
    def count(messages: Sequence[Message]) -> int:
        return len(chat_ids(tokenizer, messages, add_generation_prompt=True))

    bare = build_answer_prompt(scope.question, (), count, 1 << 30, selection=scope.before)
    room = max(ROW_TOKENS, count(bare.messages))
    prompt = build_answer_prompt(scope.question, passages, count, room, selection=scope.before)
    ids, labels = chat_row(tokenizer, [*prompt.messages, Message("assistant", scope.wanted)])
    return ScoredRow(tuple(ids), tuple(labels))


def review_rows(repository: Repository, later: Sequence[PullRequest], tokenizer: Any) -> Iterator[ScoredRow]:
    def count(messages: Sequence[Message]) -> int:
        return len(chat_ids(tokenizer, messages, add_generation_prompt=True))

    for item in read_reviews(repository, later, SEED):
        row = review_row(tokenizer, count, item, ROW_TOKENS) if isinstance(item, Review) else None
        if row is not None:
            yield ScoredRow(tuple(row[0]), tuple(row[1]))


def questions(
    repository: Repository, cut: Cut, search: SnapshotSearch, tokenizer: Any, most: int, elsewhere: Sequence[Repository]
) -> Iterator[dict[str, Any]]:
    """Questions in the product's prompt, with what a right answer holds.

    Args:
        most: of each subject, and for each repository elsewhere.
        elsewhere: repositories that nothing is learned of: what their newest 300 changes added is asked as later code.
    """

    def count(messages: Sequence[Message]) -> int:
        return len(chat_ids(tokenizer, messages, add_generation_prompt=True))

    def asked(subject: str, text: str, passages: Sequence[Passage], **graded: str) -> dict[str, Any]:
        prompt = build_answer_prompt(text, passages, count, ROW_TOKENS - ANSWER_TOKENS)
        return {"subject": subject, "messages": [[each.role, each.content] for each in prompt.messages], **graded}

    def later(
        whose: str, of: Repository, snapshot: str, changes: Sequence[PullRequest], defined: House
    ) -> Iterator[dict[str, Any]]:
        for item in later_questions(of, snapshot, changes, defined, most):
            yield asked(f"{whose} {item.kind}", item.question, item.passages, kind=item.kind, span=item.span)

    house = read_house(repository, cut.snapshot, cut.held_out)
    for item in known_questions(repository, cut.snapshot, house, most):
        yield asked(f"known {item.kind}", item.question, search(item.query, 8), kind=item.kind, span=item.span)
    yield from later("later", repository, cut.snapshot, cut.held_out, house)
    for other in elsewhere:
        root = other.git("rev-list", "--first-parent", "--max-parents=0", "HEAD").decode().split()[0]
        changes = read_pull_requests(other, limit=300)
        yield from later("elsewhere", other, root, changes, read_house(other, root, changes))
    for absent in names_to_ask(repository, cut, most, SEED):
        yield asked("made-up names", absent.question, search(absent.question, 8))
        yield asked("real names", real := real_question(absent), search(real, 8))


def grade(question: dict[str, Any], answer: str) -> float:
    """1 for a right answer, else 0."""
    if "span" in question:
        return float(holds_span(question["kind"], question["span"], answer))
    return abstains(answer) if question["subject"] == "made-up names" else 1 - abstains(answer)


def raw(tokenizer: Any, text: str) -> ScoredRow:
    ids, labels = raw_row(tokenizer, text[: ROW_TOKENS * 8], ends=False)
    return ScoredRow(tuple(ids[:ROW_TOKENS]), tuple(labels[:ROW_TOKENS]))


def new_files(
    repository: Repository, snapshot: str, later: Sequence[PullRequest], tokenizer: Any
) -> Iterator[ScoredRow]:
    """The first 60 source files first added after the snapshot, as they were added."""
    known = {file.path for file in repository.snapshot(snapshot).files}
    count = 0
    for change in later:
        for file in change.files:
            if (
                file.status == "added"
                and file.path not in known
                and file.path.endswith((".ts", ".tsx", ".py", ".go", ".rb"))
            ):
                known.add(file.path)
                (text,) = repository.iter_texts_at([(change.commit, file.path)])
                if text and text.strip():
                    document = file_document(file.path, text)
                    yield raw(tokenizer, document.header + text)
                    count += 1
                    if count == 60:
                        return


def forgetting_rows(tokenizer: Any) -> dict[str, list[ScoredRow]]:
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    python = [path.read_text(encoding="utf-8", errors="replace") for path in random.Random(1).sample(library, 40)]
    described = {str(d.metadata["Name"]): str(d.metadata.get_payload() or "") for d in metadata.distributions()}
    english = [text for _, text in sorted(described.items()) if len(text) > 2000][:40]
    return {"python": [raw(tokenizer, t) for t in python], "english": [raw(tokenizer, t[:4000]) for t in english]}


def say(stage: str, done: int, total: int | None) -> None:
    if done == 0:
        print(stage, total, flush=True)


# -- on the GPU -------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> None:
    from inhouse_training.transformers_engine import TransformersEngine

    deadline = time.monotonic() + arguments.seconds
    base = BaseModel("SmolLM2-135M-Instruct", arguments.base, "0" * 64, "") if arguments.base else resolve_base_model()
    tokenizer = load_tokenizer(base)
    stored = json.loads((arguments.data / "scored.json").read_text())
    scored = {
        kind: [ScoredRow(tuple(row["input_ids"]), tuple(row["labels"])) for row in rows]
        for kind, rows in stored.items()
        if not arguments.kinds or kind in arguments.kinds
    }
    if arguments.rows:
        scored = {k: v[: arguments.rows] for k, v in scored.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    engine = TransformersEngine(
        base,
        lambda name: arguments.out / hashlib.sha256(name.encode()).hexdigest()[:8] / "run" / "adapter",
        weights=arguments.weights,
    )
    asked = json.loads((arguments.data / "asked.json").read_text()) if arguments.ask else []
    results: dict[str, Any] = {}
    scores = {kind: engine.score(rows, BASE) for kind, rows in scored.items()}
    grades, said = answer(engine, asked, BASE)
    (arguments.out / "said.json").write_text(json.dumps({"base": said}))
    results["base"] = {kind: round(mean(found), 4) for kind, found in scores.items()} | right(grades)
    print("base", results["base"], flush=True)
    if asked:
        results["the first passage's path"] = right(graded(asked, [first_path(each) for each in asked]))
    longest = 0.0
    for name in arguments.variants or list(VARIANTS):
        began = time.monotonic()
        if began + longest * 1.15 > deadline:
            print(f"no time left for {name}", flush=True)
            continue
        variant = VARIANTS[name]
        folder = arguments.out / hashlib.sha256(name.encode()).hexdigest()[:8]
        tokens = write_variant(arguments, base, tokenizer, variant["rows"], folder / "dataset")
        ready = time.monotonic()
        trainer = {"packing": arguments.packing, "compile": arguments.compile}
        trainer |= {"kind": "unsloth", "load_in_4bit": True} if arguments.four_bit else {}
        chosen = recipe(variant, batch_rows=arguments.batch, seed=arguments.seed, **trainer)
        adapter = finetune(base, folder / "dataset", chosen, folder / "run")
        trained = time.monotonic()
        curve = training_curve(folder / "run")
        row: dict[str, Any] = {
            "tokens": tokens,
            "steps": len(curve),
            "seconds": round(trained - ready, 1),
            "adapter_mb": round((adapter / "adapter_model.safetensors").stat().st_size / 1e6, 1),
        }
        for kind, rows in scored.items():
            after = engine.score(rows, name)
            gain = paired_gain(scores[kind], after)
            row[kind] = round(mean(after), 4)
            row[f"{kind}_gain"] = [round(value, 4) for value in (gain.mean, gain.low, gain.high)]
        after_grades, said = answer(engine, asked, name)
        row |= right(after_grades)
        for subject, before in grades.items():
            rise = paired_difference(before, after_grades[subject])
            row[f"{subject}_gain"] = [round(value, 4) for value in (rise.mean, rise.low, rise.high)]
        told = json.loads((arguments.out / "said.json").read_text())
        (arguments.out / "said.json").write_text(json.dumps(told | {name: said}))
        results[name] = row
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        longest = max(longest, time.monotonic() - began)
        print(name, json.dumps(row), flush=True)
    print(table(results, [*scored, *grades]))


def answer(engine: Any, asked: Sequence[dict[str, Any]], adapter: str) -> tuple[dict[str, list[float]], list[str]]:
    """Grades by subject of the answers, and the answers."""
    prompts = [[Message(role, content) for role, content in each["messages"]] for each in asked]
    said = [text for text, _ in engine.answer_all(prompts, ANSWER_TOKENS, adapter)]
    return graded(asked, said), said


def graded(asked: Sequence[dict[str, Any]], said: Sequence[str]) -> dict[str, list[float]]:
    grades: dict[str, list[float]] = {}
    for each, text in zip(asked, said, strict=True):
        grades.setdefault(each["subject"], []).append(grade(each, text))
    return grades


def first_path(question: dict[str, Any]) -> str:
    """The path above the first passage: what is said by who does not read, which is often right."""
    found = re.search(r"^(\S.*):\d+-\d+$", question["messages"][1][1], re.M)
    return found[1] if found else ""


def right(grades: dict[str, list[float]]) -> dict[str, float]:
    return {subject: round(sum(found) / len(found), 4) for subject, found in grades.items()}


def write_variant(
    arguments: argparse.Namespace, base: BaseModel, tokenizer: Any, wanted: dict[str, Any], folder: Path
) -> int:
    """Rows of the wanted kinds, each as often as wanted, as a dataset folder; their tokens."""
    import datasets

    source = arguments.train or arguments.data
    rows = Dataset(source / "rows").rows
    commits = json.loads((source / "rows" / "manifest.json").read_text())["changes"]["training_commits"]
    age = {commit: number for number, commit in enumerate(commits)}
    chosen: list[tuple[list[int], list[int]]] = []
    for row in rows:
        asked = wanted.get("file" if row["kind"] == "page" else row["kind"], 0)
        times, newest = asked if isinstance(asked, tuple) else (asked, len(commits))
        if age.get(row["name"].split(":")[0], 0) < newest:
            chosen += [(row["input_ids"], row["labels"])] * times
    if wanted.get("replay"):
        for text in replay_texts(base, arguments.replay_samples, say):
            chosen += [replay_row(tokenizer, text)] * wanted["replay"]
    random.Random(arguments.seed).shuffle(chosen)
    if arguments.limit:
        chosen = chosen[: arguments.limit]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    from datasets.arrow_writer import ArrowWriter

    ids = datasets.Sequence(datasets.Value("int32"))
    features = datasets.Features({"input_ids": ids, "labels": ids})
    with ArrowWriter(path=str(folder / "rows.arrow"), features=features) as writer:
        for input_ids, labels in chosen:
            writer.write({"input_ids": input_ids, "labels": labels})
        writer.finalize()
    tokens = sum(len(input_ids) for input_ids, _ in chosen)
    manifest = {"row_tokens": tokens, "rows_sha256": file_sha256(folder / "rows.arrow")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return tokens


def mean(scores: Sequence[Any]) -> float:
    return sum(score.nats for score in scores) / max(sum(score.tokens for score in scores), 1)


def table(results: dict[str, Any], kinds: Sequence[str]) -> str:
    lines = ["| variant | tokens | s | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 3) + "|"]
    for name, row in results.items():
        cells = [f"{row[kind]:.3f}" if kind in row else "" for kind in kinds]
        lines.append(f"| {name} | {row.get('tokens', '')} | {row.get('seconds', '')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare")
    first.add_argument("clone", type=Path)
    first.add_argument("data", type=Path)
    first.add_argument("--until", default="2023-12-31")
    first.add_argument("--changes", type=int, default=1500)
    first.add_argument("--edits", type=int, default=90)
    first.add_argument("--glob", nargs="+", default=["*.ts", "*.tsx"])
    first.add_argument("--characters", type=int, default=9000)
    first.add_argument("--questions", type=int, default=60, help="of each subject")
    first.add_argument("--elsewhere", type=Path, nargs="*", default=[], help="ask about these clones, too")
    first.add_argument("--state", type=Path, help="state directory that inhouse sync wrote, for review replies")
    first.add_argument("--exclude", nargs="*", default=[".yarn/releases"])
    first.set_defaults(work=prepare)
    second = commands.add_parser("run")
    second.add_argument("data", type=Path)
    second.add_argument("out", type=Path)
    second.add_argument("--base", type=Path)
    second.add_argument("--variants", nargs="+", choices=list(VARIANTS))
    second.add_argument("--seconds", type=float, default=540)
    second.add_argument("--batch", type=int, default=16)
    second.add_argument("--seed", type=int, default=SEED, help="of the adapter's first weights and the order of rows")
    second.add_argument("--replay-samples", type=int, default=8)
    second.add_argument("--train", type=Path, help="rows of another repository, as a control; default: DATA")
    second.add_argument("--kinds", nargs="+", help="score these kinds of row only")
    second.add_argument("--rows", type=int, help="score so many rows of each kind only, for a trial")
    second.add_argument("--packing", action="store_true", help="several short rows in one")
    second.add_argument("--compile", action="store_true", help="compile the layers")
    second.add_argument("--four-bit", action="store_true", help="train in 4 bit, by Unsloth")
    second.add_argument("--weights", choices=["full", "4bit"], default="full", help="the base model's when scored")
    second.add_argument("--ask", action="store_true", help="ask the questions, too")
    second.add_argument("--limit", type=int, help="train on so many rows only, for a trial")
    second.set_defaults(work=run)
    arguments = parser.parse_args()
    arguments.work(arguments)


if __name__ == "__main__":
    main()
