"""The report of `inhouse eval model`: figures with intervals, plots, and answers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..decay_plot import plot_decay
from ..engine import BASE
from ..evaluation import CANDIDATE, CLOSED_BOOK, CURRENT, WITH_RETRIEVAL
from ..report import decay_tables
from ..report_page import Example, Page, Table, Text, write_page
from . import ORACLE
from .answered import Answered
from .intervals_plot import IntervalRow, plot_intervals
from .model import ModelEvaluation
from .tasks import LOWER_IS_BETTER

MODES = {CLOSED_BOOK: "question alone", WITH_RETRIEVAL: "with passages", ORACLE: "with the file before the edit"}
_LABELS = (BASE, CURRENT, CANDIDATE)


def write_evaluation_report(evaluation: ModelEvaluation) -> Path:
    """Write ``evaluation-VERSION/report.html`` and ``report.md`` into the run's folder; returns the HTML file."""
    version = evaluation.adapters[CANDIDATE]
    folder = evaluation.directory / f"evaluation-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    metrics = evaluation.metrics()
    plots: dict[str, Path] = {}
    if gains := list(_gains(metrics)):
        plots["Gain over the base model"] = folder / "gains.svg"
        plot_intervals(gains, "fewer bits per byte than the base model (right is better)", folder / "gains.svg")
    if differences := list(_differences(metrics)):
        plots["Answers beside those of the base model"] = folder / "answers.svg"
        plot_intervals(differences, "share of answers beside the base model (right is better)", folder / "answers.svg")
    if evaluation.decay.shown:
        plots["Decay"] = folder / "decay.svg"
        plot_decay(version, evaluation.decay, (), folder / "decay.svg")
    page = Page(
        f"Evaluation of {version}",
        list(_points(metrics)),
        _facts(evaluation),
        plots,
        [_likelihoods(metrics), *_answers(metrics), _memory(metrics), *decay_tables(evaluation.decay, ())],
        _examples(evaluation.answered),
    )
    return write_page(page, folder)


