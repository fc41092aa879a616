"""A registered version in the formats that other programs load: PEFT, merged safetensors, a GGUF adapter.

What was written is loaded again and scored beside the registered version, and an export that scores differently is
refused: a wrong permutation or scale gives text that still looks like an answer.
"""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inhouse_retrieval import InhouseError, Progress, no_progress

from .base_model import BaseModel, best_device, best_dtype, load_model, load_tokenizer
from .engine import ScoredRow
from .evaluation import forgetting_row
from .forgetting_texts import FORGETTING_TEXTS
from .registry import MANIFEST_NAME, WEIGHTS_NAME, Registry
from .trainers import why_full
from .weights import trains_in_4bit

if TYPE_CHECKING:
    import torch

Format = Literal["peft", "merged", "gguf"]

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What ``max_lora_rank`` of vLLM 0.33.0 can be (vllm/config/lora.py); an adapter's rank may be any up to it."""
_VLLM_REFUSES = {
    "lora_bias": "it has bias terms beside its factors",
    "alora_invocation_tokens": "it is an activated LoRA",
    "layer_replication": "it repeats layers",
    "use_bdlora": "it is block-diagonal",
    "use_qalora": "it uses QALoRA",
}
_VLLM_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Ways to begin training that leave the base's weights as they are."""
BOUND_FLOAT32 = 1e-3
BOUND_BFLOAT16 = 0.02
"""Nats per token by which an export may score differently. In bfloat16 a merged weight is rounded to 8 bits, which an
unmerged adapter is not: SmolLM2 with a random adapter came out 0.003 apart, and 0.12 with rows of q and k in the wrong
order."""

_GGUF_ARCHITECTURES = {"llama": ("llama", True), "mistral": ("llama", True), "qwen2": ("qwen2", False)}
"""Of each model type: its architecture in GGUF, and whether llama.cpp interleaves the rows of q and k
(``LlamaModel.permute`` in convert_hf_to_gguf.py)."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        path: the folder; for GGUF, the file in it.
        loss, registered_loss: nats per token of the export and of the registered version, on the same texts.
        vllm_loads, vllm: whether vLLM loads the adapter, and how or why not.
        trained_in_4bit: whether it was fitted to weights in 4 bit. Both losses are beside full weights, as the export's
            readers have them.
    """

    version: str
    format: Format
    path: Path
    loss: float
    registered_loss: float
    bound: float
    vllm_loads: bool
    vllm: str
    trained_in_4bit: bool = False

    @property
    def difference(self) -> float:
        """Nats per token, never negative."""
        return abs(self.loss - self.registered_loss)

    def to_json(self) -> dict[str, Any]:
        """The stable JSON contract of ``inhouse adapters export --json``."""
        return {**asdict(self), "path": str(self.path), "difference": self.difference}


