"""A threshold for a repository's own code, so that it means "one false alarm in N changed lines".

The scores are those of lines that landed after the adapter's snapshot: what it was trained on it knows by heart, and a
threshold over that would be far too low. Used only where a house score is on (see docs/review.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LINES_PER_ALARM = 200
LEAST_ALARMS = 5
"""A threshold rests on at least so many lines above it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is worth a remark in one repository.

    Attributes:
        threshold: a line is remarked on when its score is above; ``None``: no line is.
        lines: landed lines that it rests on.
        needed: how many it takes.
        lines_per_alarm: the promise: at most one of so many of these lines is above.
    """

    threshold: float | None
    lines: int
    needed: int
    lines_per_alarm: int

    def is_remarkable(self, score: float) -> bool:
        """Whether a line of this score is worth a remark."""
        return self.threshold is not None and score > self.threshold

    @property
    def says(self) -> str:
        """One sentence for whoever asks why there is no remark, or how often there is one."""
        if self.threshold is None:
            return (
                f"The house score is silent: {self.lines} lines landed after the adapter's snapshot, and {self.needed} "
                f"are needed to know what one alarm in {self.lines_per_alarm} lines is."
            )
        return f"A remark on at most one of {self.lines_per_alarm} lines, as measured on {self.lines} that landed."


def calibrate(scores: NDArray[np.float64], lines_per_alarm: int = LINES_PER_ALARM) -> Calibration:
    """The threshold that at most one in ``lines_per_alarm`` of these lines is above.

    Args:
        scores: of lines that landed after the snapshot, whatever became of them since.
    """
    needed = LEAST_ALARMS * lines_per_alarm
    if len(scores) < needed:
        return Calibration(None, len(scores), needed, lines_per_alarm)
    return Calibration(threshold(scores, lines_per_alarm), len(scores), needed, lines_per_alarm)


def threshold(scores: NDArray[np.float64], lines_per_alarm: int) -> float:
    """The lowest score that at most one in ``lines_per_alarm`` of these are above; equal ones are all above or none."""
    alarms = len(scores) // lines_per_alarm
    return float(np.sort(scores)[::-1][alarms]) if alarms < len(scores) else float("-inf")
