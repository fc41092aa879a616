"""One base model in memory for several repositories: real adapters, each for the repository whose registry has it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from threading import Event

import pytest

from inhouse_retrieval import InhouseError
from inhouse_server.engines.shared import BaseModels, RepositoryEngine
from inhouse_server.lending import SteppedAside
from inhouse_training import (
    BASE,
    AdapterManifest,
    BaseModel,
    GenerationRequest,
    Message,
    Registry,
    TextDelta,
    Weights,
    load_tokenizer,
    resolve_base_model,
)

from ..training.adapters import random_adapter
from ..training.conftest import make_tiny

ASKED = (Message("user", "When do couriers come?"),)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = make_tiny(
        tmp_path_factory.mktemp("tiny") / "tiny", load_tokenizer(resolve_base_model()), initializer_range=0.2
    )
    return resolve_base_model(str(folder))


def registry_with(base: BaseModel, folder: Path, *ranks: int) -> tuple[Registry, list[str]]:
    registry, manifest = Registry(folder / "adapters"), AdapterManifest(base.name, base.sha256, "abc")
    adapters = [random_adapter(base, folder / f"made{rank}", r=rank) for rank in ranks]
    return registry, [registry.add(adapter, manifest).version for adapter in adapters]


def says(engine: RepositoryEngine, adapter: str) -> str:
    events = engine.stream(GenerationRequest(ASKED, adapter, max_tokens=12), Event())
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_repositories_with_one_base_model_share_it(base: BaseModel, tmp_path: Path) -> None:
    models = BaseModels(64)
    one = models.engine(str(base.path), "one", Registry(tmp_path / "one"))
    other = models.engine(str(base.path), "other", Registry(tmp_path / "other"))
    assert one._model is other._model
    elsewhere = shutil.copytree(base.path, tmp_path / "another-base")
    assert models.engine(str(elsewhere), "third", Registry(tmp_path / "third"))._model is not one._model


def test_what_they_share_is_lent_as_a_whole(base: BaseModel, tmp_path: Path) -> None:
    models = BaseModels(64)
    one = models.engine(str(base.path), "one", Registry(tmp_path / "one"))
    told, held = says(one, BASE), one.held_memory()
    assert held.model > 0
    models.lending.lend("a-retraining", 42, 60)
    deadline = time.monotonic() + 60
    while not (models.lending.status() or {}).get("aside"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert one.held_memory().model == 0
    for _ in ("one", "other"):
        with pytest.raises(SteppedAside), models.lending.use():
            pass
    models.lending.take_back("a-retraining")
    with models.lending.use():
        assert says(models.engine(str(base.path), "one", models._registries["one"]), BASE) == told


@pytest.mark.parametrize("weights", ["full", "8bit"])
def test_an_adapter_answers_for_its_own_repository_alone(base: BaseModel, tmp_path: Path, weights: Weights) -> None:
    models = BaseModels(64)
    mine, (first, second) = registry_with(base, tmp_path / "shop", 4, 8)
    theirs, (third,) = registry_with(base, tmp_path / "harbour", 16)
    shop = models.engine(str(base.path), "shop", mine, weights=weights)
    harbour = models.engine(str(base.path), "harbour", theirs, weights=weights)
    assert shop.weights == weights
    plain, answers = says(shop, BASE), [says(shop, first), says(harbour, third), says(shop, second)]
    assert len({plain, *answers}) == 4, "mixed answers could not be told"
    assert (set(shop.loaded_adapters), harbour.loaded_adapters) == ({first, second}, (third,))
    for engine, stranger in (
        (shop, third),
        (harbour, first),
        (harbour, f"shop/{first}"),
        (harbour, f"../shop/{first}"),
    ):
        with pytest.raises(InhouseError):
            says(engine, stranger)
    assert [says(shop, BASE), says(shop, first), says(harbour, third), says(shop, second)] == [plain, *answers]


@pytest.mark.parametrize("weights", ["full", "8bit"])
def test_a_version_that_two_repositories_have_is_looked_up_in_each(
    base: BaseModel, tmp_path: Path, weights: Weights
) -> None:
    models = BaseModels(64)
    mine, (version,) = registry_with(base, tmp_path / "shop", 4)
    theirs, (same,) = registry_with(base, tmp_path / "harbour", 4)
    assert version == same, "named by content"
    shop = models.engine(str(base.path), "shop", mine, weights=weights)
    harbour = models.engine(str(base.path), "harbour", theirs, weights=weights)
    assert says(shop, version)
    (theirs.root / version / "adapter_model.safetensors").write_bytes(b"no weights")
    assert harbour.loaded_adapters == ()
    with pytest.raises(InhouseError, match="is damaged"):
        says(harbour, version)


def test_weights_that_no_repository_uses_any_more_are_let_go(base: BaseModel, tmp_path: Path) -> None:
    models = BaseModels(64)
    of_shop, of_harbour = registry_with(base, tmp_path / "shop", 4)[0], registry_with(base, tmp_path / "harbour", 8)[0]
    shop = models.engine(str(base.path), "shop", of_shop, weights="8bit")
    harbour = models.engine(str(base.path), "harbour", of_harbour, weights="8bit")
    told = says(harbour, BASE)
    models.engine(str(base.path), "shop", of_shop, weights="full")
    assert [each.weights for each in models._loaded.values()] == ["8bit", "full"]
    assert says(harbour, BASE) == told, "the other one goes on"
    models.engine(str(base.path), "harbour", of_harbour, weights="full")
    assert [each.weights for each in models._loaded.values()] == ["full"]
    assert shop.held_memory().model == 0
