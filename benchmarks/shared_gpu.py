"""A retraining on the GPU of an owner that answers there: what each holds, who waits for whom, and for how long.

    python benchmarks/shared_gpu.py --base FOLDER --out FILE   # on a machine with one CUDA GPU
    python benchmarks/shared_gpu.py --base FOLDER --out FILE --pretend   # on processors, with made-up figures

An owner serves a small repository that is made for this, with the base model in FOLDER. The rest of the card is filled
by this process, so far that training does not fit beside the owner and does fit once it has stepped aside. Then

- ``retraining``: one is run to its end;
- ``killed``: another, by another recipe, is ended by SIGKILL while it trains.

All the while the owner is asked a short question twice a second, and the card is asked what is in use. The retraining
is the product's own, in a process of its own. With ``--pretend`` what is free is told to it, and nothing is filled.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any

SOURCES = [str(Path(__file__).resolve().parents[1] / each) for each in ("retrieval", "training", "server")]
sys.path[:0] = SOURCES
os.environ["PYTHONPATH"] = os.pathsep.join([*SOURCES, os.environ.get("PYTHONPATH", "")])

PATIENCE_S = 600.0
EVERY_S = 0.5
GIB = 2**30
RECIPE = """
base_model = "any"
seed = {seed}
[data]
max_tokens = {tokens}
max_train_tokens = {budget}
[lora]
rank = 16
alpha = 16
[optimizer]
learning_rate = 1e-4
max_passes = 20
batch_rows = {rows}
[trainer]
kind = "trl"
checkpointing = "full"
checkpoint_seconds = 3600
[evaluation]
scored_tokens = 256
probe_questions = 4
probe_tokens = 32
"""
NOUNS = ("invoice", "payment", "refund", "basket", "voucher", "delivery", "address", "parcel")


def make_repository(root: Path, base: Path, changes: int) -> None:
    """A repository whose every change adds one handler in the house style."""
    root.mkdir()
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]

    def git(*arguments: str) -> None:
        subprocess.run(["git", *author, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch", "main")
    (root / "inhouse.toml").write_text(f"base_model = {json.dumps(str(base))}\n[answer]\npassages = 0\n")
    (root / ".gitignore").write_text("inhouse.toml\n")
    for number in range(changes):
        noun = f"{NOUNS[number % len(NOUNS)]}_{number}"
        text = f'async def update_{noun}(request, ledger):\n    """Update one {noun}, as every handler here does."""\n'
        text += f'    {noun} = await load_for_update(request, "{noun}")\n    {noun}.apply(request.changes)\n'
        text += f'    await ledger.record(request.actor, "{noun}.update", {noun}.identifier)\n    return {noun}\n'
        (root / f"{noun}.py").write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "--message", f"Let clerks update a {noun}")


def retrain(root: Path, recipe: str, pretended: int) -> int:
    """Be the retraining: the command's own, told what is free where ``pretended`` says it."""
    from inhouse_retrieval import InhouseError
    from inhouse_server.cli.room import RoomForTraining
    from inhouse_server.cli.training_job import training_job
    from inhouse_training import Device
    from inhouse_training.retrain import retrain

    def told(stage: str, done: int, total: int | None) -> None:
        print(json.dumps({"stage": stage, "done": done}), flush=True)

    def measure() -> tuple[Device, ...]:
        return (Device("a card that is not there", "", 16 * GIB, pretended),)

    job = training_job(root, recipe, told, "retrain")
    room = RoomForTraining(job.state_dir, job.recipe, job.base, True, told, measure if pretended else None)
    try:
        with room:
            result = retrain(job.repository, job.state_dir, job.recipe, job.base, told, job.retrieval, room.make)
    except InhouseError as error:
        print(json.dumps({"stage": f"failed: {error}", "done": 0}), flush=True)
        return 1
    print(json.dumps({"stage": "ended", "done": 0, "decision": result.decision}), flush=True)
    return 0


