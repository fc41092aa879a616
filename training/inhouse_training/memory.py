"""How much memory a run will take, predicted from the shape of the base model and the recipe.

The parts, with their sources:

- weights: 4 bytes a parameter on a CPU, 2 on a GPU; in 4 bit 0.516 for linear layers (NF4 with double quantisation,
  Dettmers et al., "QLoRA", 2023), while embeddings stay at 2.
- adapter: ``rank * (inputs + outputs)`` parameters for each target (Hu et al., "LoRA", 2021), each with its gradient
  and the two moments of AdamW, all as wide as the weight: 4 numbers of 4 bytes, or of 2 where the recipe's
  ``lora.dtype`` asks for bf16. With TRL on a GPU an adapter in float32 is multiplied in bf16, so a copy of it in bf16
  is there from the forward pass of a layer to its backward pass, and each target keeps a copy of its input of its own;
  ``tests/training/test_forecast.py`` counts what torch keeps. Compiled layers are taken to need neither: not measured.
- activations: what a layer keeps for its backward pass, counted tensor by tensor as in Korthikanti et al. ("Reducing
  Activation Recomputation in Large Transformer Models", 2022), for a gated MLP and an attention that keeps no scores.
  A layer that is checkpointed keeps its input only.
- logits: of a batch with their gradient, unless the loss takes them in chunks; with checkpointing, the one layer that
  is computed again if that is more, since the two are never there at once.
- overhead: measured, see the constants.
- several GPUs: each with the whole model, the gradients once more, for their sum; or weights, adapter and optimiser
  divided, with what is gathered of them for a layer (Zhao et al., "PyTorch FSDP", 2023).

``docs/measurements.md`` compares the sum with what was measured.
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from inhouse_retrieval import InhouseError

from .base_model import BaseModel
from .recipe import Recipe
from .sharing import ALONE, Share, rows_of_a_worker
from .weights import AskedWeights

Checkpointing = Literal["none", "selective", "full"]

GIB = 2**30
_GPU_OVERHEAD = int(0.6 * GIB)
"""CUDA's context and libraries, which the allocator does not count."""
_JOINED_OVERHEAD = int(0.8 * GIB)
"""NCCL and its buffers on each of several GPUs."""
_CPU_OVERHEAD = int(0.45 * GIB)
"""Python with torch, transformers, TRL and datasets."""
_CPU_SLACK = 1.5
"""What the allocator of a CPU takes for rows of changing lengths, beside what is alive: from SmolLM2 with rows of 256
and of 768 tokens."""
_FOUR_BIT = 0.516
_LARGEST_CHUNK = 2048
"""Tokens whose logits exist at once where the loss is chunked."""
_EVERY: dict[Checkpointing, int] = {"none": 0, "selective": 2, "full": 1}
_ROOM = 0.88
"""Part of the memory that ``"auto"`` fills by prediction, which has been wrong by up to 12 %."""
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with grouped attention and a gated MLP, as its ``config.json`` describes it."""

    hidden: int
    inner: int
    layers: int
    key_values: int
    vocabulary: int
    tied: bool

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer of a block."""
        wide, narrow, inner = self.hidden, self.key_values, self.inner
        attention = dict(zip(_ATTENTION, ((wide, wide), (wide, narrow), (wide, narrow), (wide, wide)), strict=True))
        return attention | dict(zip(_MLP, ((wide, inner), (wide, inner), (inner, wide)), strict=True))

    @property
    def linear_parameters(self) -> int:
        """Parameters of all blocks' linear layers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_sizes.values())

    @property
    def other_parameters(self) -> int:
        """Parameters of the embeddings and the output layer."""
        return self.hidden * self.vocabulary * (1 if self.tied else 2)

    def adapter_parameters(self, recipe: Recipe) -> int:
        """Parameters that the recipe's adapter adds."""
        sizes, targets = self.linear_sizes, recipe.lora.targets
        named = sizes if isinstance(targets, str) else [target for target in targets if target in sizes]
        return self.layers * recipe.lora.rank * sum(sum(sizes[name]) for name in named)


@dataclass(frozen=True, slots=True)
class Memory:
    """Predicted peak, in bytes, by part."""

    weights: int
    adapter: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.activations + self.logits + self.overhead


