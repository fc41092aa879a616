"""Process start of `inhouse lsp` to its reply to `initialize`, with no owner running and with one.

python benchmarks/initialize.py [REPOSITORY]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from inhouse_server.cli.backend import locate
from inhouse_server.owner import ensure_owner, stop_owner

REQUEST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}}}).encode()


def once(root: Path) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "inhouse_server.cli", "lsp", "--repo", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as editor:
        assert editor.stdin and editor.stdout
        editor.stdin.write(b"Content-Length: %d\r\n\r\n" % len(REQUEST) + REQUEST)
        editor.stdin.flush()
        editor.stdout.readline()
        elapsed = (time.perf_counter() - started) * 1000
        editor.kill()
    return elapsed


def main() -> None:
    root, _, state_dir = locate(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    for name, running in (("no owner running", False), ("owner running and warm", True)):
        times = []
        for _ in range(5):
            if running:
                ensure_owner(root, 60)
                time.sleep(12 if not times else 0)
            else:
                stop_owner(state_dir)
            times.append(once(root))
        print(f"{name}: median {statistics.median(times):.0f} ms, range {min(times):.0f} to {max(times):.0f} ms, n=5")
    stop_owner(state_dir)


if __name__ == "__main__":
    main()
