"""The report of a sweep: every trial in a table, and each setting against the score, as in the article."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation import WITH_RETRIEVAL
from ..gate import MAX_FORGETTING
from ..kinds import KINDS
from ..recipe import Recipe
from ..report_page import Page, Table, write_page

if TYPE_CHECKING:
    from .job import SweepResult, TrialResult

_AXES = {
    "learning_rate": "learning rate",
    "rank": "rank",
    "alpha": "alpha / rank",
    "batch": "rows in a step",
    "mix": "mix",
}
_COLOURS = {"finished": "#3366aa", "pruned": "#bbbbbb"}


def write_report(result: SweepResult, recipe: Recipe) -> Path:
    """Write ``report.html``, ``report.md`` and their plot into the sweep's folder; returns the HTML file."""
    plot = result.plan.directory / "trials.svg"
    _plot(result, plot)
    title = f"Sweep of {recipe.name}: trial {result.best} is the best of {len(result.trials)}"
    page = Page(
        title, sweep_reasons(result), _summary(result, recipe), {"Trials": plot}, [_table(result), _mixes(result)]
    )
    return write_page(page, result.plan.directory)


def sweep_reasons(result: SweepResult) -> list[str]:
    """What a sweep came to, in sentences."""
    best = next(trial for trial in result.trials if trial.tried.number == result.best)
    assert best.leg is not None
    gain, way = best.leg.score.gain, "with" if result.mode == WITH_RETRIEVAL else "without"
    told = [
        f"Trial {result.best} gains most over the base model {way} retrieval: {gain.mean:+.3f} nats per token "
        f"(95 % interval {gain.low:+.3f} to {gain.high:+.3f}).",
    ]
    if result.over_own is not None:
        over = result.over_own
        told.append(
            f"On the changes that chose it, it is ahead of the recipe as it was by {over.mean:+.3f} nats per token "
            f"(95 % interval {over.low:+.3f} to {over.high:+.3f}, which does not allow for its being the best of "
            f"{len(result.trials)})."
        )
    told.append(
        f"{result.scored} changes chose it, so it looks better on them than it is. `inhouse retrain "
        f"--recipe {result.recipe.name}` judges it by {result.plan.judging} later changes, which no trial saw."
    )
    return [*told, *result.plan.space.left_out]


def _summary(result: SweepResult, recipe: Recipe) -> list[tuple[str, str]]:
    states = [trial.tried.state for trial in result.trials]
    seconds = sum(trial.leg.seconds for trial in result.trials if trial.leg is not None)
    space = result.plan.space
    return [
        ("Recipe", f"{recipe.name}, for {recipe.base_model}"),
        ("Snapshot", f"{result.plan.cut.snapshot[:12]} of {result.plan.cut.as_of:%Y-%m-%d}"),
        ("Trials", ", ".join(f"{states.count(state)} {state}" for state in ("finished", "pruned", "failed"))),
        ("Training", f"{seconds:,.0f} s in all trials"),
        ("Ranks", ", ".join(map(str, space.ranks))),
        ("Learning rates", f"{space.learning_rates[0]:.2g} to {space.learning_rates[1]:.2g}"),
    ]


def _table(result: SweepResult) -> Table:
    def order(trial: TrialResult) -> tuple[bool, float]:
        return trial.tried.state != "finished", -(trial.tried.gain if trial.tried.gain is not None else -9e9)

    rows = []
    for trial in sorted(result.trials, key=order):
        choice, leg = trial.tried.choice, trial.leg
        shown = [
            f"{trial.tried.number}{' (best)' if trial.tried.number == result.best else ''}",
            str(choice["rank"]),
            f"{choice['rank'] * choice['alpha']:.0f}",
            f"{choice['learning_rate']:.3g}",
            str(choice["batch"]),
            str(choice["mix"]),
        ]
        if leg is None:
            rows.append((*shown, "", "", "", "", "", f"failed: {trial.tried.reason}"))
            continue
        gain, forgot = leg.score.gain, max(leg.score.forgot.values())
        state = trial.tried.state if trial.tried.state != "pruned" else f"given up after {leg.percent} %"
        if leg.score.excess > 0:
            state += ", forgot too much"
        figures = (f"{gain.mean:+.3f}", f"{gain.low:+.3f} to {gain.high:+.3f}", f"{forgot:+.3f}")
        rows.append((*shown, *figures, f"{leg.loss:.3f}", f"{leg.seconds:,.0f}", state))
    return Table(
        "Trials, best first",
        (
            "trial", "rank", "alpha", "learning rate", "rows in a step", "mix", "gain", "95 % interval", "forgot",
            "training loss", "s", "",
        ),
        tuple(rows),
        f"Gain: how much lower the loss is than the base model's, in nats per token, on {result.scored} changes "
        "after the snapshot; what chooses. Forgot: how much harder the worst kind of general text became; "
        f"above {MAX_FORGETTING:+.2f} the gate would reject it, so it is never the best. Training loss: told, and "
        "never chosen by.",
    )  # fmt: skip


def _mixes(result: SweepResult) -> Table:
    mixes = result.plan.space.mixes
    # Without a share of their own, pages, threads and written conversations have that of another kind, and no column.
    kinds = [kind for kind in KINDS if any(getattr(data, f"{kind}_share") for data in mixes.values())]
    rows = tuple((name, *(f"{data.shares[kind]:.0%}" for kind in kinds)) for name, data in mixes.items())
    return Table("Mixes (share of the learned tokens)", ("mix", *kinds), rows)


def _plot(result: SweepResult, path: Path) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasSVG(figure)
    places = figure.subplots(2, 3).ravel()
    scored = [trial for trial in result.trials if trial.leg is not None]
    low, high = result.plan.space.learning_rates
    places[0].set_xlim(low * 0.8, high * 1.25)
    for axes, (setting, label) in zip(places, _AXES.items(), strict=False):
        _draw(axes, scored, result.best, setting)
        axes.set(xlabel=label, ylabel="gain in nats per token")
    places[-1].axis("off")
    for state, colour in _COLOURS.items():
        places[-1].scatter([], [], color=colour, label="given up early" if state == "pruned" else state)
    places[-1].scatter([], [], color="#cc3311", marker="*", s=140, label="best")
    places[-1].legend(loc="center", frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw(axes: Any, scored: Sequence[TrialResult], best: int, setting: str) -> None:
    """One setting against the gain, each trial a point."""
    values = [trial.tried.choice[setting] for trial in scored]
    names = sorted(set(values)) if setting != "learning_rate" else []
    if setting == "learning_rate":
        axes.set_xscale("log")
        axes.minorticks_off()
    else:
        axes.set_xticks(range(len(names)), [f"{name:g}" if isinstance(name, float) else str(name) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
    for value, trial in zip(values, scored, strict=True):
        assert trial.leg is not None
        place = names.index(value) if names else value
        star = trial.tried.number == best
        axes.scatter(
            [place],
            [trial.leg.score.gain.mean],
            color="#cc3311" if star else _COLOURS.get(trial.tried.state, "#bbbbbb"),
            marker="*" if star else "o",
            s=140 if star else 30,
            zorder=3 if star else 2,
        )
    axes.axhline(0, color="#999999", lw=0.8)
