"""How much memory `inhouse dataset build` takes, by the size of the repository.

    python benchmarks/dataset_memory.py [--tokens 1000000 4000000] [--folder FOLDER]
    python benchmarks/dataset_memory.py --build CLONE

For each size a made-up repository is written: files of about 1,500 tokens of Python, no two alike, and a few small
changes to hold out. Its dataset is built with the recipe `gpu-trial`, without replay and without a budget, in a process
of its own, whose peak memory is told, and what of it is memory of its own (the rest are pages of files). Each file is
read twice: as text, and as the answer to a question about it; tokens count both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

FILE_TOKENS = 1500
_LINE_TOKENS = 15
_SYLLABLES = ("ka", "lo", "mi", "ran", "te", "su", "vor", "nel", "pa", "dri", "go", "fen")
_STAMP = 1_760_000_000


def made_up_file(number: int) -> str:
    draw = random.Random(number)

    def name() -> str:
        return "_".join("".join(draw.choices(_SYLLABLES, k=2)) for _ in range(2))

    lines = []
    for _ in range(FILE_TOKENS // _LINE_TOKENS // 5):
        first, second = name(), name()
        lines += [f"def {name()}({first}, {second}):", f"    {name()} = {first}.{name()}({draw.randrange(9999)})"]
        lines += [
            f"    if {second} in {name()}:",
            f'        raise {name()}("{name()} {name()}")',
            f"    return {first}",
            "",
        ]
    return "\n".join(lines) + "\n"


def made_up_history(files: int) -> Iterator[bytes]:
    """What `git fast-import` reads: one large commit, then twelve small ones."""
    who = f"Ada <ada@example.org> {_STAMP}"
    yield f"commit refs/heads/main\ncommitter {who} +0000\ndata 6\nImport\n".encode()
    for number in range(files):
        content = made_up_file(number).encode()
        yield f"M 100644 inline area{number % 97}/module{number}.py\ndata {len(content)}\n".encode() + content + b"\n"
    for number in range(12):
        content = made_up_file(files + number).encode()
        title = f"Change {number}"
        when = f"Ada <ada@example.org> {_STAMP + 86_400 * (number + 1)}"
        yield f"commit refs/heads/main\ncommitter {when} +0000\ndata {len(title)}\n{title}\n".encode()
        yield f"M 100644 inline late/module{number}.py\ndata {len(content)}\n".encode() + content + b"\n"


def make_repository(root: Path, tokens: int) -> None:
    root.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main"], cwd=root, check=True)
    with subprocess.Popen(["git", "fast-import", "--quiet"], cwd=root, stdin=subprocess.PIPE) as git:
        assert git.stdin is not None
        for part in made_up_history(tokens // FILE_TOKENS // 2):
            git.stdin.write(part)
        git.stdin.close()
    assert git.returncode == 0


def build(root: Path) -> None:
    """In the child: build the dataset, and print what it took."""
    from inhouse_retrieval import Repository
    from inhouse_training import load_recipe, load_tokenizer, resolve_base_model
    from inhouse_training.cut import cut_repository
    from inhouse_training.dataset import build_dataset

    recipe = load_recipe("gpu-trial")
    data = recipe.data.model_copy(update={"max_train_tokens": 0, "replay_share": 0.0})
    recipe = recipe.model_copy(update={"data": data})
    repository = Repository.open(root)
    tokenizer = load_tokenizer(resolve_base_model())
    cut = cut_repository(repository, recipe)
    own = [0]
    threading.Thread(target=_watch, args=(own,), daemon=True).start()
    began, used = time.monotonic(), time.process_time()
    dataset = build_dataset(repository, tokenizer, recipe, cut, root / "dataset")
    seconds, cpu = time.monotonic() - began, time.process_time() - used
    tokens = sum(kind["read"] for kind in dataset.manifest["tokens"].values())
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    print(
        json.dumps(
            {"tokens": tokens, "rows": dataset.manifest["rows"], "peak_mb": peak // 1024, "own_mb": own[0] // 1024,
             "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
        )
    )  # fmt: skip


def _watch(most: list[int]) -> None:
    while True:
        status = Path("/proc/self/status").read_text()
        most[0] = max(most[0], int(re.search(r"RssAnon:\s+(\d+)", status)[1]))
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--folder", type=Path, help="where the repositories are written; a temporary one by default")
    parser.add_argument("--build", type=Path, help="build the dataset of this repository, in `dataset` there")
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.build)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for tokens in arguments.tokens:
            root = Path(folder) / str(tokens)
            make_repository(root, tokens)
            subprocess.run([sys.executable, __file__, "--build", str(root)], check=True, env=os.environ)


if __name__ == "__main__":
    main()
