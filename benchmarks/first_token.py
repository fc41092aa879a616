"""Time to the first token of a warm question, its prompt near 2,000 tokens, and the owner's resident memory.

    python benchmarks/first_token.py [REPOSITORY]

Starts an owner for the repository (this one by default), asks once to warm up and five times to measure, each time
another question so that no cache helps. Prints median and range.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path

import httpx

from inhouse_server.cli.backend import OwnerBackend, locate
from inhouse_server.owner import ensure_owner, stop_owner

QUESTIONS = (
    "How does the owner process start?",
    "How are adapters promoted and rolled back?",
    "How is a chunk cut from a file?",
    "How does the language server cancel an answer?",
    "Where is the gate's decision made?",
    "How is a dataset split by time?",
)


def main() -> None:
    root, _, state_dir = locate(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    stop_owner(state_dir)
    os.environ |= {"INHOUSE_ANSWER_PASSAGES": "25", "INHOUSE_ANSWER_MAX_TOKENS": "24"}
    owner = ensure_owner(root, 60)
    try:
        finals = [
            [event for event in OwnerBackend(owner).ask(q, "current") if isinstance(event, dict)][-1] for q in QUESTIONS
        ]
        pid = httpx.get(f"{owner.url}/healthz").json()["pid"]
        memory = int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    finally:
        stop_owner(state_dir)
    timings = [final["timings"] for final in finals[1:]]
    first = [timing["first_token_ms"] / 1000 for timing in timings]
    tokens = [timing["prompt_tokens"] for timing in timings]
    print(f"adapter {finals[0]['provenance']['adapter']}; prompts of {min(tokens)} to {max(tokens)} tokens")
    print(f"first token: median {statistics.median(first):.2f} s, range {min(first):.2f} to {max(first):.2f} s, n=5")
    print(f"owner, peak resident memory: {memory:.2f} GiB")


if __name__ == "__main__":
    main()
