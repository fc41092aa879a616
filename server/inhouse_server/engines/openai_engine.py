"""Any OpenAI-compatible server as an engine: vLLM, llama.cpp, or a gateway of the organisation.

The server owns the chat template, so prompts reach it as messages. It counts tokens exactly only for itself;
here they are estimated from the text, on the high side, and the usage that the server reports goes into the
last event.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from threading import Event
from typing import Any, Literal

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from inhouse_retrieval import InhouseError
from inhouse_server.engines.failures import NotServed, Overloaded, ServerLost, retry_after
from inhouse_training import (
    BASE,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    RowScore,
    ScoredRow,
    TextDelta,
)

BYTES_PER_TOKEN = 3
"""Code takes 3 to 4 bytes a token with current tokenizers. The lower figure errs towards a prompt that
fits."""
TOKENS_PER_MESSAGE = 8
"""What a chat template adds to each turn, with room to spare."""


class OpenAIEngine:
    """Implements :class:`~inhouse_training.Engine` through the ``openai`` client.

    Args:
        url: base URL of the API, such as ``http://127.0.0.1:8000/v1``.
        model: the server's name of the base model.
        api_key: sent as bearer token; servers on loopback mostly want none.
        adapters: the server's model name of each adapter version. A version that is not listed is asked for
            under its own name, as vLLM serves the LoRA modules that it was given.
        context_tokens: longest prompt plus answer that the server was started with.
        timeout_s: seconds without a byte after which the server counts as lost.
        extra_body: fields of the request that only this server knows.
        verify: whose certificates are trusted; True for those that the system trusts.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        adapters: Mapping[str, str] | None = None,
        context_tokens: int = 8192,
        timeout_s: float = 120.0,
        extra_body: Mapping[str, Any] | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._url = url
        self._base = model
        self._adapters = dict(adapters or {})
        self._context = context_tokens
        self._extra_body = dict(extra_body or {})
        # No retries: an answer that has begun must not begin again, and a lost server is said at once.
        self._client = openai.OpenAI(
            base_url=url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(timeout_s, connect=5.0),
            http_client=None if verify is True else openai.DefaultHttpxClient(verify=verify),
        )

    @property
    def base_model(self) -> str:
        return self._base

    @property
    def context_tokens(self) -> int:
        return self._context

    def model_name(self, adapter: str) -> str:
        """The server's name for an adapter version or for the base model."""
        return self._base if adapter == BASE else self._adapters.get(adapter, adapter)

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """An estimate on the high side; the server's tokenizer is not here."""
        return sum(TOKENS_PER_MESSAGE + -(-len(each.content.encode()) // BYTES_PER_TOKEN) for each in messages)

    def stream(self, request: GenerationRequest, cancel: Event) -> Iterator[GenerationEvent]:
        """Generate; see the protocol. Cancelling closes the connection, which is how servers learn of it.

        Raises:
            ServerLost: the server is not reached, or is lost in the middle of an answer.
            NotServed: it does not have the model.
            Overloaded: it answers 429 or 503.
            InhouseError: it refuses the request.
        """
        if cancel.is_set():
            yield Finished("cancelled", 0, 0)
            return
        prompt_tokens, completion_tokens, counted = self.count_tokens(request.messages), 0, False
        reason: Literal["stop", "length", "cancelled"] | None = None
        with contextlib.closing(_Reader(self._client, self._arguments(request))) as reader:
            while True:
                if cancel.is_set():
                    reason = reason or "cancelled"
                    break
                arrived = reader.next(timeout=0.05)
                if isinstance(arrived, Exception):
                    raise self._plain(arrived, request.adapter) from arrived
                if arrived is _LATER:
                    continue
                if not isinstance(arrived, ChatCompletionChunk):
                    break
                if arrived.usage is not None:
                    prompt_tokens, completion_tokens = (
                        arrived.usage.prompt_tokens,
                        arrived.usage.completion_tokens,
                    )
                    counted = True
                for choice in arrived.choices:
                    if choice.delta.content:
                        completion_tokens += not counted  # servers send about one token per chunk
                        yield TextDelta(choice.delta.content)
                    if choice.finish_reason is not None:
                        reason = "length" if choice.finish_reason == "length" else "stop"
        if reason is None:
            raise ServerLost(
                f"The model server at {self._url} ended the answer before it was complete.",
                "Look at its log.",
            )
        yield Finished(reason, prompt_tokens, completion_tokens)

    def _arguments(self, request: GenerationRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self.model_name(request.adapter),
            "messages": [{"role": each.role, "content": each.content} for each in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._extra_body:
            arguments["extra_body"] = self._extra_body
        if request.stop:
            arguments["stop"] = list(request.stop)
        if request.schema:
            schema = {"name": "answer", "strict": True, "schema": json.loads(request.schema)}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    def score(self, rows: Sequence[ScoredRow], adapter: str = BASE) -> list[RowScore]:
        raise InhouseError(
            "A model server cannot score text, so adapters are not evaluated through it.",
            'Set engine.kind to "transformers" for training and evaluation.',
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _plain(self, error: Exception, adapter: str) -> InhouseError:
        if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException):
            return ServerLost(
                f"The model server at {self._url} did not answer in time.", "Look at its log and its load."
            )
        if isinstance(error, openai.APIConnectionError | httpx2.HTTPError | httpx2.StreamError):
            return ServerLost(
                f"The model server at {self._url} cannot be reached or was lost.",
                "Start it, or correct engine.url.",
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return InhouseError(
                f"The model server at {self._url} refuses the API key.",
                "Correct the variable in engine.api_key_env.",
            )
        if isinstance(error, openai.NotFoundError):
            return NotServed(
                f"The model server at {self._url} does not serve {self.model_name(adapter)!r}.",
                "Load that adapter in the server, or correct engine.model.",
            )
        if isinstance(error, openai.APIStatusError) and error.status_code in (429, 503):
            wait_s = retry_after(error.response.headers.get("retry-after"))
            return Overloaded(f"The model server at {self._url} is busy.", error.status_code, wait_s)
        said = error.message if isinstance(error, openai.APIError) else str(error)
        return InhouseError(f"The model server at {self._url} refuses the request: {said}", "")


_LATER = object()
_OVER = object()


class _Reader:
    """Reads one streamed completion in a thread of its own, so that whoever waits for it can leave at any
    moment.

    Leaving shuts the connection down, which frees the thread and is how servers learn that nobody listens.
    While the server has not begun to respond there is no connection to shut yet; it is shut as soon as there
    is.
    """

    def __init__(self, client: openai.OpenAI, arguments: Mapping[str, Any]) -> None:
        self._client = client
        self._arguments = arguments
        self._arrived: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._left = Event()
        self._response: httpx2.Response | None = None
        threading.Thread(target=self._read, name="openai-engine", daemon=True).start()

    def next(self, timeout: float) -> object:
        """A chunk, an exception, ``_LATER`` when nothing came in ``timeout`` seconds, or ``_OVER``."""
        try:
            return self._arrived.get(timeout=timeout)
        except queue.Empty:
            return _LATER

    def close(self) -> None:
        self._left.set()
        if self._response is not None:
            # Shut down, not closed: a thread that waits in recv wakes up, and the response stays its own to
            # close.
            connection = self._response.extensions["network_stream"].get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            with self._client.chat.completions.create(**self._arguments) as chunks:
                self._response = chunks.response
                for chunk in chunks:
                    if self._left.is_set():
                        break
                    self._arrived.put(chunk)
            self._arrived.put(_OVER)
        except Exception as error:  # whatever it is belongs to the thread that asked
            self._arrived.put(error)
