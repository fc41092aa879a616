"""One vLLM server: what it serves, adapters in and out, and what it thinks of given tokens.

The requests are those of vLLM 0.33.0: ``vllm/entrypoints/serve/lora`` for adapters, which it serves only when
``VLLM_ALLOW_RUNTIME_LORA_UPDATING`` is true, and ``prompt_logprobs`` of ``/v1/completions``.
"""

from __future__ import annotations

import math
import ssl
from typing import Any

import httpx

from inhouse_retrieval.errors import InhouseError
from inhouse_server.engines.failures import Overloaded, ServerLost, ServerSlow, retry_after

ASK_S = 5.0
"""What a server may take to say what it serves."""
LOAD_S = 300.0
"""What it may take to load an adapter, which may lie on a network's disk."""
SCORE_S = 60.0
"""What it may take to score one short text while it is busy; all other servers wait for it in a pass."""


class VllmClient:
    """The control routes of one server.

    Args:
        url: without ``/v1``, such as ``http://10.0.0.7:8000``.
        api_key: sent as bearer token.
        verify: whose certificates are trusted.
    """

    def __init__(self, url: str, api_key: str, verify: ssl.SSLContext | bool = True) -> None:
        self.url = url
        # No proxy of the environment: these are machines of the house.
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, trust_env=False, verify=verify
        )

    def models(self) -> dict[str, str | None]:
        """What the server answers for: name -> folder or name that it was loaded from.

        Raises:
            ServerLost: it is not reached, or as ServerSlow does not answer in time.
            InhouseError: it refuses, or answers what is no list of models.
        """
        answer = self._ask("GET", "/v1/models", None, ASK_S)
        try:
            return {str(each["id"]): each.get("root") for each in answer.json()["data"]}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InhouseError(
                f"What {self.url} answers to /v1/models is no list of models.", "Correct engine.servers."
            ) from None

    def load(self, name: str, folder: str) -> None:
        """Load an adapter from a folder that the server sees.

        Raises:
            ServerLost, Overloaded: as its classes say.
            InhouseError: the server refuses the adapter.
        """
        self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, LOAD_S)

    def unload(self, name: str) -> None:
        """Forget an adapter. Answers that are under way keep it.

        Raises:
            ServerLost, Overloaded: as its classes say.
            InhouseError: the server does not have it.
        """
        self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name}, LOAD_S)

    def nats(self, model: str, ids: tuple[int, ...]) -> tuple[float, ...]:
        """Negative log-likelihood of each token after the first, as ``model`` computes it now.

        vLLM takes nothing from its prefix cache for a request that asks for this.

        Raises:
            ServerLost, Overloaded: as its classes say.
            InhouseError: the server refuses, or does not tell.
        """
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        answer = self._ask("POST", "/v1/completions", body, SCORE_S)
        try:
            told = answer.json()["choices"][0]["prompt_logprobs"]
            found = tuple(-float(told[at][str(ids[at])]["logprob"]) for at in range(1, len(ids)))
        except (ValueError, KeyError, TypeError, IndexError):
            raise InhouseError(
                f"The server at {self.url} does not tell likelihoods of a prompt's tokens.", "Use vLLM 0.9 or newer."
            ) from None
        if not all(math.isfinite(each) for each in found):
            raise InhouseError(f"The server at {self.url} computes likelihoods that are no numbers.", "Restart it.")
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body, timeout=httpx.Timeout(timeout_s, connect=ASK_S))
        except httpx.ReadTimeout as error:
            raise ServerSlow(
                f"The model server at {self.url} does not answer within {timeout_s:.0f} s.", "See what keeps it busy."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerLost(
                f"The model server at {self.url} is not reached ({type(error).__name__}).", "Start it."
            ) from error
        if answer.status_code in (429, 503):
            wait_s = retry_after(answer.headers.get("retry-after"))
            raise Overloaded(f"The model server at {self.url} is busy.", answer.status_code, wait_s)
        if answer.is_error:
            raise InhouseError(f"The server at {self.url} refuses {path}: {_said(answer)}", _remedy(path, answer))
        return answer


def _said(answer: httpx.Response) -> str:
    """The server's own sentence, without what a log line must not hold."""
    try:
        said = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = f"status {answer.status_code}"
    return " ".join(said.split())[:300]


def _remedy(path: str, answer: httpx.Response) -> str:
    if answer.status_code in (401, 403):
        return "Correct the variable in engine.api_key_env."
    if answer.status_code in (404, 405) and path.endswith("lora_adapter"):
        return "Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=true."
    return "Its log says more."
