"""How many planted convention breaks the rules of the house reviewer find, and how often they remark on other lines.

    python benchmarks/planted_by_rules.py CLONE [--requests 300] [--at SNAPSHOT] [--exclude PATTERN …]

The breaks and the untouched lines are those of `house_score.py prepare` with the same arguments; the rules
(`import-spelling`, `name-style` and `error-type`) know the snapshot only. A break counts as found when a remark stands
at its line. No model, no GPU; a minute or two for each repository.

Imports and names are broken only where the house has a habit, which is what these rules look for, so that the share of
those says that nothing gets lost on the way rather than how many breaks of real life would be found.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from inhouse_retrieval import Repository
from inhouse_server.review.change import Change
from inhouse_server.review.conventions import Conventions
from inhouse_server.review.house import spelling_findings
from inhouse_server.review.line_measurement import house_names
from inhouse_server.review.planted import PlantedBreak, planted_breaks
from inhouse_server.review.wanting import after_for, judged_changes


def places(change: Change, conventions: Conventions) -> set[tuple[str, int]]:
    """Where the rules remark on a change."""
    findings, _ = spelling_findings(change, conventions)
    return {(finding.path, finding.start_line) for finding in findings}


def broken(change: Change, planted: PlantedBreak) -> Change:
    """The change with one line broken, its other files left out."""
    file = next(file for file in change.files if file.path == planted.path)
    text = "".join(line + "\n" for line in planted.lines)
    return replace(change, files=(replace(file, new_text=text),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--at")
    parser.add_argument("--exclude", nargs="*", default=[".yarn/releases"])
    arguments = parser.parse_args()
    repository = Repository.open(arguments.clone).excluding(arguments.exclude)
    snapshot = repository.commit_id(arguments.at) if arguments.at else after_for(repository, arguments.requests)
    judged = judged_changes(repository, snapshot, arguments.requests).changes
    house = house_names(repository, snapshot)
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    alarms = lines = 0
    for each in judged:
        untouched = {(path, number) for path, numbers in each.lines.items() for number in numbers}
        before = places(each.change, house.conventions)
        lines += len(untouched)
        alarms += len(before & untouched)
        for one in planted_breaks(each, house):
            place = (one.path, one.number)
            planted[one.kind] += 1
            found[one.kind] += place not in before and place in places(broken(each.change, one), house.conventions)
    told = {"snapshot": snapshot, "planted": planted, "found": found, "alarms": alarms, "untouched_lines": lines}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