def shape_of(base: BaseModel) -> Shape | None:
    """The shape of a base model, from its folder or, when it is not here, from ``base_shapes.toml``; else ``None``."""
    config = base.path / "config.json"
    if base.sha256 and config.is_file():
        return _shape(json.loads(config.read_text(encoding="utf-8")))
    known = tomllib.loads((resources.files("inhouse_training") / "base_shapes.toml").read_text(encoding="utf-8"))
    return _shape(known[base.name]) if base.name in known else None


def context_of(base: BaseModel) -> int | None:
    """Tokens that a base model reads at once; ``None`` where it is not on this machine or does not say."""
    config = base.path / "config.json"
    if not base.sha256 or not config.is_file():
        return None
    context = json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings")
    return None if context is None else int(context)


def check_context(recipe: Recipe, base: BaseModel, trainer: str) -> None:
    """See whether the base model reads rows as long as the recipe makes them. Unsloth stretches its positions; of a
    model that is not on this machine nobody knows.

    Args:
        trainer: ``"trl"`` or ``"unsloth"``.

    Raises:
        InhouseError: they are too long.
    """
    context = context_of(base)
    if context is not None and recipe.data.max_tokens > context and trainer != "unsloth":
        raise InhouseError(
            f"The recipe {recipe.name} makes rows of up to {recipe.data.max_tokens} tokens, and {base.name} reads "
            f"{context}.",
            f"Lower data.max_tokens to {context}.",
        )


def check_targets(recipe: Recipe, base: BaseModel) -> None:
    """See whether the base model has the layers that the recipe's adapter is for. A model whose layers nobody knows, as
    one that is not on this machine, is taken to have them.

    Raises:
        InhouseError: it has no such layer.
    """
    targets = recipe.lora.targets
    if isinstance(targets, str):
        return
    layers = _layers(base)
    missing = [target for target in targets if not any(f".{layer}".endswith(f".{target}") for layer in layers)]
    if layers and missing:
        named = sorted({layer.rpartition(".")[2] for layer in layers})
        raise InhouseError(
            f"The recipe {recipe.name} names {', '.join(missing)} in lora.targets, which {base.name} does not have.",
            f'It has {", ".join(named)}; "all-linear" takes all but the embeddings.',
        )


def _layers(base: BaseModel) -> set[str]:
    """Names of the layers that have a matrix, as the weights' headers or ``base_shapes.toml`` tell; empty when neither
    does."""
    from safetensors import SafetensorError, safe_open

    found = set[str]()
    for file in sorted(base.path.glob("*.safetensors")) if base.sha256 else ():
        try:
            with safe_open(file, framework="numpy") as tensors:
                names: list[str] = tensors.keys()
                matrices = [name for name in names if len(tensors.get_slice(name).get_shape()) > 1]
        except (OSError, SafetensorError):
            return set()  # loading it says what is wrong
        found.update(name.rpartition(".")[0] for name in matrices)
    if found:
        return found | {"lm_head"}  # of a tied model it has no weights of its own
    shape = shape_of(base)
    return set(shape.linear_sizes) if shape is not None else set()


