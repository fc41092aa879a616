"""Many short answers of a real owner over HTTP: its memory does not grow.

SOAK_REQUESTS says how many; 50,000 without it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .soak import Soak, held, tiny_house, tiny_owner

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "50000"))
GROWTH = 0.05


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("requests", [400, pytest.param(REQUESTS, marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_answers(shop: Path, tmp_path: Path, requests: int) -> None:
    with tiny_owner(tiny_house(shop, tmp_path / "tiny")) as (owner, pid):
        host, port = owner.url.removeprefix("http://").split(":")
        soak = Soak(host, int(port), owner.token)
        seconds = soak.ask(requests // 10)  # what is first asked for loads
        early = late = held(pid)
        print(f"\n{requests // 10} questions: {seconds:.0f} s, {early}", flush=True)  # noqa: T201
        step = min(1000, requests // 10)
        for asked in range(requests // 10 + step, requests + 1, step):
            seconds += soak.ask(step)
            late = held(pid)
            growth = late.resident / early.resident - 1
            print(f"{asked}: {seconds:.0f} s, {growth:+.2%}, {late}", flush=True)  # noqa: T201
    assert late.resident < early.resident * (1 + GROWTH)
    assert late.files <= early.files + 4 and late.threads <= early.threads + 4
    log = (shop / ".inhouse" / "logs" / "owner.log").read_text(encoding="utf-8")
    assert "Traceback" not in log, log[-4000:]
