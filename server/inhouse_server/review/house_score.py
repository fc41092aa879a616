"""Which score of lines a review remarks by, and what it says about that. No model: every review reads this."""

from __future__ import annotations

HOUSE_SCORE: str | None = None
"""The score that was above base surprisal on repositories that it was not chosen on; none so far: docs/review.md."""


def house_score_notes(score: str | None) -> tuple[str, ...]:
    """What a review says about the house score: nothing while it is off.

    One that is on stays silent until it has a threshold of the repository's own, since a threshold of another would
    promise something about false alarms that nobody measured.
    """
    if score is None:
        return ()
    return (
        f"The house score ({score}) is silent: it is not calibrated on this repository's own history; "
        "`inhouse eval review --lines` says what one alarm in so many lines is here.",
    )
