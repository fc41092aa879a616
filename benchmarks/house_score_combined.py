"""Whether all scores of lines together tell more than what the base model and the length of a line tell.

    python benchmarks/house_score_combined.py OUT [--json FILE]

``OUT`` is what `house_score.py run` wrote for several repositories. Two logistic regressions are fitted on all of them
but one, and judged on that one, in turn: of what needs no house (base surprisal as a mean, as a sum and at its largest
token, that over tokens of conventions, the length), and of that with the scores of the house. Pull requests with both
kinds of line count alike. A score enters as the share of its repository's lines that lie below.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from house_score import read_values
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from inhouse_server.review.line_evaluation import ScoredLines, as_text, evaluate_scores, table, together
from inhouse_server.review.line_scores import BASE_SURPRISAL, Floats

NO_HOUSE = (
    BASE_SURPRISAL, "length in tokens", "base surprisal, total", "base surprisal, largest token",
    "base surprisal, conventions",
)  # fmt: skip
HOUSE = (
    "tuned surprisal", "largest single-token difference", "margin", "house margin", "tuned surprisal, conventions",
    "house margin, conventions", "base surprisal below precedents", "tuned surprisal below precedents",
)  # fmt: skip
"""Residuals and differences are sums of these."""
BASE_AND_LENGTH, WITH_HOUSE = "base and length", "base, length and house"


def features(lines: ScoredLines, names: Sequence[str]) -> Floats:
    """One row a line."""
    return np.stack([lines.values[name] for name in names], axis=1)


def weights(lines: ScoredLines) -> Floats:
    """Of each line, such that both kinds of a pull request, and all pull requests with both, weigh the same."""
    found = np.zeros(len(lines.wanting))
    for request in np.unique(lines.requests):
        inside = lines.requests == request
        kinds = [inside & lines.wanting, inside & ~lines.wanting]
        if all(kind.any() for kind in kinds):
            for kind in kinds:
                found[kind] = 1 / kind.sum()
    return found


def fitted(parts: Sequence[ScoredLines], names: Sequence[str]) -> LogisticRegression:
    """The regression on these repositories."""
    weight = np.concatenate([weights(part) for part in parts])
    rows = np.concatenate([features(part, names) for part in parts])[weight > 0]
    wanting: NDArray[np.bool_] = np.concatenate([part.wanting for part in parts])[weight > 0]
    return LogisticRegression(max_iter=500).fit(rows, wanting, sample_weight=500 * weight[weight > 0])


def judged(held: dict[str, ScoredLines], names: Sequence[str]) -> dict[str, Floats]:
    """For each repository what the regression on all others makes of its lines."""
    return {
        name: fitted([part for other, part in held.items() if other != name], names).predict_proba(
            features(lines, names)
        )[:, 1]
        for name, lines in held.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    # As shares of those that lie below, which makes repositories comparable.
    held = {file.stem: together([read_values(file).lines]) for file in sorted(arguments.out.glob("*.npz"))}
    plain, house = judged(held, NO_HOUSE), judged(held, (*NO_HOUSE, *HOUSE))
    results: dict[str, Any] = {}
    for reference in (BASE_SURPRISAL, BASE_AND_LENGTH):
        parts = []
        for name, lines in held.items():
            values = {BASE_AND_LENGTH: plain[name], WITH_HOUSE: house[name]}
            against = lines.values[BASE_SURPRISAL] if reference == BASE_SURPRISAL else plain[name]
            parts.append(ScoredLines(lines.requests, lines.wanting, {BASE_SURPRISAL: against, **values}))
        found = evaluate_scores(together(parts))
        results[f"over {reference}"] = found.to_json()
        print(f"each repository by the others; gains over {reference}, the first row:")
        print(as_text(table(found)))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
