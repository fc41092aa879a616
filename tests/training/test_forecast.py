"""The dry run: every recipe is planned, memory agrees with what was measured, what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inhouse_retrieval import InhouseError, Repository
from inhouse_server.cli.plan import forecast_lines
from inhouse_training import BaseModel, Recipe, load_recipe, named_card, open_run, plan_retraining, with_forecast
from inhouse_training.finetune import unsloth_installed
from inhouse_training.forecast import RowCount, compiles, forecast_training
from inhouse_training.machines import CARDS, Machine, this_machine
from inhouse_training.memory import (
    GIB,
    Conditions,
    Shape,
    checkpointed_share,
    checkpointing_of,
    predict_memory,
    shape_of,
)
from inhouse_training.recipe import recipe_names
from inhouse_training.retrain import retrain

MISTRAL, SMOLLM = "mistralai/Mistral-7B-Instruct-v0.2", "SmolLM2-135M-Instruct"
TWO_CORES = Machine("2 cores", False, 24 * GIB, 0.1)
ROWS = RowCount(100, 50_000, 40_000)


def elsewhere(name: str) -> BaseModel:
    """A base model that is not on this machine."""
    return BaseModel(name, Path(), "", "")


def changed(recipe: str, **sections: dict[str, Any]) -> Recipe:
    loaded = load_recipe(recipe)
    update = {name: getattr(loaded, name).model_copy(update=values) for name, values in sections.items()}
    return loaded.model_copy(update=update)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_planned(name: str, history: Repository, base_model: BaseModel, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    base = base_model if recipe.base_model == base_model.name else elsewhere(recipe.base_model)
    run = open_run(history, tmp_path, recipe, base)
    plan = plan_retraining(history, tmp_path, recipe, base)
    machine = TWO_CORES if name == "cpu-trial" else named_card("h100")
    told = with_forecast(plan, run, history, tmp_path, recipe, base, machine, price=2.79, here=False)
    assert told.decision == "train", told.reasons
    forecast = told.forecast
    assert forecast is not None and forecast.rows is not None and forecast.memory is not None
    assert 0 < forecast.rows.label_tokens <= forecast.rows.tokens
    assert forecast.passes is not None and forecast.tokens == forecast.passes * forecast.rows.tokens
    assert forecast.steps and forecast.seconds and forecast.cost
    assert 0 < forecast.memory.total <= machine.memory
    assert (f"Counted with the tokenizer of {SMOLLM}" in forecast.rows.remark) == (base is not base_model)
    assert ("not counted" in forecast.rows.remark) == (recipe.data.replay_share > 0)
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(
    ("rank", "tokens", "checkpointing", "trainer", "measured"),
    # One H100, a 7B model in bf16: the trainers by themselves, without CUDA's context. TRL's with the adapter in bf16.
    [
        (768, 8192, True, "trl", 31.3),
        (768, 8192, True, "unsloth", 45.4),
        (64, 8192, True, "trl", 18.0),
        (64, 8192, True, "unsloth", 18.1),
        (64, 4096, False, "trl", 39.1),
    ],
)
def test_memory_on_a_gpu_is_what_was_measured(
    rank: int, tokens: int, checkpointing: bool, trainer: str, measured: float
) -> None:
    shape = shape_of(elsewhere(MISTRAL))
    assert shape is not None
    settings = {"checkpointing": "full" if checkpointing else "none", "load_in_4bit": False}
    lora = {"rank": rank, "dtype": "bfloat16" if trainer == "trl" else "float32"}
    recipe = changed("article", lora=lora, data={"max_tokens": tokens}, trainer=settings)
    memory = predict_memory(shape, recipe, Conditions(True, trainer, 79 * GIB))
    assert (memory.total - memory.overhead) / GIB == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(("rank", "measured"), [(64, 51.7), (768, 64.5)])
def test_memory_of_compiled_layers_is_what_was_measured(rank: int, measured: float) -> None:
    # One H100, rows of 8,192 tokens, no layer computed again, adapter in bf16: benchmarks/training_throughput.py.
    shape = shape_of(elsewhere(MISTRAL))
    assert shape is not None
    lora = {"rank": rank, "dtype": "bfloat16"}
    recipe = changed("article", lora=lora, trainer={"checkpointing": "none", "load_in_4bit": False})
    memory = predict_memory(shape, recipe, Conditions(True, "trl", 79 * GIB, compiled=True))
    assert (memory.total - memory.overhead) / GIB == pytest.approx(measured, rel=0.07)


def kept_for_backward(shape: Shape, rank: int, tokens: int, dtype: str) -> int:
    """Bytes that torch keeps between the passes, beside the parameters, as TRL trains on a GPU: a bf16 base under
    autocast. Which tensors those are does not depend on the machine."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=None,
    )
    base = MistralForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    lora = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora, autocast_adapter_dtype=dtype == "float32").train()
    parameters = {weights.untyped_storage().data_ptr() for weights in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    row = torch.arange(tokens)[None] % shape.vocabulary
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=row, labels=row, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_what_an_adapter_in_float32_keeps_more_is_counted() -> None:
    shape, rank, tokens = Shape(64, 160, 2, 32, 320, False), 16, 96
    recipes = {
        dtype: changed(
            "article",
            lora={"rank": rank, "dtype": dtype},
            data={"max_tokens": tokens},
            trainer={"checkpointing": "none", "load_in_4bit": False},
        )
        for dtype in ("float32", "bfloat16")
    }
    predicted = {
        dtype: predict_memory(shape, each, Conditions(True, "trl", 79 * GIB)) for dtype, each in recipes.items()
    }
    kept = {dtype: kept_for_backward(shape, rank, tokens, dtype) for dtype in recipes}
    more = kept["float32"] - kept["bfloat16"]
    # The embeddings have no gradient, so the first matrices of the first layer's q, k and v need no copy.
    first = 3 * rank * shape.hidden * 2
    assert more == predicted["float32"].activations - predicted["bfloat16"].activations - first
    parameters = shape.adapter_parameters(recipes["float32"])
    assert predicted["float32"].adapter == 16 * parameters == 2 * predicted["bfloat16"].adapter


def test_at_the_articles_learning_rate_most_updates_vanish_in_bfloat16() -> None:
    # Why the adapter is in float32 unless the recipe says otherwise.
    import torch

    def trained(dtype: torch.dtype, rate: float) -> tuple[float, float]:
        """Part of the last of five updates that changed nothing; what is left of the second moment after 500 steps
        without a gradient."""
        torch.manual_seed(1)
        matrix = torch.nn.Linear(4096, 64, bias=False, dtype=dtype)  # drawn as PEFT draws the adapter's first matrix
        optimizer = torch.optim.AdamW(matrix.parameters(), lr=rate, weight_decay=0.0)
        for _ in range(5):
            before = matrix.weight.detach().clone()
            matrix.weight.grad = torch.randn_like(matrix.weight)
            optimizer.step()
        lost = float((matrix.weight == before).float().mean())
        moment = optimizer.state[matrix.weight]["exp_avg_sq"]
        first = float(moment.float().sum())
        matrix.weight.grad = torch.zeros_like(matrix.weight)
        for _ in range(500):
            optimizer.step()
        return lost, float(moment.float().sum()) / first

    lost, left = trained(torch.float32, 2e-5)
    assert lost < 0.01 and left == pytest.approx(0.999**500, rel=1e-3)
    lost, left = trained(torch.bfloat16, 2e-5)
    assert lost == pytest.approx(0.82, abs=0.03) and left == 1
    assert trained(torch.bfloat16, 1.5e-4)[0] == pytest.approx(0.2, abs=0.03)


def test_layers_are_compiled_where_that_pays() -> None:
    shape, h100 = shape_of(elsewhere(MISTRAL)), named_card("h100")
    packed = changed("default-7b", trainer={"packing": True, "compile": "auto"})
    long, short = 20_000_000, 2_000_000
    assert compiles(packed, shape, long, h100, "trl") and not compiles(packed, shape, short, h100, "trl")
    # Unsloth has kernels of its own; rows of many lengths are compiled only when that is asked for.
    assert not compiles(packed, shape, long, h100, "unsloth")
    loose = changed("default-7b", trainer={"packing": False, "compile": "auto"})
    assert not compiles(loose, shape, long, h100, "trl")
    assert not compiles(packed, shape, long, TWO_CORES, "trl")
    assert not compiles(packed, None, long, h100, "trl") and not compiles(packed, shape, None, h100, "trl")
    always = changed("default-7b", trainer={"packing": False, "compile": True})
    never = changed("default-7b", trainer={"compile": False})
    assert compiles(always, shape, None, h100, "trl") and not compiles(never, shape, long, h100, "trl")
    # What compiled layers need less of is predicted: less is computed again.
    many = RowCount(1000, long, long)
    settings = {"kind": "trl", "packing": True}
    with_it, without = (
        forecast_training(
            changed("article", trainer={**settings, "compile": compiled, "load_in_4bit": False}),
            elsewhere(MISTRAL),
            many,
            named_card("h200"),
        )
        for compiled in ("auto", False)
    )
    assert with_it.memory is not None and without.memory is not None
    assert with_it.memory.total < without.memory.total


@pytest.mark.parametrize(
    ("rank", "dtype", "card", "expected"),
    [
        (64, "bfloat16", "h100", "none"),
        (64, "float32", "h100", "selective"),
        (768, "bfloat16", "h100", "selective"),
        (768, "float32", "h100", "full"),
        (64, "float32", "a100-40gb", "full"),
        (768, "bfloat16", "a100-40gb", "full"),
    ],
)
def test_layers_are_computed_again_only_where_memory_asks_for_it(
    rank: int, dtype: str, card: str, expected: str
) -> None:
    shape, machine = shape_of(elsewhere(MISTRAL)), named_card(card)
    lora = {"rank": rank, "dtype": dtype}
    recipe = changed("article", lora=lora, trainer={"load_in_4bit": False})
    assert recipe.trainer.checkpointing == "auto"
    assert checkpointing_of(shape, recipe, Conditions(True, "trl", machine.memory)) == expected
    # Unsloth knows none and all; of an unknown shape nothing is predicted.
    assert checkpointing_of(shape, recipe, Conditions(True, "unsloth", machine.memory)) in ("none", "full")
    assert checkpointing_of(None, recipe, Conditions(True, "trl", machine.memory)) == "full"
    # What is asked for is done, whatever it takes, and the forecast tells what that is.
    peaks = []
    for asked in ("none", "selective", "full"):
        explicit = changed("article", lora=lora, trainer={"load_in_4bit": False, "checkpointing": asked})
        assert checkpointing_of(shape, explicit, Conditions(True, "trl", machine.memory)) == asked
        assert shape is not None
        peaks.append(predict_memory(shape, explicit, Conditions(True, "trl", machine.memory)).total)
    assert peaks == sorted(peaks, reverse=True)
    chosen = ("none", "selective", "full").index(expected)
    assert predict_memory(shape, recipe, Conditions(True, "trl", machine.memory)).total == peaks[chosen]
    assert checkpointed_share(32, "selective") == 0.5 and checkpointed_share(5, "selective") == 0.6


@pytest.mark.parametrize(("tokens", "measured"), [(768, 3.48), (256, 1.83)])
def test_memory_on_a_cpu_is_what_was_measured(tokens: int, measured: float) -> None:
    shape = shape_of(elsewhere(SMOLLM))
    assert shape is not None
    recipe = changed("cpu-trial", data={"max_tokens": tokens}, trainer={"checkpointing": "none"})
    memory = predict_memory(shape, recipe, Conditions(False, "trl", 0))
    assert memory.total / GIB == pytest.approx(measured, rel=0.1)


def test_the_table_of_shapes_agrees_with_the_model(base_model: BaseModel) -> None:
    assert shape_of(base_model) == shape_of(elsewhere(SMOLLM))
    assert shape_of(elsewhere("nobody/knows")) is None


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    article = changed("article", trainer={"load_in_4bit": False, "checkpointing": "full"})
    told = forecast_training(article, elsewhere(MISTRAL), ROWS, named_card("a100-40gb"))
    assert told.refusal.startswith(f"{MISTRAL} with the recipe article needs about 4")
    assert "With trainer.load_in_4bit = true it takes" in told.refusal and "would fit" in told.refusal
    assert "lora.rank = 64" in forecast_training(article, elsewhere(MISTRAL), ROWS, named_card("t4-16gb")).refusal
    tiny = Machine("a watch", False, GIB // 2, 0.001)
    assert (
        "No change of the recipe" in forecast_training(load_recipe("cpu-trial"), elsewhere(SMOLLM), ROWS, tiny).refusal
    )
    four_bit = forecast_training(load_recipe("small-gpu"), elsewhere(MISTRAL), ROWS, TWO_CORES)
    assert "needs a GPU" in four_bit.refusal


def test_what_training_would_refuse_is_refused_beforehand(
    history: Repository, base_model: BaseModel, tmp_path: Path
) -> None:
    def refusal(machine: Machine, base: BaseModel = base_model, **sections: dict[str, Any]) -> str:
        return forecast_training(changed("cpu-trial", **sections), base, ROWS, machine).refusal

    here, card = replace(TWO_CORES, measured=True), replace(named_card("h100"), measured=True)
    assert not refusal(here) and not refusal(named_card("h100"), trainer={"kind": "unsloth"})
    if not unsloth_installed():
        for machine in (here, card):
            assert refusal(machine, trainer={"kind": "unsloth"}).startswith("The recipe asks for Unsloth, which is not")
    assert "which needs a CUDA GPU" in refusal(here, trainer={"compile": True})
    assert "in bfloat16, which needs a CUDA GPU" in refusal(here, lora={"dtype": "bfloat16"})
    fast: dict[str, Any] = {"lora": {"dtype": "bfloat16"}, "trainer": {"compile": True}}
    assert not refusal(card, **fast)
    assert refusal(card, data={"max_tokens": 9000}) == (
        f"The recipe cpu-trial makes rows of up to 9000 tokens, and {SMOLLM} reads 8192. Lower data.max_tokens to 8192."
    )
    assert not refusal(card, data={"max_tokens": 8192})
    # Whether the base model is here or not; nothing is known of one that no table has.
    for base in (base_model, elsewhere(SMOLLM)):
        assert not refusal(here, base, lora={"targets": ("q_proj", "down_proj")})
        told = refusal(here, base, lora={"targets": ("q_proj", "nope", "proj")})
        assert told.startswith(f"The recipe cpu-trial names nope, proj in lora.targets, which {SMOLLM} does not have.")
        assert "down_proj" in told
    assert not refusal(here, elsewhere("nobody/knows"), lora={"targets": ("qkv_proj",)})
    assert not refusal(here, lora={"targets": ("self_attn.q_proj", "layers.3.mlp.up_proj", "lm_head")})


def test_unknown_targets_are_refused_before_anything_is_built(
    history: Repository, tiny_base: BaseModel, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    lora = tiny_recipe.lora.model_copy(update={"targets": ("nope",)})
    recipe = tiny_recipe.model_copy(update={"lora": lora})
    with pytest.raises(InhouseError, match=r"names nope in lora\.targets, which tiny does not have") as told:
        retrain(history, tmp_path, recipe, tiny_base)
    assert "q_proj" in told.value.remedy
    assert not list(tmp_path.rglob("dataset*"))


def test_the_articles_card_carries_its_recipe_in_four_bits_or_with_an_adapter_in_bfloat16() -> None:
    def refusal(card: str, lora: dict[str, Any], **settings: Any) -> str:
        recipe = changed("article", lora=lora, trainer=settings)
        return forecast_training(recipe, elsewhere(MISTRAL), ROWS, named_card(card)).refusal

    assert not refusal("a100-40gb", {})
    # TRL knows no 4 bit, and its adapter in float32 is 30 GiB with gradient and moments.
    assert "needs Unsloth" in refusal("a100-40gb", {}, kind="trl")
    told = refusal("a100-40gb", {}, kind="trl", load_in_4bit=False)
    assert "needs about 5" in told and "With lora.rank = 64 it takes" in told
    assert not refusal("h100", {}, kind="trl", load_in_4bit=False)
    assert not refusal("a100-40gb", {"dtype": "bfloat16"}, load_in_4bit=False)


def test_time_and_cost_rest_on_a_former_run_or_on_the_machine() -> None:
    recipe = changed("cpu-trial", data={"max_train_tokens": 0})
    told = forecast_training(recipe, elsewhere(SMOLLM), ROWS, TWO_CORES, 3.6, tokens_per_second=500)
    assert (told.passes, told.steps, told.tokens) == (3, 150, 150_000)
    assert "training: 3 passes, 150 steps, 150,000 tokens" in forecast_lines(told)
    assert "training: 1 pass, 150 steps, 150,000 tokens" in forecast_lines(replace(told, passes=1))
    assert told.seconds == 300 and told.cost == pytest.approx(0.3)
    assert "As fast as the last run here" in told.basis
    slower = forecast_training(recipe, elsewhere(SMOLLM), ROWS, TWO_CORES)
    assert slower.cost is None and slower.seconds is not None and "is from a table" in slower.basis
    unknown = forecast_training(recipe, elsewhere("nobody/knows"), ROWS, TWO_CORES)
    assert (unknown.memory, unknown.seconds, unknown.refusal) == (None, None, "")


def test_a_speed_of_an_h100_is_what_was_measured() -> None:
    # PEFT and Unsloth on a 7B model, rank 64 and 768: 9,178 and 7,727 tokens a second.
    for rank, measured in ((64, 9178), (768, 7727)):
        recipe = changed("article", lora={"rank": rank}, trainer={"load_in_4bit": False, "checkpointing": "full"})
        told = forecast_training(recipe, elsewhere(MISTRAL), ROWS, named_card("h100"))
        assert told.seconds is not None and told.tokens is not None
        assert told.tokens / told.seconds == pytest.approx(measured, rel=0.15)


def test_a_small_model_waits_for_its_kernels() -> None:
    # One H200, SmolLM2, 9 packed rows of 2,048 tokens in a batch: 67,000 tokens a second, compiled 105,000; 16 rows of
    # 500 tokens or so, filled up: 36,000.
    rows = RowCount(3_000, 1_500_000, 1_400_000)
    for packing, compiled, batch, measured in (
        (True, False, 9, 67_000),
        (True, True, 9, 105_000),
        (False, False, 16, 36_000),
    ):
        trainer = {"kind": "trl", "packing": packing, "compile": compiled}
        recipe = changed("gpu-trial", trainer=trainer, optimizer={"batch_rows": batch}, data={"max_train_tokens": 0})
        told = forecast_training(recipe, elsewhere(SMOLLM), rows, named_card("h200"))
        assert told.seconds is not None and told.tokens is not None
        assert told.tokens / told.seconds == pytest.approx(measured, rel=0.2)
        assert "so small a batch waits for its kernels" in told.basis


def test_machines_have_names_and_this_one_is_measured() -> None:
    with pytest.raises(InhouseError, match="no card called 'a100-40'") as told:
        named_card("a100-40")
    assert "a100-40gb" in told.value.remedy
    assert all(card.name == name for name, card in CARDS.items())
    here = this_machine()
    assert here.measured and here.memory > GIB and here.tflops > 0.001
