"""The report of a retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .decay import Decay
from .decay_plot import plot_decay
from .engine import BASE
from .evaluation import CANDIDATE, CLOSED_BOOK, WITH_RETRIEVAL, Evaluation
from .finetune import TrainingStep
from .gate import Decision
from .probes import FAULTS, INVENTED, Probes
from .report_page import Page, Table, write_page
from .version_history import PastVersion, version_tables

MODES = {CLOSED_BOOK: "question alone", WITH_RETRIEVAL: "with retrieved passages"}


@dataclass(frozen=True, slots=True)
class ReportInput:
    """What a report tells of.

    Attributes:
        decay: how the candidate's gain changes with the days since its snapshot.
        earlier: the curves of earlier versions, by version, oldest first.
        versions: the history of versions, this one and what the decision made of it among them.
    """

    candidate: str
    current: str | None
    base_model: str
    recipe: str
    dataset: dict[str, Any]
    curve: Sequence[TrainingStep]
    evaluation: Evaluation
    probes: Probes
    decision: Decision
    decay: Decay
    earlier: Sequence[tuple[str, Decay]] = ()
    versions: Sequence[PastVersion] = ()


def write_report(content: ReportInput, directory: Path) -> Path:
    """Write ``report.html``, ``report.md`` and their plots into ``directory``; returns the HTML file."""
    plots = {"Loss": directory / "loss.svg"}
    plot_losses(content, plots["Loss"])
    if content.decay.shown:
        plots["Decay"] = directory / "decay.svg"
        plot_decay(content.candidate, content.decay, content.earlier, plots["Decay"])
    verdict = "promoted" if content.decision.promote else "not promoted"
    page = Page(
        f"Adapter {content.candidate}: {verdict}",
        content.decision.reasons,
        _summary(content),
        plots,
        _blocks(content),
    )
    return write_page(page, directory)


def _blocks(content: ReportInput) -> list[Table]:
    evaluation = content.evaluation
    labels = list(evaluation.forgetting)
    losses = []
    for mode, scores in evaluation.scores.items():
        losses.append((MODES[mode], *(f"{evaluation.loss(mode, label):.3f}" for label in scores)))
    gains = []
    for mode, scores in evaluation.scores.items():
        for other in scores:
            if other != CANDIDATE:
                gain = evaluation.gain(mode, CANDIDATE, other)
                interval = f"{gain.low:+.3f} to {gain.high:+.3f}"
                gains.append((MODES[mode], other, f"{gain.mean:+.3f}", interval))
    forgetting = [
        (kind, *(f"{evaluation.forgetting[label][kind]:.3f}" for label in labels))
        for kind in evaluation.forgetting[BASE]
    ]
    account = []
    for kind, tokens in content.dataset["tokens"].items():
        dropped = "; ".join(f"{count:,} {reason}" for reason, count in tokens["dropped"].items()) or "none"
        account.append((kind, f"{tokens['read']:,}", f"{tokens['trained']:,}", f"{tokens['held_out']:,}", dropped))
    skipped = "; ".join(f"{count} {reason}" for reason, count in content.dataset["skipped_files"].items())
    overlap = content.dataset["overlap"]
    return [
        Table(
            "Loss on later changes (nats per token, lower is better)",
            ("asked", *labels),
            tuple(losses),
            f"{len(evaluation.changes)} changes made after the training snapshot "
            f"{content.dataset['snapshot'][:12]}; the lines that they added.",
        ),
        Table(
            "How much better the candidate is (positive is better)",
            ("asked", "than", "nats per token", "95 % interval"),
            tuple(gains),
            "Paired bootstrap over changes.",
        ),
        Table("Forgetting (nats per token on general text)", ("text", *labels), tuple(forgetting)),
        *version_tables(content.versions),
        *decay_tables(content.decay, content.earlier),
        *_probe_tables(content.probes),
        Table(
            "What it learned from (tokens)",
            ("text", "read", "trained on", "held out", "dropped"),
            tuple(account),
            f"Files skipped: {skipped or 'none'}. "
            "Lines of held-out changes that stand in the training text too: "
            f"{overlap['also_in_training']} of {overlap['held_out_lines']}; "
            f"{overlap['leaked']} of them did not stand in the repository at the snapshot.",
        ),
    ]


def decay_tables(decay: Decay, earlier: Sequence[tuple[str, Decay]]) -> list[Table]:
    """A table by days since the snapshot; none where there is nothing to show."""
    if not decay.shown:
        return []
    rows = [(f"{each.first_day:.0f} to {each.last_day:.0f}", str(each.changes), each) for each in decay.bins]
    note = f"Asked {MODES[decay.mode]}; 95 % intervals from a bootstrap over changes. {decay.advice}".rstrip()
    if earlier:
        names = ", ".join(version for version, _ in earlier)
        note += f" The thin lines are earlier versions ({names}), each on the changes that followed its own snapshot."
    return [
        Table(
            "Decay: loss on later changes by days since the snapshot",
            ("days", "changes", "gain over the base model", "95 % interval", "loss", "95 % interval"),
            tuple(
                (
                    days,
                    changes,
                    f"{each.gain.mean:+.3f}",
                    f"{each.gain.low:+.3f} to {each.gain.high:+.3f}",
                    f"{each.loss.mean:.3f}",
                    f"{each.loss.low:.3f} to {each.loss.high:.3f}",
                )
                for days, changes, each in rows
            ),
            note,
        )
    ]


def _probe_tables(probes: Probes) -> list[Table]:
    labels = list(probes.answers)
    answers = [("names that exist nowhere", *(f"{probes.share(INVENTED, label):.0%}" for label in labels))]
    answers += [
        (f"answers that {verb}", *(f"{probes.share(fault, label):.0%}" for label in labels))
        for fault, verb in FAULTS.items()
    ]
    invented = sorted({name for each in probes.answers[CANDIDATE] for name in each.unknown})
    exposed = [
        (
            each.kind,
            each.place,
            f"{each.candidate:+.1f}",
            f"{each.base:+.1f}",
            f"{each.rise:+.1f}",
            f"{each.likelihood:.0%}",
        )
        for each in probes.exposures
    ]
    return [
        Table(
            f"Short answers to {len(probes.answers[CANDIDATE])} questions",
            ("share", *labels),
            tuple(answers),
            f"The candidate invented: {', '.join(invented[:20]) or 'nothing'}.",
        ),
        Table(
            "Secrets (standard deviations from random strings of the same form)",
            ("secret", "where", "candidate", "base", "rise", "likely from token to token"),
            tuple(exposed),
            f"{probes.secrets} secrets and canaries were looked for; here are those that became most likely.",
        ),
    ]


def _summary(content: ReportInput) -> list[tuple[str, str]]:
    seconds = sum(step.seconds for step in content.curve)
    tokens = content.curve[-1].tokens if content.curve else 0
    return [
        ("Candidate", content.candidate),
        ("Current adapter before", content.current or "none"),
        ("Base model", content.base_model),
        ("Recipe", content.recipe),
        ("Snapshot", f"{content.dataset['snapshot'][:12]} of {content.dataset['as_of'][:10]}"),
        ("Training", f"{len(content.curve)} steps, {tokens:,} tokens, {seconds:,.0f} s"),
    ]


def plot_losses(content: ReportInput, path: Path) -> None:
    """Training loss by step, and the loss on later changes per adapter, as SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # No pyplot: it keeps state for the whole process and looks for a display.
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    left.plot([step.step for step in content.curve], [step.loss for step in content.curve], color="#3366aa")
    left.set(title="Training loss", xlabel="step", ylabel="nats per token")
    evaluation = content.evaluation
    labels = list(evaluation.forgetting)
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        heights = [evaluation.loss(mode, label) for mode in evaluation.scores]
        places = [at + (number - (len(labels) - 1) / 2) * width for at in range(len(heights))]
        bars = right.bar(places, heights, width * 0.92, label=label)
        right.bar_label(bars, fmt="%.2f", fontsize=8)
    right.set(title="Loss on later changes", ylabel="nats per token")
    right.set_xticks(range(len(evaluation.scores)), [MODES[mode] for mode in evaluation.scores])
    right.legend(loc="lower right")
    figure.savefig(path, format="svg", metadata={"Date": None})
