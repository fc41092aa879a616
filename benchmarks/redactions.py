"""What would be redacted in a folder: how many lines, of which kinds, how fast, and each with its text, to be judged.

``python benchmarks/redactions.py FOLDER`` prints what it takes for secrets, so run it on public text only.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from inhouse_retrieval import redact
from inhouse_retrieval.reading import NotText, decode, reason_by_name, reason_by_size


def main(folder: Path) -> None:
    files = lines = characters = 0
    seconds = 0.0
    kinds: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith(".") or reason_by_name(name) or reason_by_size(path.stat().st_size):
            continue
        try:
            text = decode(name, path.read_bytes())
        except NotText:
            continue
        began = time.perf_counter()
        _, found = redact(text)
        seconds += time.perf_counter() - began
        files, lines, characters = files + 1, lines + text.count("\n") + 1, characters + len(text)
        kinds.update(each.kind for each in found)
        for each in found:
            print(f"{name}:{each.line}: {each.kind}: {text.split(chr(10))[each.line - 1].strip()[:150]}")
    print(f"{files} files, {lines} lines, {characters} characters in {seconds:.2f} s: {kinds.total()} {dict(kinds)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
