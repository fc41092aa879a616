"""Which encoder, and loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inhouse_retrieval.embedding import Encoder
from inhouse_retrieval.encoders.model_folder import BUNDLED, ModelFolder, find_model
from inhouse_retrieval.errors import InhouseError

Precision = Literal["auto", "int8", "float16", "float32"]

LONGEST_CHUNK = 512
"""Tokens. Some encoders read thousands, but a passage as long as a file says little about where in it to look."""


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder as it is configured.

    Attributes:
        name: the bundled model, a folder, or the name of a model in the hub's cache on this machine.
        revision: commit, tag or branch of a model in that cache; ``None`` for the branch ``main``.
        precision: ``auto`` is ``int8`` where that can be had and ``float32`` elsewhere.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        query_prompt: put before a question, ``document_prompt`` before a chunk; ``None`` for the model's own.
        max_tokens: longest chunk; ``None`` for what the model reads, at most :data:`LONGEST_CHUNK`.
        trust_remote_code: the model's name once more, when code that comes with it may run.
    """

    name: str = BUNDLED
    revision: str | None = None
    precision: Precision = "auto"
    device: str = "cpu"
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_tokens: int | None = None
    trust_remote_code: str | None = None


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """A choice with everything decided that the model's folder decides."""

    name: str
    folder: ModelFolder
    precision: Literal["int8", "float16", "float32"]
    device: str
    query_prompt: str
    document_prompt: str
    max_tokens: int
    """Of a chunk, without prompt and special tokens."""
    trust_remote_code: bool


def load_encoder(choice: EncoderChoice | None = None) -> Encoder:
    """The chosen encoder; the bundled one by default. Reads its tokenizer, and its weights at the first text.

    Raises:
        InhouseError: it is not on this machine, cannot be run as asked for, or is damaged.
    """
    spec = decide(choice or EncoderChoice())
    if spec.folder.is_static:
        from inhouse_retrieval.encoders.static_encoder import StaticEncoder

        return StaticEncoder(spec)
    if spec.precision == "int8":
        from inhouse_retrieval.encoders.onnx_encoder import OnnxEncoder

        return OnnxEncoder(spec)
    from inhouse_retrieval.encoders.sentence_encoder import SentenceEncoder

    return SentenceEncoder(spec)


def decide(choice: EncoderChoice) -> EncoderSpec:
    """What ``choice`` comes to for the model that it names.

    Raises:
        InhouseError: as for :func:`load_encoder`.
    """
    if choice.trust_remote_code not in (None, choice.name):
        raise InhouseError(
            f"trust_remote_code names {choice.trust_remote_code!r}, but the encoder is {choice.name!r}.",
            "Name the model whose code may run, or remove the setting.",
        )
    folder = find_model(choice.name, choice.revision)
    precision = _precision(choice, folder)
    query = folder.query_prompt if choice.query_prompt is None else choice.query_prompt
    document = folder.document_prompt if choice.document_prompt is None else choice.document_prompt
    room = folder.max_tokens - folder.count([document])[0] - folder.special_tokens
    if room < 1 or (choice.max_tokens or 1) > room:
        raise InhouseError(
            f"The encoder {choice.name} has room for {max(0, room)} tokens after its document prompt.",
            "Set max_tokens to at most that, or shorten the prompt.",
        )
    max_tokens = choice.max_tokens or min(room, LONGEST_CHUNK)
    parts = [choice.name, f"{folder.revision or folder.fingerprint}", precision, f"{max_tokens} tokens"]
    parts += [f"query prompt {query!r}"] if query else []
    parts += [f"document prompt {document!r}"] if document else []
    return EncoderSpec(
        ", ".join(parts),
        folder,
        precision,
        choice.device,
        query,
        document,
        max_tokens,
        choice.trust_remote_code is not None,
    )


def _precision(choice: EncoderChoice, folder: ModelFolder) -> Literal["int8", "float16", "float32"]:
    on_cpu = choice.device == "cpu"
    if folder.is_static:
        if choice.precision not in ("auto", "float32") or not on_cpu:
            raise InhouseError(
                f"{choice.name} is a static model, which runs on the CPU in float32.",
                "Remove precision and device from [encoder].",
            )
        return "float32"
    if choice.precision == "int8":
        if not on_cpu:
            raise InhouseError("An encoder in int8 runs on the CPU.", 'Set precision = "float16" for a GPU.')
        if folder.not_in_int8:
            raise InhouseError(
                f"{choice.name} cannot be run in int8: {folder.not_in_int8}.", 'Set precision = "float32".'
            )
        return "int8"
    if choice.precision == "float16":
        if on_cpu:
            raise InhouseError("float16 is for a GPU.", 'Set device = "cuda", or another precision.')
        return "float16"
    if choice.precision == "auto" and on_cpu and not folder.not_in_int8:
        return "int8"
    return "float32"
