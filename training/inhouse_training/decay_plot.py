"""The decay curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .decay import Decay, DecayBin


def plot_decay(version: str, decay: Decay, earlier: Sequence[tuple[str, Decay]], path: Path) -> None:
    """Gain and loss against days, with 95 % intervals, as SVG; the gains of ``earlier`` versions as thin lines."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    for name, old in earlier:
        left.plot([_middle(each) for each in old.bins], [each.gain.mean for each in old.bins], lw=1, label=name)
    days = [_middle(each) for each in decay.bins]
    for axes, name, intervals in (
        (left, "gain", [each.gain for each in decay.bins]),
        (right, "loss", [each.loss for each in decay.bins]),
    ):
        below = [each.mean - each.low for each in intervals]
        above = [each.high - each.mean for each in intervals]
        means = [each.mean for each in intervals]
        axes.errorbar(days, means, yerr=[below, above], color="#3366aa", marker="o", capsize=3, label=version)
        title = "Gain over the base model" if name == "gain" else "Loss on later changes"
        axes.set(title=title, xlabel="days since the snapshot", ylabel="nats per token")
    left.axhline(0, color="#999999", lw=0.8)
    left.legend(loc="best", fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _middle(each: DecayBin) -> float:
    return (each.first_day + each.last_day) / 2
