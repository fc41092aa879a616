"""Eight clients stream answers while versions are promoted and rolled back, one is damaged, and the owner is killed.

No answer fails, is mixed, or is cut and looks whole. What was in flight when the owner was killed is cut, and its
client is told so; what is asked afterwards is answered right.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from inhouse_retrieval import InhouseError
from inhouse_training import AdapterManifest, Registry, load_tokenizer, resolve_base_model

from ..training.adapters import random_adapter
from ..training.conftest import make_tiny
from .conftest import make_repository
from .swaps import CLIENTS, TOKENS, Load, Supervised, ask_streaming, client_of

log = logging.getLogger(__name__)
SWAPS, REQUESTS = 20, 1000


def make_house(folder: Path, weights: str, batched: str) -> tuple[Path, Registry, list[str]]:
    """A repository that a small random model answers for, with three adapters that are not promoted."""
    root = make_repository(folder / "shop")
    model = make_tiny(folder / "tiny", load_tokenizer(resolve_base_model()), initializer_range=0.2)
    # Without passages: those may change while the index grows, and the answer with them.
    (root / "inhouse.toml").write_text(
        f"base_model = '{model}'\n[answer]\npassages = 0\nmax_tokens = {TOKENS}\n"
        f"[engine]\nbatched = '{batched}'\nweights = '{weights}'\n"
    )
    base = resolve_base_model(str(model))
    registry = Registry(root / ".inhouse" / "adapters")
    manifest = AdapterManifest(base.name, base.sha256, "abc")
    versions = [
        registry.add(random_adapter(base, folder / f"made{rank}", r=rank), manifest).version for rank in (4, 8, 16)
    ]
    return root, registry, versions


def damage(registry: Registry, version: str) -> None:
    """Change one byte of its weights, as a disk may."""
    weights = registry.get(version).path / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("weights", "batched"), [("full", "off"), ("full", "on"), ("8bit", "on")])
def test_no_answer_suffers_from_swaps_a_damaged_version_and_a_killed_owner(
    tmp_path: Path, weights: str, batched: str
) -> None:
    root, registry, (first, second, damaged) = make_house(tmp_path, weights, batched)
    damage(registry, damaged)
    with Supervised(root) as service:
        owner = service.address()
        load = Load(root, owner)
        client = client_of(owner)
        for model in (first, second, "base"):
            answer = ask_streaming(client, model)
            assert (answer.error, answer.ended) == ("", "length")
            load.expected[answer.adapter] = answer.text
        assert set(load.expected) == {first, second, None}
        assert len(set(load.expected.values())) == 3, "mixed answers could not be told"
        began = time.monotonic()
        with load:
            for swap in range(SWAPS):
                # first, second, back to first, back to the base, and so on.
                if swap % 4 < 2:
                    registry.promote((first, second)[swap % 4])
                else:
                    registry.rollback()
                if swap == SWAPS // 4:
                    current = registry.current()
                    with pytest.raises(InhouseError, match=f"{damaged} is damaged"):
                        registry.promote(damaged)
                    assert registry.current() == current, "what serves goes on"
                    refused = ask_streaming(client, damaged)
                    assert "is damaged" in refused.error and not refused.text and refused.ended is None
                if swap == SWAPS // 2:
                    cut = load.kill(service)
                    assert cut.text and cut.error and cut.ended is None, "its client sees that it is not whole"
                load.wait_for(REQUESTS * (swap + 1) // SWAPS)
        seconds = time.monotonic() - began
    told = "weights %s, batched %s: %d right, %d cut by the kill, %d wrong, %.0f s; by version %s"
    log.info(told, weights, batched, load.answered, len(load.cut) + 1, len(load.wrong), seconds, dict(load.right))
    assert load.wrong == [], load.expected
    assert len(load.cut) <= CLIENTS and all(answer.error for answer in load.cut)
    assert set(load.right) == {first, second, None} and min(load.right.values()) >= REQUESTS // 10