def _points(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the likelihoods of later text say, in words, and what was left out."""
    for kind, found in metrics["likelihood"].items():
        mode = next((mode for mode in (WITH_RETRIEVAL, ORACLE) if mode in found), CLOSED_BOOK)
        gain = found.get(mode, {}).get("gain", {}).get(f"over_{BASE}")
        if not gain or not found["items"]:
            continue
        asked = "" if kind.startswith("general_") else f", {MODES[mode]}"
        interval = gain["bits_per_byte"]
        sign = "fewer" if interval["mean"] > 0 else "more"
        better = f"{abs(interval['mean']):.3f} bits per byte {sign} than the base model"
        sure = interval["low"] > 0 or interval["high"] < 0
        yield f"{_words(kind).capitalize()}{asked}: {better}{'' if sure else ', which is not sure'}."
    yield from metrics["remarks"]


def _facts(evaluation: ModelEvaluation) -> list[tuple[str, str]]:
    return [
        ("Candidate", evaluation.adapters[CANDIDATE]),
        ("Current adapter", evaluation.adapters.get(CURRENT, "the candidate itself, or left out")),
        ("Base model", evaluation.base_model),
        ("Recipe", evaluation.recipe),
        ("Snapshot", f"{evaluation.snapshot[:12]} of {evaluation.as_of:%Y-%m-%d}; what judges came later"),
        ("Time", ", ".join(f"{seconds:.0f} s of {what}" for what, seconds in evaluation.seconds.items())),
    ]


# ----------------------------------------------------------------------------------------------------------
# Figures


def _gains(metrics: Mapping[str, Any]) -> Iterator[IntervalRow]:
    for kind, found in metrics["likelihood"].items():
        for mode in (mode for mode in MODES if found.get(mode, {}).get("gain")):
            name = _words(kind) if kind.startswith("general_") else f"{_words(kind)}, {MODES[mode]}"
            yield IntervalRow(name, mode == WITH_RETRIEVAL, **found[mode]["gain"][f"over_{BASE}"]["bits_per_byte"])


def _differences(metrics: Mapping[str, Any]) -> Iterator[IntervalRow]:
    for name, found in metrics["answers"].items():
        for mode in (mode for mode in MODES if found.get(mode, {}).get("difference")):
            interval = found[mode]["difference"][f"to_{BASE}"]
            shown = f"{_words(name)}, {MODES[mode]}"
            if found["better"] == "lower":
                interval = {"mean": -interval["mean"], "low": -interval["high"], "high": -interval["low"]}
                shown += " (fewer)"
            yield IntervalRow(shown, mode == WITH_RETRIEVAL, **interval)


def _likelihoods(metrics: Mapping[str, Any]) -> Table:
    labels = [label for label in _LABELS if label in metrics["adapters"]]
    others = labels[:-1]
    rows = []
    for kind, found in metrics["likelihood"].items():
        for mode in (mode for mode in MODES if mode in found and found["items"]):
            asked = "" if kind.startswith("general_") else MODES[mode]
            losses = (
                f"{found[mode][label]['bits_per_byte']:.3f} ({found[mode][label]['nats_per_token']:.3f})"
                for label in labels
            )
            gains = (_interval(found[mode]["gain"].get(f"over_{other}", {}).get("bits_per_byte")) for other in others)
            rows.append((_words(kind), asked, str(found["items"]), *losses, *gains))
    return Table(
        "Likelihood: bits per byte (nats per token), lower is better",
        ("text", "asked", "items", *labels, *(f"gain over {other}, bits per byte (95 % interval)" for other in others)),
        tuple(rows),
        "Later files and changes are raw text behind their path or title, later edits answers to the product's prompt. "
        "General text is what may be forgotten; its items are blocks of tokens. A gain above zero is better.",
    )


def _answers(metrics: Mapping[str, Any]) -> list[Table]:
    if not metrics["answers"]:
        return []
    labels = [label for label in _LABELS if label in metrics["adapters"]]
    rows = []
    for name, found in metrics["answers"].items():
        for mode in (mode for mode in MODES if mode in found):
            shown = f"{found[mode]['span_in_prompt']:.0%}" if "span_in_prompt" in found[mode] else ""
            shares = (f"{found[mode][label]:.1%}" for label in labels)
            items = str(found[mode]["items"])
            changes = (_difference(found[mode]["difference"].get(f"to_{other}"), items) for other in labels[:-1])
            rows.append((_words(name), MODES[mode], items, found["better"], shown, *shares, *changes))
    return [
        Table(
            "Answers",
            ("measure", "asked", "items", "better is", "span in prompt", *labels,
             *(f"candidate less {other} (95 % interval)" for other in labels[:-1])),
            tuple(rows),
            "Greedy answers, graded by programs. Span in prompt: share of the prompts that held what had to be quoted.",
        )
    ]  # fmt: skip


def _memory(metrics: Mapping[str, Any]) -> Table:
    memory = metrics["memory"]
    labels = [label for label in _LABELS if label in metrics["adapters"]]
    of = memory["of_tokens"]
    rows = []
    for files, which in (("known_files", "trained on"), ("later_files", "later, known to nobody")):
        found = memory[files]
        for name, figure in (
            ("prefix_tokens", "exact tokens, mean"),
            ("all_exact", f"all {of} exact"),
        ):
            if found["items"]:
                values = (f"{found[name][label]:.3g}" for label in labels)
                change = _difference(found[name]["difference"].get(f"to_{BASE}"), found["items"])
                rows.append((which, str(found["items"]), figure, *values, change))
    return Table(
        "Memory, which is not quality",
        (
            "files",
            "items",
            f"of the first {of} tokens",
            *labels,
            "candidate less base (95 % interval)",
        ),
        tuple(rows),
        "What a greedy continuation writes of a file after its path. More is neither better nor worse; what known "
        "files have beyond later ones is known by heart.",
    )


def _difference(interval: Mapping[str, float] | None, items: object) -> str:
    """An interval without width at zero is no measure of how sure that is."""
    return f"the same on all {items}" if interval and not any(interval.values()) else _interval(interval)


def _interval(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return "too few items"
    return f"{interval['mean']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f})"


def _words(name: str) -> str:
    return name.replace("_", " ")


# ----------------------------------------------------------------------------------------------------------
# Answers side by side


def _examples(answered: Sequence[Answered]) -> list[Example]:
    questions: dict[str, dict[str, list[Answered]]] = {}
    for each in answered:
        questions.setdefault(each.task.subject, {}).setdefault(each.task.question, []).append(each)
    return [
        _example(subject, which, modes)
        for subject, asked in questions.items()
        for which, modes in _telling(list(asked.values())).items()
    ]


def _telling(questions: Sequence[Sequence[Answered]]) -> dict[str, Sequence[Answered]]:
    """The question that the candidate answers best beside the base model, and the one that it answers worst."""
    ranked = sorted(questions, key=lambda modes: -sum(map(_lead, modes)))
    return {"best beside the base": ranked[0], **({"worst beside the base": ranked[-1]} if len(ranked) > 1 else {})}


def _lead(each: Answered) -> float:
    name, grade = next(iter(each.task.grades.items()))
    lead = grade(each.said[CANDIDATE]) - grade(each.said[BASE])
    return -lead if name in LOWER_IS_BETTER else lead


def _example(subject: str, which: str, modes: Sequence[Answered]) -> Example:
    task = modes[0].task
    before = [Text("Asked", task.question)]
    if task.selection is not None:
        before.append(Text("After these lines", task.selection.text))
    before.append(Text("Wanted", task.wanted))
    labels = [label for label in _LABELS if label in modes[0].said]
    rows = {MODES[each.mode]: [(_remark(each, label), each.said[label]) for label in labels] for each in modes}
    return Example(f"{_words(subject).capitalize()}, {which}", tuple(before), tuple(labels), rows)


def _remark(each: Answered, label: str) -> str:
    checked = each.checked[label]
    parts = [f"{_words(name)} {grade(each.said[label]):.2g}" for name, grade in each.task.grades.items()]
    if each.span_shown is not None:
        parts.append("span was in the prompt" if each.span_shown else "span was not in the prompt")
    faults = {"goes round in circles": checked.loops, "empty": checked.empty, "no end": checked.endless}
    parts += [fault for fault, there in faults.items() if there]
    if checked.unknown and not each.task.general:
        parts.append(f"names that exist nowhere: {', '.join(checked.unknown[:5])}")
    return "; ".join(parts)