def _shape(config: dict[str, int | bool]) -> Shape | None:
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head = int(config.get("head_dim") or hidden // heads)
        return Shape(
            hidden,
            int(config["intermediate_size"]),
            int(config["num_hidden_layers"]),
            head * int(config.get("num_key_value_heads", heads)),
            int(config["vocab_size"]),
            bool(config.get("tie_word_embeddings", False)),
        )
    except KeyError:
        return None  # another kind of model: nothing is predicted


@dataclass(frozen=True, slots=True)
class Conditions:
    """How and where a recipe is run, as far as its memory depends on that.

    Attributes:
        gpu: bf16 on a GPU, or float32 on a CPU.
        trainer: ``"trl"`` or ``"unsloth"``.
        total: memory of the machine, or of one GPU, in bytes.
        compiled: whether the layers are compiled, on a GPU.
        share: what each of several workers has.
    """

    gpu: bool
    trainer: str
    total: int
    compiled: bool = False
    share: Share = ALONE


def share_of(shape: Shape | None, recipe: Recipe, workers: int, gpu: bool, total: int) -> Share:
    """How ``workers`` share a run: the model is split where the recipe says so, or one GPU does not hold it whole.

    Args:
        total: memory of one GPU, in bytes.
    """
    asked = recipe.trainer.sharding
    if workers == 1 or asked != "auto" or shape is None or not gpu:
        return Share(workers, workers > 1 and asked == "full")
    whole = Share(workers)
    fits = predict_memory(shape, recipe, Conditions(gpu, "trl", total, share=whole)).total <= total
    return whole if fits else Share(workers, True)


def checkpointing_of(shape: Shape | None, recipe: Recipe, conditions: Conditions) -> Checkpointing:
    """What the recipe's ``checkpointing`` is under these conditions.

    ``"auto"`` is the least that fits by prediction; all layers where nothing is predicted, or nothing fits.
    """
    asked = recipe.trainer.checkpointing
    if asked == "auto":
        asked = "full"
        for least in _EVERY if shape is not None else ():
            assert shape is not None
            memory = predict_memory(shape, _with(recipe, least), conditions)
            if memory.total <= _ROOM * conditions.total:
                asked = least
                break
    return "full" if asked == "selective" and conditions.trainer == "unsloth" else asked


def checkpointed_share(layers: int, checkpointing: Checkpointing) -> float:
    """Part of the layers that are computed again, the first of them among it."""
    every = _EVERY[checkpointing]
    return math.ceil(layers / every) / layers if every else 0.0


def _with(recipe: Recipe, checkpointing: Checkpointing) -> Recipe:
    trainer = recipe.trainer.model_copy(update={"checkpointing": checkpointing})
    return recipe.model_copy(update={"trainer": trainer})


def predict_memory(shape: Shape, recipe: Recipe, conditions: Conditions) -> Memory:
    """The peak of training with full rows, of each of the workers that share the run."""
    gpu, trainer, share = conditions.gpu, conditions.trainer, conditions.share
    number = 2 if gpu else 4
    tokens = rows_of_a_worker(recipe, share.workers)[0] * recipe.data.max_tokens
    per_linear = _FOUR_BIT if recipe.trainer.load_in_4bit else number
    weights = shape.linear_parameters * per_linear + shape.other_parameters * number
    wide = 2 if gpu and recipe.lora.dtype == "bfloat16" else 4
    parameters = shape.adapter_parameters(recipe)
    adapter = parameters * 4 * wide
    if share.split:
        # Of the layers two are whole at a time, one in use and one on its way; embeddings and output layer stay whole.
        layers = 2 * (shape.linear_parameters + parameters) // shape.layers
        weights = weights / share.workers + layers * number + shape.other_parameters * number
        adapter //= share.workers
    elif share.workers > 1:
        adapter += parameters * wide  # the buckets in which gradients are summed
    targets = 7 if isinstance(recipe.lora.targets, str) else len(recipe.lora.targets)
    # Inputs of the norms (float32), of q, k and v, of o, of gate and up, of down; q, k, v; gate, up and their product.
    layer = number * (6 * shape.hidden + 2 * shape.key_values + 4 * shape.inner + targets * recipe.lora.rank)
    layer += 8 * shape.hidden if gpu else number * 5 * shape.hidden  # on a CPU keys and values are repeated as well
    if conditions.compiled:
        # The norms' inputs stay in bf16, and the activation of the gate is computed again.
        layer -= 8 * shape.hidden + number * shape.inner
    # Under autocast: bf16 copies of a float32 adapter, one layer's and all layers', and of the inputs.
    autocast = gpu and trainer == "trl" and wide == 4 and not conditions.compiled and not share.split
    copied = parameters * 2 if autocast else 0
    if autocast:
        layer += number * shape.hidden * _copied_inputs(recipe)
    # As the trainer decides it (trainers/loop.py); Unsloth's loss is always fused.
    chunked = gpu and (trainer == "unsloth" or 12 * tokens * shape.vocabulary >= conditions.total / 3)
    logits = (min(tokens, _LARGEST_CHUNK) if chunked else tokens) * shape.vocabulary * 12
    if not gpu:
        layer, logits = int(layer * _CPU_SLACK), int(tokens * shape.vocabulary * 16 * _CPU_SLACK)
    again = checkpointed_share(shape.layers, checkpointing_of(shape, recipe, conditions))
    checkpointed = round(shape.layers * again)
    # Unsloth keeps the layers' inputs in the host's memory.
    inputs = 0 if trainer == "unsloth" else shape.hidden * number
    kept = shape.layers - checkpointed
    activations = tokens * (checkpointed * inputs + kept * layer) + copied * kept // shape.layers
    if checkpointed:
        # The logits are gone before the first layer is computed again, and so are the copies that autocast has kept of
        # the checkpointed layers' adapters until the forward pass was over.
        logits = max(logits + copied * checkpointed // shape.layers, tokens * layer + copied // shape.layers)
    overhead = _GPU_OVERHEAD if gpu else _CPU_OVERHEAD
    if gpu and share.workers > 1:
        overhead += _JOINED_OVERHEAD
    return Memory(int(weights), adapter, int(activations), int(logits), overhead)


def predict_judging(shape: Shape, recipe: Recipe, gpu: bool, weights: AskedWeights = "auto") -> int:
    """The peak of judging a candidate, in bytes: weights and two adapters, with what a batch of scored rows or one of
    answers takes. Reckoned; one run was measured (docs/measurements.md).

    Args:
        weights: of the base model; ``"auto"`` and ``"8bit"``, which is about answers: as the recipe trains.
    """
    from . import scoring, transformers_engine

    number = 2 if gpu else 4
    in_4bit = gpu and (weights == "4bit" or (weights != "full" and recipe.trainer.load_in_4bit))
    base = int(shape.linear_parameters * (_FOUR_BIT if in_4bit else number)) + shape.other_parameters * number
    adapters = 2 * 4 * shape.adapter_parameters(recipe)  # in float32, as their files have them
    scored = transformers_engine.SCORE_TOKENS_GPU if gpu else transformers_engine.SCORE_TOKENS
    answered = transformers_engine.ANSWER_TOKENS_GPU if gpu else transformers_engine.ANSWER_TOKENS
    at_once = scoring.LOGITS_AT_ONCE_GPU if gpu else scoring.LOGITS_AT_ONCE
    # Of one layer: its input and what attention makes of it, gate, up and their product. Logits as they are, in
    # float32, and their softmax.
    scoring_rows = scored * number * (6 * shape.hidden + 3 * shape.inner) + at_once * shape.vocabulary * (number + 8)
    answering = answered * number * 2 * shape.layers * shape.key_values
    overhead = _GPU_OVERHEAD if gpu else _CPU_OVERHEAD
    return base + adapters + max(scoring_rows, answering) + overhead


def _copied_inputs(recipe: Recipe) -> int:
    """How many more inputs of the hidden size a layer keeps where each target casts its own from bf16 to float32 and
    back: one for each target that would have shared it, and one where attention keeps what it gave out."""
    targets = (*_ATTENTION, *_MLP) if isinstance(recipe.lora.targets, str) else recipe.lora.targets
    shared = sum(max(0, sum(name in targets for name in group) - 1) for group in (_ATTENTION[:3], _MLP[:2]))
    return shared + ("o_proj" in targets)


def what_would_fit(shape: Shape, recipe: Recipe, conditions: Conditions) -> tuple[str, Memory] | None:
    """The smallest change of the recipe that fits, as a sentence's part, with its memory; ``None`` when none does."""
    data, changes = recipe.data, list[str]()
    explicit = recipe.trainer.checkpointing != "auto"
    for words, changed in (
        ('trainer.checkpointing = "full"', {"trainer": {"checkpointing": "full"}} if explicit else {}),
        ("optimizer.batch_rows = 1", {"optimizer": {"batch_rows": 1}}),
        ("trainer.load_in_4bit = true", {"trainer": {"load_in_4bit": True}} if conditions.trainer == "unsloth" else {}),
        ("lora.rank = 64", {"lora": {"rank": min(64, recipe.lora.rank)}}),
        ("data.max_tokens = 2048", {"data": {"max_tokens": min(2048, data.max_tokens)}}),
        ("lora.rank = 16", {"lora": {"rank": min(16, recipe.lora.rank)}}),
        ("data.max_tokens = 512", {"data": {"max_tokens": min(512, data.max_tokens)}}),
    ):
        update = {
            section: getattr(recipe, section).model_copy(update=values)
            for section, values in changed.items()
            if any(getattr(getattr(recipe, section), key) != value for key, value in values.items())
        }
        if not update:
            continue
        recipe = recipe.model_copy(update=update)
        key = words.split(" = ")[0]
        changes = [change for change in changes if not change.startswith(key)] + [words]
        if (recipe.optimizer.batch_rows * recipe.optimizer.accumulate) % conditions.share.workers:
            continue  # fewer rows than the GPUs can share
        memory = predict_memory(shape, recipe, conditions)
        if memory.total <= conditions.total:
            return " and ".join(changes), memory
    return None
