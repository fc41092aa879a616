"""Which score of lines finds those that were changed soon after, and planted breaks of conventions, on a GPU.

    python benchmarks/house_score.py prepare CLONE DATA.tar.gz [--requests 300] [--train-tokens N] [--exclude PATTERN …]
    python benchmarks/house_score.py run DATA.tar.gz … OUT [--base FOLDER] [--seconds 540]
    python benchmarks/house_score.py report OUT … --select NAME … [--json FILE]
    python benchmarks/house_score.py speed DATA.tar.gz [--base FOLDER] [--tokens 10000] [--lines 300] [--files 5]

``prepare`` needs no GPU. It takes the commit that about so many usable pull requests follow as the snapshot, builds the
rows that `inhouse dataset build --recipe gpu-trial` would train on (without replay, which the base model draws on the
GPU; ``run`` adds it), and the rows that score the added lines of those pull requests: see
`inhouse_server.review.wanting` for which lines count as found wanting, and `…planted` for the breaks. Code of the
repository is in the file, so it may not be published.

``run`` trains an adapter for each repository with the recipe gpu-trial, reads all lines with and without it, and writes
OUT/NAME.json (counts) and OUT/NAME.npz (the value of every score for every line; numbers alone). A repository that
OUT holds already is passed over, and none is begun that would not end within ``--seconds``, so that a second command
goes on where the first one stopped.

``report`` chooses a score on the repositories named by ``--select`` and judges it on the others: on only where it is
above base surprisal, pooled and within pull requests, with whole intervals, on at least 200 pull requests with both
kinds of line. It prints the table last.

``speed`` reads added lines of several files with the base model and an untrained adapter of the recipe's size, as a
review would, and says how long that takes once everything is loaded.

``run`` needs torch, transformers, peft, trl, datasets, pydantic, pathspec and unidiff, and no network.

For a trial on a CPU: ``--requests 12`` in prepare, and in run
``--batch 2 --limit 8 --scored 120 --tokens 384 --replay-samples 0``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from inhouse_retrieval import Progress, Repository, read_pull_requests
from inhouse_server.review.line_evaluation import (
    LineEvaluation,
    ScoredLines,
    as_text,
    by_repository,
    choose,
    decide,
    evaluate_scores,
    plain_json,
    table,
    together,
)
from inhouse_server.review.line_measurement import Material, Measured, gather, house_names, measure
from inhouse_server.review.line_scores import BASE_SURPRISAL
from inhouse_server.review.planted import found_shares, found_table
from inhouse_server.review.wanting import after_for, judged_changes
from inhouse_training import BaseModel, LineRow, ScoredRow, load_recipe, load_tokenizer, resolve_base_model
from inhouse_training.cut import Cut
from inhouse_training.dataset import Dataset, build_dataset
from inhouse_training.finetune import finetune, training_curve
from inhouse_training.recipe import Recipe
from inhouse_training.registry import file_sha256
from inhouse_training.replay import replay_row, replay_texts
from inhouse_training.snapshot_search import SnapshotSearch

HELD_OUT = 300
"""Commits after the snapshot whose lines must not be trained on; later ones are not read at all."""


def recipe(train_tokens: int, batch_rows: int | None = None) -> Recipe:
    """gpu-trial, with a bound of its own; its replay is added by ``run``, where the base model can draw it."""
    loaded = load_recipe("gpu-trial")
    data = loaded.data.model_copy(update={"replay_share": 0.0, "max_train_tokens": train_tokens})
    rows = batch_rows or loaded.optimizer.batch_rows
    optimizer = loaded.optimizer.model_copy(update={"batch_rows": rows})
    return loaded.model_copy(update={"data": data, "optimizer": optimizer})


# -- on any machine ---------------------------------------------------------------------------------------------


def prepare(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    repository = Repository.open(arguments.clone).excluding(arguments.exclude)
    tokenizer = load_tokenizer(resolve_base_model())
    snapshot = repository.commit_id(arguments.at) if arguments.at else after_for(repository, arguments.requests)
    judged = judged_changes(repository, snapshot, arguments.requests, progress=say())
    house = house_names(repository, snapshot)
    with closing(SnapshotSearch(repository, snapshot)) as search:
        rows = gather(tokenizer, judged.changes, house, search, arguments.tokens)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stamp = repository.git("show", "-s", "--format=%cI", snapshot).decode().strip()
        training = read_pull_requests(repository, until=snapshot, limit=arguments.changes)
        after = repository.git("rev-list", "--first-parent", "--reverse", f"{snapshot}..HEAD").decode().split()
        read = read_pull_requests(repository, until=after[:HELD_OUT][-1], limit=HELD_OUT)
        later = tuple(change for change in read[::-1] if change.commit in set(after))
        cut = Cut(snapshot, datetime.fromisoformat(stamp), tuple(training), later)
        dataset = build_dataset(repository, tokenizer, recipe(arguments.train_tokens), cut, folder / "rows", say())
        (folder / "lines.json").write_text(json.dumps(stored(rows)))
        figures = {
            "snapshot": snapshot,
            "head": repository.head(),
            "requests": len(judged.changes),
            "with_both": sum(change.has_both for change in judged.changes),
            "several_commits": sum(change.several for change in judged.changes),
            "lines": sum(len(lines) for change in judged.changes for lines in change.lines.values()),
            "wanting": sum(len(lines) for change in judged.changes for lines in change.wanting.values()),
            "moved": sum(change.moved for change in judged.changes),
            "unread": dict(Counter(why for change in judged.changes for why in change.left_out.values())),
            "left_out": dict(judged.left_out),
            "too_long": rows.too_long,
            "planted": dict(Counter(kind for kind in rows.planted if kind)),
            "rows": len(rows.rows),
            "row_tokens": sum(len(row.row.input_ids) for row in rows.rows),
            "below_precedents": sum(len(below.input_ids) for below in rows.below),
            "train_tokens": arguments.train_tokens,
            "training": dataset.manifest["tokens"],
            "prepared_in_s": round(time.monotonic() - began, 1),
        }
        (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        arguments.data.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(arguments.data, "w:gz") as packed:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.name != "candidates.arrow":
                    packed.add(path, str(path.relative_to(folder)))
    print(json.dumps({**figures, "megabytes": round(arguments.data.stat().st_size / 1e6, 1)}, indent=1))


def stored(material: Material) -> dict[str, Any]:
    return {
        "rows": [
            [*labelled(row.row), row.lines, [int(each) for each in row.conventional], row.from_line]
            for row in material.rows
        ],
        "below": [labelled(row) for row in material.below],
        "requests": material.requests,
        "wanting": [sorted(lines) for lines in material.wanting],
        "planted": material.planted,
        "too_long": material.too_long,
    }


def labelled(row: ScoredRow) -> tuple[tuple[int, ...], list[int]]:
    """``(token ids, places of those that are labelled)``."""
    return row.input_ids, [at for at, label in enumerate(row.labels) if label >= 0]


def scored_row(ids: Sequence[int], places: Sequence[int]) -> ScoredRow:
    wanted = set(places)
    return ScoredRow(tuple(ids), tuple(token if at in wanted else -100 for at, token in enumerate(ids)))


def loaded(content: dict[str, Any]) -> Material:
    rows = [
        LineRow(scored_row(ids, places), tuple(lines), tuple(map(bool, conventional)), from_line)
        for ids, places, lines, conventional, from_line in content["rows"]
    ]
    return Material(
        tuple(rows),
        tuple(content["requests"]),
        tuple(frozenset(lines) for lines in content["wanting"]),
        tuple(content["planted"]),
        tuple(scored_row(*row) for row in content["below"]),
        content["too_long"],
    )


def say() -> Progress:
    """Says each stage once."""
    told: set[str] = set()

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage not in told:
            told.add(stage)
            print(stage, "" if total is None else total, file=sys.stderr, flush=True)

    return progress


# -- on the GPU -------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> None:
    from inhouse_training import TransformersEngine

    deadline = time.monotonic() + arguments.seconds
    base = base_model(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    longest = 0.0
    for data in arguments.data:
        name = data.name.removesuffix(".tar.gz")
        began = time.monotonic()
        if (arguments.out / f"{name}.json").exists():
            continue
        if began + longest * 1.2 > deadline:
            print(f"no time left for {name}: run the same command again", flush=True)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            with tarfile.open(data) as packed:
                packed.extractall(folder, filter="data")
            figures = json.loads((folder / "figures.json").read_text())
            material = shortened(loaded(json.loads((folder / "lines.json").read_text())), arguments)
            tokens = training_rows(arguments, base, folder)
            ready = time.monotonic()
            learned = recipe(figures["train_tokens"], arguments.batch)
            adapter = finetune(base, folder / "dataset", learned, folder / "run", say())
            trained = time.monotonic()
            curve = training_curve(folder / "run")
            engine = TransformersEngine(base, lambda version, adapter=adapter: adapter)
            measured = measure(engine, "tuned", material, say())
        figures |= {
            "training_tokens_a_pass": tokens,
            "steps": len(curve),
            "first_and_last_loss": [round(curve[0].loss, 3), round(curve[-1].loss, 3)] if curve else [],
            "trained_in_s": round(trained - ready, 1),
            "scored_in_s": round(time.monotonic() - trained, 1),
            "truncated": measured.truncated,
        }
        write_values(arguments.out / f"{name}.npz", measured)
        (arguments.out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
        longest = max(longest, time.monotonic() - began)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def base_model(arguments: argparse.Namespace) -> BaseModel:
    if arguments.base:
        return BaseModel("SmolLM2-135M-Instruct", arguments.base, "0" * 64, "")
    return resolve_base_model()


def training_rows(arguments: argparse.Namespace, base: BaseModel, folder: Path) -> int:
    """The rows to train on as a dataset folder, replay among them; their tokens."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    rows = [(row["input_ids"], row["labels"]) for row in Dataset(folder / "rows").rows]
    if arguments.replay_samples:
        tokenizer = load_tokenizer(base)
        rows += [replay_row(tokenizer, text) for text in replay_texts(base, arguments.replay_samples, say())]
    random.Random(load_recipe("gpu-trial").seed).shuffle(rows)
    rows = [
        (ids[: arguments.tokens], labels[: arguments.tokens]) for ids, labels in rows[: arguments.limit or len(rows)]
    ]
    target = folder / "dataset"
    target.mkdir()
    ids = datasets.Sequence(datasets.Value("int32"))
    features = datasets.Features({"input_ids": ids, "labels": ids})
    with ArrowWriter(path=str(target / "rows.arrow"), features=features) as writer:
        for input_ids, labels in rows:
            writer.write({"input_ids": input_ids, "labels": labels})
        writer.finalize()
    tokens = sum(len(input_ids) for input_ids, _ in rows)
    manifest = {"row_tokens": tokens, "rows_sha256": file_sha256(target / "rows.arrow")}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return tokens


