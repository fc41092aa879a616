"""What a retrieval benchmark measured, as Markdown and as one HTML file with a plot."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from inhouse_retrieval.benchmark import Benchmark, RerankerGain, Score

_SHOWN = ("R@1", "R@5", "R@10", "R@20", "MRR", "nDCG@10", "hit@10", "all@10")
_PLOTTED = ("R@10", "MRR", "hit@10")
_NOTE = (
    "R@k: share of the changed files among the first k; all@10: all of them are; hit@10: one of them is. "
    "Intervals: 95 %, bootstrap over queries."
)


def write_benchmark_report(measured: Benchmark, name: str, folder: Path) -> Path:
    """Write ``retrieval.md``, ``retrieval.svg`` and ``retrieval.html`` into ``folder``; returns the HTML file."""
    plot = folder / "retrieval.svg"
    _plot(measured, plot)
    rows = table(measured)
    title = f"Retrieval on {name} at {measured.snapshot[:12]}"
    facts = _facts(measured)
    markdown = [f"# {title}", "", *(f"- {fact}" for fact in facts), "", *_markdown_table(rows), "", _NOTE, ""]
    markdown += [f"![Retrieval by leg]({plot.name})", ""]
    (folder / "retrieval.md").write_text("\n".join(markdown), encoding="utf-8")
    page = folder / "retrieval.html"
    page.write_text(_html(title, facts, rows, plot.read_bytes()), encoding="utf-8")
    return page


def table(measured: Benchmark) -> list[list[str]]:
    """Head and one row per rung, as text."""
    rows = [["legs", *_SHOWN, "ms p50", "ms p95"]]
    for rung, scores in measured.scores.items():
        middle, late = measured.milliseconds[rung]
        rows.append([rung, *(_figure(scores[name]) for name in _SHOWN), f"{middle:.0f}", f"{late:.0f}"])
    return rows


def _figure(score: Score) -> str:
    return f"{score.mean:.3f} ({score.low:.3f}-{score.high:.3f})"


def _facts(measured: Benchmark) -> list[str]:
    gain = measured.gains["R@10"]
    left_out = ", ".join(f"{count} {reason}" for reason, count in measured.left_out.items()) or "none"
    asked = "title and description" if measured.with_description else "title"
    return [
        f"{measured.queries} queries: the {asked} of later changes; to be found: the files that each changed.",
        f"Left out: {left_out}.",
        f"{measured.files} files, {measured.chunks} chunks, indexed in {measured.index_seconds} s "
        "(less where vectors were kept).",
        f"R@10 of all legs over dense alone: {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}).",
        *([f"The reranker {reranker_line(measured.reranker)}."] if measured.reranker is not None else []),
    ]


def reranker_line(gain: RerankerGain) -> str:
    """``wins, R@10 +0.012 (…), MRR +0.034 (…), with 100 % of its passages scored in time``, after "The reranker"."""
    figures = [f"{name} {_signed(gain.gains[name])}" for name in ("R@10", "MRR")]
    return f"{gain.verdict}; {', '.join(figures)}; {gain.scored:.0%} of its passages were scored in time"


def _signed(score: Score) -> str:
    return f"{score.mean:+.3f} ({score.low:+.3f} to {score.high:+.3f})"


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _html(title: str, facts: Sequence[str], rows: Sequence[Sequence[str]], plot: bytes) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for row, tag in zip(rows, ["th", *["td"] * (len(rows) - 1)], strict=True)
    )
    points = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    image = base64.b64encode(plot).decode("ascii")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>'
        "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;display:block;overflow-x:auto;font-variant-numeric:tabular-nums}"
        "td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:right;white-space:nowrap}"
        "td:first-child,th:first-child{text-align:left}img{max-width:100%}</style></head>"
        f"<body><h1>{html.escape(title)}</h1><ul>{points}</ul><table>{cells}</table><p>{html.escape(_NOTE)}</p>"
        f'<img alt="Retrieval by leg" src="data:image/svg+xml;base64,{image}"></body></html>\n'
    )


def _plot(measured: Benchmark, path: Path) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # No pyplot: it keeps state for the whole process and looks for a display.
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    width = 0.8 / len(_PLOTTED)
    for number, name in enumerate(_PLOTTED):
        scores = [each[name] for each in measured.scores.values()]
        places = [at + (number - (len(_PLOTTED) - 1) / 2) * width for at in range(len(scores))]
        below = [score.mean - score.low for score in scores]
        above = [score.high - score.mean for score in scores]
        heights = [score.mean for score in scores]
        axes.bar(places, heights, width * 0.92, yerr=[below, above], capsize=2, label=name)
    axes.set(title="What each leg adds", ylim=(0, 1))
    axes.set_xticks(range(len(measured.scores)), list(measured.scores))
    axes.legend(loc="lower right")
    figure.savefig(path, format="svg", metadata={"Date": None})