class Watched:
    """The card and the owner, looked at all the while."""

    def __init__(self, address: Any, in_use: Callable[[], int]) -> None:
        self._address = address
        self._in_use = in_use
        self.began = time.monotonic()
        self.samples: list[tuple[float, int]] = []  # seconds, bytes in use
        self.answers: list[tuple[float, int]] = []  # seconds, status of a question that was asked then

    def now(self) -> float:
        return time.monotonic() - self.began

    def look(self) -> None:
        self.samples.append((self.now(), self._in_use()))

    def owner_memory(self) -> dict[str, Any]:
        """What the owner says that it holds, once its model is there."""
        import httpx

        told = httpx.get(f"{self._address.url}/inhouse/memory", headers=self._headers, timeout=PATIENCE_S)
        memory: dict[str, Any] = told.json()
        return memory

    def owner_holds(self) -> float:
        """GiB of the owner's model."""
        return float(self.owner_memory()["model"]) / GIB

    def ask(self) -> int:
        import httpx

        question = {"model": "inhouse", "messages": [{"role": "user", "content": "Who updates a voucher?"}]}
        at = self.now()
        answer = httpx.post(
            f"{self._address.url}/v1/chat/completions",
            json={**question, "max_tokens": 8},
            headers=self._headers,
            timeout=PATIENCE_S,
        )
        self.answers.append((at, answer.status_code))
        return answer.status_code

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._address.token}"}

    def most(self, since: float, until: float) -> int:
        return max((used for at, used in self.samples if since <= at <= until), default=self._in_use())

    def first(self, status: int, since: float) -> float:
        """When a question was first answered so after ``since``."""
        return next((at for at, told in self.answers if at >= since and told == status), nan)

    @contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()

        def repeat(act: Callable[[], object], every: float) -> None:
            while not over.wait(every):
                act()

        threads = [threading.Thread(target=repeat, args=each) for each in ((self.look, 0.1), (self.ask, EVERY_S))]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