def shortened(material: Material, arguments: argparse.Namespace) -> Material:
    """For a trial: some of the rows that fit, those of pull requests with lines found wanting first."""
    if not arguments.scored:
        return material
    careless = {request for request, lines in zip(material.requests, material.wanting, strict=True) if lines}
    chosen = [at for at, row in enumerate(material.rows) if len(row.row.input_ids) <= arguments.tokens]
    chosen = sorted(chosen, key=lambda at: material.requests[at] not in careless)[: arguments.scored]
    columns = (
        tuple(column[at] for at in chosen)
        for column in (material.rows, material.requests, material.wanting, material.planted, material.below)
    )
    return Material(*columns, material.too_long)


def write_values(path: Path, measured: Measured) -> None:
    names = list(measured.lines.values)
    np.savez_compressed(
        path,
        names=np.array(names),
        values=np.array([measured.lines.values[name] for name in names], dtype="f4"),
        requests=measured.lines.requests.astype("i4"),
        wanting=measured.lines.wanting,
        planted_names=np.array(list(measured.planted)),
        planted=np.array(list(measured.planted.values()), dtype="f4"),
        planted_requests=measured.planted_requests.astype("i4"),
        planted_kinds=np.array(measured.planted_kinds, dtype=str),
    )


# -- on any machine: how long a review waits for the score -------------------------------------------------------


