"""vLLM's protocol without vLLM: the adapter routes, models and likelihoods of 0.33.0, over HTTP.

Every request and answer is held against the JSON schemas of vLLM's own models (``vllm_protocol.json``); what the routes
do and say follows ``OpenAIServingModels`` in vllm/entrypoints/openai/models/serving.py. What computes behind them is
given: :class:`HashedModel` draws figures from the bytes of the weights, which tells versions apart in microseconds.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import jsonschema

SCHEMAS = {
    kind: jsonschema.Draft202012Validator(schema)
    for kind, schema in json.loads(Path(__file__).with_name("vllm_protocol.json").read_text()).items()
    if kind != "source"
}
BASE_NAME = "house-base"


def conforms(kind: str, value: Any) -> None:
    """Raise when ``value`` is not what vLLM's model ``kind`` reads or writes."""
    SCHEMAS[kind].validate(value)


class Computing(Protocol):
    """What a server computes with; ``folder`` is where an adapter was loaded from, ``None`` for the base."""

    def load(self, folder: Path) -> None: ...

    def nats(self, folder: Path | None, ids: list[int]) -> list[float]: ...

    def answer(self, folder: Path | None, asked: dict[str, Any]) -> Generator[str, None, str]:
        """The pieces of text; returns why it ended."""


class HashedModel:
    """Likelihoods and answers that follow from the bytes of the weights and the tokens alone."""

    def load(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").read_bytes()

    def nats(self, folder: Path | None, ids: list[int]) -> list[float]:
        base = [hashlib.sha256(f"base {ids[:at]}".encode()).digest()[0] / 64 for at in range(1, len(ids))]
        if folder is None:
            return base
        moved = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest()
        return [each + moved[at % 32] / 512 for at, each in enumerate(base)]

    def answer(self, folder: Path | None, asked: dict[str, Any]) -> Generator[str, None, str]:
        yield "Couriers come "
        yield f"at noon, says {folder.name if folder else 'base'}."
        return "stop"


class VllmDouble(ThreadingHTTPServer):
    """One server.

    Attributes:
        adapters: name -> folder, as loaded.
        requests: method and path of what was asked, with the body.
        busy: status that completions answer with instead, and the value of their ``Retry-After``.
        off: added to every likelihood of an adapter: a server that reads its scale wrongly.
        max_rank: adapters above are refused, as vLLM refuses them.
    """

    daemon_threads = True
    late_s = 0.0
    """Seconds before it says which models it has."""
    allow_reuse_address = True

    def __init__(self, computing: Computing, port: int = 0, max_rank: int = 16) -> None:
        super().__init__(("127.0.0.1", port), _Route)
        self.computing = computing
        self.adapters: dict[str, Path] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.busy: tuple[int, str] | None = None
        self.off = 0.0
        self.max_rank = max_rank
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def asked(self, path: str) -> list[dict[str, Any]]:
        """Bodies of the requests for ``path``."""
        return [body for where, body in self.requests if where == path]

    def stop(self) -> None:
        """Gone, as after a crash: the port is free."""
        self.shutdown()
        self.server_close()


@contextmanager
def serving(*doubles: VllmDouble) -> Iterator[tuple[VllmDouble, ...]]:
    """The servers, stopped when the block ends."""
    try:
        yield doubles
    finally:
        for each in doubles:
            each.stop()


class _Refusal(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


class _Route(BaseHTTPRequestHandler):
    server: VllmDouble

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self._json(404, {"detail": "Not Found"})
        time.sleep(self.server.late_s)
        cards = [{"id": BASE_NAME, "root": "/models/base", "max_model_len": 8192}]
        cards += [{"id": n, "root": str(p), "parent": BASE_NAME} for n, p in self.server.adapters.items()]
        answer = {"object": "list", "data": cards}
        conforms("ModelList", answer)
        return self._json(200, answer)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        routes = {
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
            "/v1/completions": self._likelihoods,
            "/v1/chat/completions": self._chat,
        }
        try:
            routes[self.path](body)
        except _Refusal as refusal:
            error = {"message": refusal.message, "type": refusal.kind, "param": None, "code": refusal.status}
            conforms("ErrorResponse", {"error": error})
            self._json(refusal.status, {"error": error})

    def _load(self, body: dict[str, Any]) -> None:
        conforms("LoadLoRAAdapterRequest", body)
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name == BASE_NAME:
            raise _Refusal(400, "InvalidUserInput", f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self.server.adapters:
            raise _Refusal(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        if not (folder / "adapter_config.json").exists():
            raise _Refusal(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {folder}")
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank > self.server.max_rank:
            said = f"LoRA rank {rank} is greater than max_lora_rank {self.server.max_rank}."
            raise _Refusal(500, "InternalServerError", said)
        self.server.computing.load(folder)
        self.server.adapters[name] = folder
        self._text(f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, body: dict[str, Any]) -> None:
        conforms("UnloadLoRAAdapterRequest", body)
        if body["lora_name"] not in self.server.adapters:
            raise _Refusal(404, "NotFoundError", f"The lora adapter '{body['lora_name']}' cannot be found.")
        del self.server.adapters[body["lora_name"]]
        self._text(f"Success: LoRA adapter '{body['lora_name']}' removed successfully.")

    def _likelihoods(self, body: dict[str, Any]) -> None:
        conforms("CompletionRequest", body)
        assert body["prompt_logprobs"] == 0 and not body.get("stream"), body
        if self.server.busy:
            self._full(*self.server.busy)
            return
        folder, ids = self._folder(body["model"]), body["prompt"]
        nats = self.server.computing.nats(folder, ids)
        shift = self.server.off if folder else 0.0
        told = [
            {str(i): {"logprob": -n - shift, "rank": 1, "decoded_token": "?"}}
            for i, n in zip(ids[1:], nats, strict=True)
        ]
        choice = {"index": 0, "text": "x", "finish_reason": "length", "prompt_logprobs": [None, *told]}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1}
        answer = {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": body["model"],
                  "choices": [choice], "usage": usage}  # fmt: skip
        conforms("CompletionResponse", answer)
        self._json(200, answer)

    def _full(self, status: int, after: str) -> None:
        self._json(status, {"error": {"message": "full", "type": "x", "code": status}}, {"Retry-After": after})

    def _chat(self, body: dict[str, Any]) -> None:
        if self.server.busy:
            return self._full(*self.server.busy)
        folder = self._folder(body["model"])
        assert body["stream"] and body["stream_options"] == {"include_usage": True}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        made, reason, pieces = 0, "", self.server.computing.answer(folder, body)
        while not reason:
            try:
                self._chunk(body, [{"index": 0, "delta": {"content": next(pieces)}, "finish_reason": None}])
                made += 1
            except StopIteration as end:
                reason = end.value
        self._chunk(body, [{"index": 0, "delta": {}, "finish_reason": reason}])
        self._chunk(body, [], usage={"prompt_tokens": 7, "completion_tokens": made, "total_tokens": 7 + made})
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def _chunk(self, body: dict[str, Any], choices: list[Any], **more: Any) -> None:
        head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
        self.wfile.write(f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n".encode())

    def _folder(self, model: str) -> Path | None:
        if model == BASE_NAME:
            return None
        if model not in self.server.adapters:
            raise _Refusal(404, "NotFoundError", f"The model `{model}` does not exist.")
        return self.server.adapters[model]

    def _text(self, said: str) -> None:
        self._send(200, said.encode(), "text/plain", {})

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", headers or {})

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(BrokenPipeError):  # who asked did not wait
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