@contextmanager
def owner_of(root: Path) -> Iterator[Any]:
    """A running owner's address."""
    from inhouse_server.owner import find_owner

    command = [sys.executable, "-m", "inhouse_server.cli", "serve", "--repo", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + PATIENCE_S
        while (found := find_owner(root / ".inhouse")) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("The owner did not come up.")
            time.sleep(0.1)
        try:
            yield found
        finally:
            process.terminate()


def run(watched: Watched, root: Path, recipe: Path, pretended: int, kill: bool) -> dict[str, Any]:
    """One retraining beside the watched owner, killed in its training if asked; its moments and figures."""
    command = [sys.executable, __file__, "--retrain", str(root), str(recipe), str(pretended)]
    started, moments, decision = watched.now(), dict[str, float](), ""
    model_before = watched.owner_holds()
    model_meanwhile = nan
    with watched.watching():
        watched.look()
        before = watched.samples[-1][1]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                decision = said.get("decision", decision)
                if said["stage"].startswith("failed"):
                    raise SystemExit(said["stage"])
                if said["stage"] not in moments:
                    print(f"{watched.now() - started:7.1f} s  {said['stage']}", file=sys.stderr, flush=True)
                    moments[said["stage"]] = watched.now()
                if said["stage"] == "training" and said["done"] >= 1 and isnan(model_meanwhile):
                    model_meanwhile = watched.owner_holds()
                    if kill:
                        process.send_signal(signal.SIGKILL)
                        break
        ended = watched.now()
        deadline = time.monotonic() + PATIENCE_S
        while isnan(watched.first(200, ended)):
            if time.monotonic() > deadline:
                raise SystemExit("The owner did not come back.")
            time.sleep(0.1)
        time.sleep(1)
        watched.look()
    trains, judges = moments.get("training", ended), moments.get("evaluating", ended)
    return {
        "way": "killed" if kill else "retraining",
        "decision": "killed by SIGKILL" if kill else decision,
        "model_gib": [round(each, 2) for each in (model_before, model_meanwhile, watched.owner_holds())],
        "in_use_gib": {
            "before": round(before / GIB, 2),
            "least": round(min(used for at, used in watched.samples if at >= started) / GIB, 2),
            "training": round(watched.most(trains, judges) / GIB, 2),
            "judging": None if kill else round(watched.most(judges, ended) / GIB, 2),
            "after": round(watched.samples[-1][1] / GIB, 2),
        },
        "seconds": {
            "until_503": round(watched.first(503, started) - started, 1),
            "stepping_aside": round(moments["loading the model"] - moments.get("waiting for answers to end", nan), 1),
            "until_training": round(trains - started, 1),
            "training": round(judges - trains, 1),
            "judging": None if kill else round(ended - judges, 1),
            "until_answered_again": round(watched.first(200, ended) - ended, 1),
        },
        "answers": {str(status): sum(told == status for at, told in watched.answers if at >= started)
                    for status in sorted({told for _, told in watched.answers})},
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> str:
    """The figures of the runs as Markdown."""
    lines = ["| | " + " | ".join(each["way"] for each in runs) + " |", "|---|" + "---|" * len(runs)]

    def row(name: str, values: list[Any]) -> None:
        lines.append(f"| {name} | " + " | ".join("" if value is None else str(value) for value in values) + " |")

    row("came to", [each["decision"] for each in runs])
    for at, name in enumerate(("before", "while it trains", "afterwards")):
        row(f"the owner's model, {name} (GiB)", [each["model_gib"][at] for each in runs])
    for part in ("in_use_gib", "seconds", "answers"):
        title = {"in_use_gib": "in use on the card, {} (GiB)", "seconds": "{} (s)", "answers": "answers with {}"}[part]
        for key in dict.fromkeys(key for each in runs for key in each[part]):
            row(title.format(key.replace("_", " ")), [each[part].get(key) for each in runs])
    return "\n".join(lines)


def tight(base: Any, recipe: Any, card: Any, told: dict[str, Any]) -> int:
    """The most bytes that may stay free of ``card`` so that an owner that holds what it ``told`` has to step aside."""
    from inhouse_training import HeldMemory, Owner, plan_room

    owner = Owner(told["pid"], HeldMemory(told["device"], told["held"], told["model"]))
    for free in range(card.total, 0, -max(told["model"] // 8, 1)):
        if plan_room(recipe, base, (replace(card, free=free),), owner).decision == "step aside":
            return free
    raise SystemExit("The owner's model is too small to make the room that training takes: raise --rows.")


def fill(keep: int) -> Any:
    """A tensor that leaves so many bytes of the card free."""
    import torch

    torch.zeros(1, device="cuda")  # the context comes first
    free, _ = torch.cuda.mem_get_info()
    return torch.empty(max(0, free - keep), dtype=torch.uint8, device="cuda")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="the folder of a base model")
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    parser.add_argument("--pretend", action="store_true", help="without a GPU: the figures of memory are made up")
    parser.add_argument("--tokens", type=int, default=1024, help="of a row")
    parser.add_argument("--rows", type=int, default=8, help="in a step")
    parser.add_argument("--budget", type=int, default=400_000, help="tokens that are trained on")
    parser.add_argument("--changes", type=int, default=60, help="of the repository's history")
    parser.add_argument("--retrain", nargs=3, metavar=("ROOT", "RECIPE", "FREE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.retrain:
        root, recipe, pretended = arguments.retrain
        return retrain(Path(root), recipe, int(pretended))
    if arguments.base is None:
        parser.error("--base is needed")
    import torch

    from inhouse_training import Device, load_recipe, resolve_base_model

    base = resolve_base_model(str(arguments.base.resolve()))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        root, recipes = Path(scratch) / "shop", [Path(scratch) / f"{seed}.toml" for seed in (1, 2)]
        for seed, path in enumerate(recipes, start=1):
            sizes = {"tokens": arguments.tokens, "rows": arguments.rows, "budget": arguments.budget}
            path.write_text(RECIPE.format(seed=seed, **sizes))
        make_repository(root, arguments.base.resolve(), arguments.changes)
        with owner_of(root) as address:
            pretend = arguments.pretend
            total = 16 * GIB if pretend else torch.cuda.get_device_properties(0).total_memory
            watched = Watched(address, (lambda: 0) if pretend else (lambda: total - torch.cuda.mem_get_info()[0]))
            watched.ask()
            runs = []
            for path, kill in zip(recipes, (False, True), strict=True):
                # Anew for each: an owner that came back takes of what is free then.
                told = watched.owner_memory()
                card = Device("this card", told["device"], total, total)
                keep = tight(base, load_recipe(str(path)), card, told)
                model = told["model"] / GIB
                print(f"The owner's model holds {model:.2f} GiB; {keep / GIB:.2f} stay free.", file=sys.stderr)
                filled = None if pretend else fill(keep)
                runs.append(run(watched, root, path, keep if pretend else 0, kill))
                del filled
                torch.cuda.empty_cache()
    name = "processors, with made-up figures" if arguments.pretend else torch.cuda.get_device_name(0)
    figures = {"device": name, "torch": torch.__version__, "base": base.name, "runs": runs}
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"{name}, torch {torch.__version__}\n\n{table(runs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