def speed(arguments: argparse.Namespace) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from inhouse_training import BASE, TransformersEngine, load_model

    base = base_model(arguments)
    with tarfile.open(arguments.data) as packed:
        held = packed.extractfile("lines.json")
        assert held is not None, f"{arguments.data} was not made by prepare"
        material = loaded(json.load(held))
    rows, below = change_of(material, arguments.tokens, arguments.lines, arguments.files)
    lora = recipe(0).lora
    with tempfile.TemporaryDirectory() as scratch:
        asked = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        )
        get_peft_model(load_model(base, "cpu", torch.float32), asked).save_pretrained(scratch)
        engine = TransformersEngine(base, lambda version: Path(scratch), device=arguments.device)
        seconds: dict[str, list[float]] = {"without precedents": [], "with precedents": []}
        for attempt in range(arguments.repeats + 1):
            for name, read in (("without precedents", [row.row for row in rows]), ("with precedents", below)):
                began = time.monotonic()
                for adapter in ("tuned", BASE):
                    engine.score_tokens(read, adapter)
                if attempt:  # the first one loads
                    seconds[name].append(round(time.monotonic() - began, 2))
    told = {
        "files": len(rows),
        "lines": sum(len(set(row.lines)) for row in rows),
        "tokens": sum(len(row.row.input_ids) for row in rows),
        "tokens_below_precedents": sum(len(row.input_ids) for row in below),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
    }
    print(json.dumps(told))


