"""Differences with their intervals as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ALONE, _WITH_PASSAGES = "#cc7733", "#3366aa"


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One line of the plot: a mean difference and its 95 % interval, right of zero when it is for the better."""

    name: str
    with_passages: bool
    mean: float
    low: float
    high: float


def plot_intervals(rows: Sequence[IntervalRow], unit: str, path: Path) -> None:
    """A point and a line for each row, the first on top, as SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # No pyplot: it keeps state for the whole process and looks for a display.
    figure = Figure(figsize=(9, 1 + 0.27 * len(rows)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for colour, shown in ((_WITH_PASSAGES, True), (_ALONE, False)):
        places = [-at for at, row in enumerate(rows) if row.with_passages == shown]
        chosen = [row for row in rows if row.with_passages == shown]
        means = [row.mean for row in chosen]
        # A mean outside of its own bootstrap interval is possible where the items are few.
        below = [max(0.0, row.mean - row.low) for row in chosen]
        above = [max(0.0, row.high - row.mean) for row in chosen]
        axes.errorbar(means, places, xerr=[below, above], fmt="o", color=colour, capsize=3, markersize=4)
    axes.axvline(0, color="#999999", lw=0.8)
    axes.set_yticks([-at for at in range(len(rows))], [row.name for row in rows], fontsize=8)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.set_xlabel(unit)
    figure.savefig(path, format="svg", metadata={"Date": None})
