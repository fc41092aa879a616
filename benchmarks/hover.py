"""How long a hover takes: 200 names of a repository that have a definition, through `inhouse lsp` and the owner.

    inhouse index --repo REPOSITORY
    python benchmarks/hover.py REPOSITORY

Names are drawn at random from its files, each hovered once; those that the repository does not define are told apart.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from inhouse_retrieval import Repository, name_at
from inhouse_server.cli.backend import locate
from inhouse_server.framing import FrameReader, frame
from inhouse_server.owner import stop_owner

HOVERS = 200


class Client:
    """An editor on the relay's stdio that waits for each answer."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "inhouse_server.cli", "lsp", "--repo", str(root)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._frames = FrameReader()
        self._asked = 0

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(frame(json.dumps({"jsonrpc": "2.0", **message}).encode()))

    def request(self, method: str, params: Any) -> Any:
        assert self.process.stdout is not None
        self._asked += 1
        self.send({"id": self._asked, "method": method, "params": params})
        while data := self.process.stdout.read(1 << 16):
            for body in self._frames.feed(data):
                answer = json.loads(body or b"{}")
                if answer.get("id") == self._asked and "method" not in answer:
                    return answer["result"]
        raise RuntimeError("the relay has ended")


def names(root: Path, seed: int) -> list[tuple[str, str, int, int]]:
    """``(path, text, row, column)`` of names in the repository's files, shuffled; few of each file."""
    chance = random.Random(seed)
    repository = Repository.open(root)
    found = []
    for file in repository.work_tree().files:
        read = repository.read_current(file.path)
        lines = read[1].split("\n") if isinstance(read, tuple) else []
        for _ in range(10):
            row = chance.randrange(len(lines) or 1)
            column = chance.randrange(len(lines[row]) or 1) if lines else 0
            if lines and name_at(file.path, "\n".join(lines), row, column) is not None:
                found.append((file.path, "\n".join(lines), row, column))
    chance.shuffle(found)
    return found


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = [round(each * 1000, 1) for each in sorted(seconds)]
    return {"n": len(ordered), "p50_ms": statistics.median(ordered), "p95_ms": ordered[int(len(ordered) * 0.95)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    root, _, state_dir = locate(arguments.repository)
    drawn = names(root, arguments.seed)
    client = Client(root)
    client.request("initialize", {"capabilities": {"general": {"positionEncodings": ["utf-32"]}}})
    client.send({"method": "initialized", "params": {}})
    while not client.request("inhouse/status", None)["model_loaded"]:
        time.sleep(0.2)
    shown: list[float] = []
    nothing: list[float] = []
    without_change = 0
    for path, text, row, column in drawn:
        document = {"uri": (root / path).as_uri(), "languageId": "", "version": 1, "text": text}
        client.send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        asked = {"textDocument": document, "position": {"line": row, "character": column}}
        client.request("inhouse/status", None)  # the document is open, which is not the hover's time
        started = time.perf_counter()
        answer = client.request("textDocument/hover", asked)
        (shown if answer else nothing).append(time.perf_counter() - started)
        without_change += answer is not None and "ast changed by" not in answer["contents"]["value"]
        client.send({"method": "textDocument/didClose", "params": {"textDocument": document}})
        if len(shown) == HOVERS:
            break
    client.process.kill()
    stop_owner(state_dir)
    print(json.dumps({"shown": spread(shown), "without_change": without_change, "nothing": spread(nothing)}, indent=1))


if __name__ == "__main__":
    main()