def change_of(material: Material, tokens: int, lines: int, files: int) -> tuple[list[LineRow], list[ScoredRow]]:
    """Rows of about ``tokens / files`` tokens, of different files, each with ``lines / files`` lines to score."""
    longest = sorted(
        range(len(material.rows)), key=lambda at: abs(len(material.rows[at].row.input_ids) - tokens // files)
    )
    chosen = [at for at in longest if not material.planted[at] and len(set(material.rows[at].lines)) >= lines // files]
    rows, below = [], []
    for at in chosen[:files]:
        kept = set(list(dict.fromkeys(material.rows[at].lines))[: lines // files])
        row, other = material.rows[at], material.below[at]
        places = [keep in kept for keep in row.lines]
        rows.append(
            LineRow(
                only(row.row, places),
                tuple(line for line in row.lines if line in kept),
                tuple(each for each, keep in zip(row.conventional, places, strict=True) if keep),
                row.from_line,
            )
        )
        below.append(only(other, places))
    return rows, below


def only(row: ScoredRow, kept: Sequence[bool]) -> ScoredRow:
    """The row with some of its labelled tokens labelled."""
    ids, places = labelled(row)
    return scored_row(ids, [place for place, keep in zip(places, kept, strict=True) if keep])


# -- anywhere, afterwards ---------------------------------------------------------------------------------------


def read_values(path: Path) -> Measured:
    with np.load(path) as held:
        values = dict(zip(held["names"].tolist(), held["values"].astype(float), strict=True))
        planted = dict(zip(held["planted_names"].tolist(), held["planted"].astype(float), strict=True))
        lines = ScoredLines(held["requests"].astype(np.int64), held["wanting"], values)
        kinds = tuple(held["planted_kinds"].tolist())
        return Measured(lines, planted, held["planted_requests"].astype(np.int64), kinds, 0, 0)


def report(arguments: argparse.Namespace) -> None:
    files = [file for folder in arguments.out for file in sorted(folder.glob("*.npz"))]
    held = {file.stem: read_values(file) for file in files}
    selecting = {name: each for name, each in held.items() if name in arguments.select}
    reporting = {name: each for name, each in held.items() if name not in arguments.select}
    if not selecting or not reporting or len(selecting) < len(arguments.select):
        sys.exit(f"--select must name some of {', '.join(held)}, and not all.")
    selection = evaluate_scores(together([each.lines for each in selecting.values()]))
    chosen = choose(selection)
    judged = evaluate_scores(together([each.lines for each in reporting.values()]))
    decision = decide(chosen, judged)
    one_by_one: dict[str, LineEvaluation] = {name: evaluate_scores(each.lines) for name, each in held.items()}
    found = planted_together(list(reporting.values()))
    result = {
        "selected_on": list(selecting),
        "reported_on": list(reporting),
        "selection": selection.to_json(),
        "report": judged.to_json(),
        "decision": asdict(decision),
        "planted": [plain_json(share) for share in found],
        "repositories": {name: evaluation.to_json() for name, evaluation in one_by_one.items()},
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(as_text(by_repository(one_by_one, chosen)))
    if found:
        kinds = Counter(kind for each in reporting.values() for kind in each.planted_kinds)
        print(f"\nplanted breaks of {', '.join(reporting)}: {dict(kinds)}")
        print(as_text(found_table(found)))
    print(f"\nselected on {', '.join(selecting)}, {selection.with_both} pull requests with both kinds: {chosen}")
    print(f"reported on {', '.join(reporting)}, {judged.with_both} pull requests with both kinds:")
    print(as_text(table(judged)))
    print(f"house score: {'on' if decision.on else 'off'}: {decision.reason}")


def planted_together(parts: Sequence[Measured]) -> list[Any]:
    """The breaks of several repositories; a value becomes the share of its repository's own lines that lie below."""
    parts = [part for part in parts if part.planted_kinds]
    if not parts:
        return []
    untouched = together([part.lines for part in parts])
    planted: dict[str, list[Any]] = {name: [] for name in parts[0].planted}
    requests, offset = [], 0
    for part in parts:
        for name, values in part.planted.items():
            ordered = np.sort(part.lines.values[name])
            places = [np.searchsorted(ordered, values, side=side) for side in ("left", "right")]
            planted[name].append(sum(places) / (2 * len(ordered)))
        requests.append(part.planted_requests + offset)
        offset += int(part.lines.requests.max(initial=-1)) + 1
    return found_shares(
        {name: untouched.values[name] for name in planted},
        untouched.requests,
        {name: np.concatenate(values) for name, values in planted.items()},
        np.concatenate(requests),
        BASE_SURPRISAL,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare")
    first.add_argument("clone", type=Path)
    first.add_argument("data", type=Path, help="ends in .tar.gz; what comes before names the repository from then on")
    first.add_argument("--requests", type=int, default=300, help="pull requests to judge")
    first.add_argument("--at", help="the snapshot; default: the commit that so many usable pull requests follow")
    first.add_argument("--changes", type=int, default=400, help="changes before the snapshot to train on")
    first.add_argument("--tokens", type=int, default=2048, help="of a row that scores lines")
    first.add_argument("--train-tokens", type=int, default=load_recipe("gpu-trial").data.max_train_tokens)
    first.add_argument("--exclude", nargs="*", default=[".yarn/releases"])
    first.set_defaults(work=prepare)
    second = commands.add_parser("run")
    second.add_argument("data", type=Path, nargs="+")
    second.add_argument("out", type=Path)
    second.add_argument("--base", type=Path, help="folder of SmolLM2-135M-Instruct")
    second.add_argument("--seconds", type=float, default=540)
    second.add_argument("--replay-samples", type=int, default=load_recipe("gpu-trial").data.replay_samples)
    second.add_argument("--batch", type=int, help="rows in a training step; default: the recipe's")
    second.add_argument("--limit", type=int, help="train on so many rows only, for a trial")
    second.add_argument("--scored", type=int, help="score so many rows only, for a trial")
    second.add_argument("--tokens", type=int, default=2048, help="cut rows to train on, for a trial")
    second.set_defaults(work=run)
    fourth = commands.add_parser("speed")
    fourth.add_argument("data", type=Path)
    fourth.add_argument("--base", type=Path, help="folder of SmolLM2-135M-Instruct")
    fourth.add_argument("--device", default="cpu")
    fourth.add_argument("--tokens", type=int, default=10_000)
    fourth.add_argument("--lines", type=int, default=300)
    fourth.add_argument("--files", type=int, default=5)
    fourth.add_argument("--repeats", type=int, default=3)
    fourth.set_defaults(work=speed)
    third = commands.add_parser("report")
    third.add_argument("out", type=Path, nargs="+")
    third.add_argument("--select", nargs="+", required=True, help="repositories that the score is chosen on")
    third.add_argument("--json", type=Path)
    third.set_defaults(work=report)
    arguments = parser.parse_args()
    arguments.work(arguments)


if __name__ == "__main__":
    main()
