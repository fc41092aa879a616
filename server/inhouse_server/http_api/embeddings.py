"""`/v1/embeddings`: vectors of the encoder that the index is made with."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inhouse_server.access import Work
from inhouse_server.http_api.errors import Refused
from inhouse_server.http_api.openai_requests import EmbeddingRequest
from inhouse_server.http_api.reading import read_openai
from inhouse_server.http_api.repositories import asked_of

if TYPE_CHECKING:
    from inhouse_retrieval.embedding import Encoder


async def embeddings(request: Request) -> Response:
    """A unit vector for each text; a text that is longer than the encoder reads is refused unless it may be cut."""
    body = await read_openai(request, EmbeddingRequest, "embedding")
    workspace, model = asked_of(request, body.model, lambda each: {each.settings.encoder.name})
    name = workspace.settings.encoder.name
    if model != name:
        raise Refused(404, f"The encoder here is {name!r}.", "model_not_found", "model")
    answer = await run_in_threadpool(lambda: _embedded(body, workspace.index.encoder))
    request.scope["worked"](Work("embedding", None, None, answer["usage"]["prompt_tokens"], texts=len(answer["data"])))
    return JSONResponse(answer)


def _embedded(body: EmbeddingRequest, encoder: Encoder) -> dict[str, Any]:
    if body.dimensions not in (None, encoder.dimension):
        raise Refused(
            400, f"The encoder's vectors have {encoder.dimension} dimensions.", "invalid_request_error", "dimensions"
        )
    texts = body.texts()
    counts = encoder.count_tokens(texts)
    longest = max(counts)
    if longest > encoder.max_tokens and not body.inhouse.truncate:
        raise Refused(
            400,
            f"A text has {longest} tokens, the encoder reads {encoder.max_tokens}. Cut it, or set inhouse.truncate.",
            "invalid_request_error",
            "input",
        )
    if body.inhouse.query:
        vectors = np.stack([encoder.encode_query(text) for text in texts])
    else:
        vectors = encoder.encode_documents(texts)
    read = sum(min(count, encoder.max_tokens) for count in counts)

    def written(vector: Any) -> Any:
        if body.encoding_format == "base64":
            return base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return vector.tolist()

    data = [{"object": "embedding", "index": at, "embedding": written(each)} for at, each in enumerate(vectors)]
    return {
        "object": "list",
        "data": data,
        "model": body.model,
        "usage": {"prompt_tokens": read, "total_tokens": read},
    }