def export_adapter(
    registry: Registry, version: str, base: BaseModel, target: Path, kind: Format, progress: Progress = no_progress
) -> Export:
    """Write ``version`` into the new folder ``target``, load it again and compare.

    Raises:
        InhouseError: no such version, one of another base model, a folder that holds something, what the format cannot
            express, or an export that scores differently; nothing is then left at ``target``.
    """
    import torch

    folder = registry.verify(version)
    manifest = registry.get(version).manifest
    if manifest.base_sha256 != base.sha256:
        raise InhouseError(
            f"{version} was made for {manifest.base_model}, and this repository is served by {base.name}.",
            "Set base_model in inhouse.toml to the model that the adapter was made for.",
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InhouseError(f"{target} exists already.", "Name a new or an empty folder.")
    device = best_device()
    # On a CPU in float32, also where it multiplies bfloat16: rounding would hide small mistakes.
    dtype = torch.float32 if device == "cpu" else best_dtype(device)
    bound = BOUND_FLOAT32 if dtype is torch.float32 else BOUND_BFLOAT16
    tokenizer = load_tokenizer(base)
    rows = [forgetting_row(tokenizer, text) for texts in FORGETTING_TEXTS.values() for text in texts]
    progress("scoring the registered version", 0, None)
    registered = _registered_loss(registry, version, base, device, dtype, rows)
    progress(f"writing {kind}", 0, None)
    with _made_at(target) as work:
        _WRITERS[kind](folder, base, version, work)
        progress("scoring the export", 0, None)
        loss = _loss(_READERS[kind](work, base, device, dtype), rows)
        if not abs(loss - registered) <= bound:  # also when it is not a number
            raise InhouseError(
                f"The export scores {loss:.4f} nats per token and {version} {registered:.4f}, more than {bound} apart.",
                "It was not kept; report this with the base model's name.",
            )
    path = next(target.glob("*.gguf")) if kind == "gguf" else target
    in_4bit = trains_in_4bit(manifest.recipe)
    return Export(version, kind, path, loss, registered, bound, *vllm_check(_config(folder)), in_4bit)


def vllm_check(config: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether vLLM loads an adapter with this ``adapter_config.json``, and how it must be started, or why it does not.

    As ``PEFTHelper.validate_legal`` in vllm/lora/peft_helper.py of 0.33.0 asks it.
    """
    if config.get("peft_type") != "LORA":
        return False, f"it is of the kind {config.get('peft_type')}, not LoRA"
    if config.get("modules_to_save"):
        return False, f"it replaces whole modules ({', '.join(config['modules_to_save'])})"
    if config.get("bias", "none") != "none":
        return False, "it trains bias terms"
    if config.get("use_dora"):
        return False, "it uses DoRA"
    if config.get("use_rslora"):
        return False, "its scale is rank-stabilised, which not every version of vLLM honours"
    for key, reason in _VLLM_REFUSES.items():
        if config.get(key):
            return False, reason
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _VLLM_STARTS:
        return False, f"it was begun with {start}, which changes the base's weights"
    rank = adapter_rank(config)
    if rank > VLLM_RANKS[-1]:
        return False, f"its rank is {rank}, and vLLM takes {VLLM_RANKS[-1]} at most"
    return True, f"--max-lora-rank {next(each for each in VLLM_RANKS if each >= rank)}"


def adapter_rank(config: Mapping[str, Any]) -> int:
    """The highest rank of any module of an adapter with this ``adapter_config.json``."""
    return max(int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values()), 0)


def _registered_loss(
    registry: Registry, version: str, base: BaseModel, device: str, dtype: torch.dtype, rows: Sequence[ScoredRow]
) -> float:
    """Nats per token of the registered version, as the engine computes them with full weights."""
    from .transformers_engine import TransformersEngine

    engine = TransformersEngine(base, registry.verify, device=device, dtype=dtype)
    scores = engine.score(rows, version)
    # PEFT's modules refer to each other: without this two models would lie in memory when the export is loaded.
    del engine
    gc.collect()
    return sum(score.nats for score in scores) / sum(score.tokens for score in scores)


# ----------------------------------------------------------------------------------------------------------
# PEFT


def _write_peft(folder: Path, base: BaseModel, version: str, work: Path) -> None:
    shutil.copyfile(folder / WEIGHTS_NAME, work / WEIGHTS_NAME)
    # By this name AutoPeftModel finds the base: the hub's, or a folder of this machine.
    config = {**_config(folder), "base_model_name_or_path": base.name if "/" in base.name else str(base.path)}
    (work / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(folder / MANIFEST_NAME, work / MANIFEST_NAME)


def _read_peft(work: Path, base: BaseModel, device: str, dtype: torch.dtype) -> Any:
    return _with_adapter(load_model(base, device, dtype), work)


# ----------------------------------------------------------------------------------------------------------
# Merged


def _write_merged(folder: Path, base: BaseModel, version: str, work: Path) -> None:
    # On the processor and in the precision of the base's own files; the sum is rounded once.
    merged = _with_adapter(load_model(base, "cpu", "auto"), folder).merge_and_unload()
    merged.save_pretrained(work)
    load_tokenizer(base).save_pretrained(work)
    shutil.copyfile(folder / MANIFEST_NAME, work / MANIFEST_NAME)


def _read_merged(work: Path, base: BaseModel, device: str, dtype: torch.dtype) -> Any:
    return load_model(BaseModel(base.name, work, "", ""), device, dtype)


# ----------------------------------------------------------------------------------------------------------
# GGUF, as llama.cpp's convert_lora_to_gguf.py writes it


def _write_gguf(folder: Path, base: BaseModel, version: str, work: Path) -> None:
    import gguf
    from safetensors.numpy import load_file

    config = _config(folder)
    if any(config.get(key) for key in ("alpha_pattern", "rank_pattern", "use_rslora", "use_dora", "modules_to_save")):
        raise InhouseError(
            "A GGUF adapter has one scale for all modules, and this version needs more than that.",
            "Export it as merged.",
        )
    architecture, permuted, shape = _gguf_shape(base)
    writer = gguf.GGUFWriter(work / f"{version}.gguf", architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    writer.add_name(f"inhouse {version}")
    names = gguf.get_tensor_name_map(_architecture_id(architecture), shape["num_hidden_layers"])
    # float32 as trained; bfloat16 adapters are widened by the reader of safetensors below.
    for name, tensor in sorted(load_file(_in_float32(folder, work)).items()):
        module, _, side = name.removeprefix("base_model.model.").removesuffix(".weight").partition(".lora_")
        known = names.get_name(module)
        if known is None or not known.startswith("blk.") or side not in ("A", "B"):
            writer.close()
            raise InhouseError(f"llama.cpp has no place for an adapter of {module}.", "Export it as merged.")
        if permuted and side == "B" and module.endswith((".q_proj", ".k_proj")):
            tensor = _interleave(tensor, _heads(module, shape))
        writer.add_tensor(f"{known}.weight.lora_{side.lower()}", tensor)
    (work / _WIDENED).unlink()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copyfile(folder / MANIFEST_NAME, work / MANIFEST_NAME)


def _read_gguf(work: Path, base: BaseModel, device: str, dtype: torch.dtype) -> Any:
    """The base with what the file holds, put back into PEFT's names and order of rows."""
    import gguf
    from safetensors.numpy import save_file

    _, permuted, shape = _gguf_shape(base)
    reader = gguf.GGUFReader(next(work.glob("*.gguf")))
    architecture = reader.fields["general.architecture"].contents()
    names = gguf.get_tensor_name_map(_architecture_id(architecture), shape["num_hidden_layers"])
    layers = range(shape["num_hidden_layers"])
    modules = [f"model.layers.{layer}.{part}" for layer in layers for part in _PARTS]
    module_of = {names.get_name(module): module for module in modules}
    tensors: dict[str, Any] = {}
    rank = 0
    for found in reader.tensors:
        known, _, side = found.name.partition(".weight.lora_")
        module, tensor = module_of[known], found.data
        if side == "a":
            rank = tensor.shape[0]
        elif permuted and module.endswith((".q_proj", ".k_proj")):
            tensor = _separate(tensor, _heads(module, shape))
        tensors[f"base_model.model.{module}.lora_{side.upper()}.weight"] = tensor.copy()
    alpha = float(reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents())
    with tempfile.TemporaryDirectory() as scratch:
        save_file(tensors, Path(scratch) / WEIGHTS_NAME)
        targets = sorted({name.rpartition(".lora_")[0].rpartition(".")[2] for name in tensors})
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets}
        (Path(scratch) / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        return _with_adapter(load_model(base, device, dtype), Path(scratch))


_PARTS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
_WIDENED = ".widened.safetensors"


def _in_float32(folder: Path, work: Path) -> Path:
    """The weights as a file in float32, since numpy has no bfloat16."""
    from safetensors.torch import load_file, save_file

    widened = {name: tensor.float().contiguous() for name, tensor in load_file(folder / WEIGHTS_NAME).items()}
    save_file(widened, work / _WIDENED)
    return work / _WIDENED


def _gguf_shape(base: BaseModel) -> tuple[str, bool, dict[str, int]]:
    config = json.loads((base.path / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] not in _GGUF_ARCHITECTURES:
        raise InhouseError(
            f"How {config['model_type']} models are laid out in GGUF is not known here.", "Export it as peft or merged."
        )
    architecture, permuted = _GGUF_ARCHITECTURES[config["model_type"]]
    return architecture, permuted, config


def _architecture_id(architecture: str) -> Any:
    import gguf

    return next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)


def _heads(module: str, shape: dict[str, int]) -> int:
    heads = shape["num_attention_heads"]
    return shape.get("num_key_value_heads", heads) if module.endswith(".k_proj") else heads


def _interleave(rows: Any, heads: int) -> Any:
    """Within each head, rows of the two halves in turn: how llama.cpp rotates pairs."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _separate(rows: Any, heads: int) -> Any:
    """The inverse of :func:`_interleave`."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


# ----------------------------------------------------------------------------------------------------------
# Shared


@contextlib.contextmanager
def _made_at(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block ends well, and is gone otherwise."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".exporting-", dir=target.parent))
        try:
            yield work
            work.chmod(0o755)
            work.replace(target)  # an empty folder there gives way
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except Exception as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else why_full(error)
        if not reason:
            raise
        raise InhouseError(
            f"{target} cannot be written: {reason}.", "Free some space, or name another folder."
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return found


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False).eval()


def _loss(model: Any, rows: Sequence[ScoredRow]) -> float:
    """Nats per token over all rows."""
    import torch

    nats, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.input_ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            count += len(row.input_ids) - 1
    return nats / count


_WRITERS: dict[str, Callable[[Path, BaseModel, str, Path], None]] = {
    "peft": _write_peft, "merged": _write_merged, "gguf": _write_gguf
}  # fmt: skip
_READERS: dict[str, Callable[[Path, BaseModel, str, torch.dtype], Any]] = {
    "peft": _read_peft, "merged": _read_merged, "gguf": _read_gguf
}  # fmt: skip
