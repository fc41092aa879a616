"""Process start of `inhouse lsp` to its reply to `initialize`, with an owner running and with none.

python benchmarks/initialize.py [REPOSITORY] [--against CHECKOUT] [--times 15]

Wall time, and the CPU time of the process until it has answered, which other work of the machine distorts less. With
``--against``, the code of another checkout of inhouse is timed in turn with this one's, run by run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from inhouse_server.cli.backend import locate
from inhouse_server.owner import ensure_owner, stop_owner

REQUEST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}}}).encode()
INHOUSE = Path(sys.executable).with_name("inhouse")
HERE = Path(__file__).parent.parent


def once(root: Path, checkout: Path) -> tuple[float, float]:
    """``(wall, CPU)`` of one start, in milliseconds; the process is killed once it has answered."""
    packages = os.pathsep.join(str(checkout / folder) for folder in ("retrieval", "training", "server"))
    started = time.perf_counter()
    editor = subprocess.Popen(
        [INHOUSE, "lsp", "--repo", root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": packages},
    )
    assert editor.stdin and editor.stdout
    editor.stdin.write(b"Content-Length: %d\r\n\r\n" % len(REQUEST) + REQUEST)
    editor.stdin.flush()
    assert editor.stdout.readline().startswith(b"Content-Length"), "no answer"
    elapsed = time.perf_counter() - started
    editor.kill()
    _, status, used = os.wait4(editor.pid, 0)
    editor.returncode = os.waitstatus_to_exitcode(status)
    editor.stdin.close()
    editor.stdout.close()
    return elapsed * 1000, (used.ru_utime + used.ru_stime) * 1000


def show(name: str, values: list[tuple[float, float]]) -> None:
    parts = [
        f"{what} median {statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})"
        for what, times in zip(("wall", "CPU"), zip(*values, strict=True), strict=True)
    ]
    print(f"{name}: {', '.join(parts)}, n={len(values)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path, nargs="?", default=Path())
    parser.add_argument("--against", type=Path)
    parser.add_argument("--times", type=int, default=15)
    given = parser.parse_args()
    root, _, state_dir = locate(given.repository)
    checkouts = {"this checkout": HERE}
    if given.against:
        checkouts[str(given.against)] = given.against.resolve()
    for checkout in checkouts.values():
        once(root, checkout)  # compiles it
    for situation, running in (("owner running", True), ("no owner running", False)):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
        for _ in range(given.times):
            for name, checkout in checkouts.items():
                if running:
                    ensure_owner(root, 60)
                else:
                    stop_owner(state_dir)
                times[name].append(once(root, checkout))
        for name, values in times.items():
            show(f"{situation}, {name}", values)
    stop_owner(state_dir)


if __name__ == "__main__":
    main()
