"""The daemon's replies as the response bodies of the OpenAI, Cohere and Jina APIs."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_lib import EmbedReply, RerankReply


def embeddings(reply: EmbedReply, encoding_format: str) -> dict[str, Any]:
    """Return OpenAI's `CreateEmbeddingResponse`, plus the indexes of truncated texts."""
    encode = _base64 if encoding_format == "base64" else _floats
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(reply.vectors)
        ],
        "model": reply.model,
        "usage": asdict(reply.usage),
        "truncated": reply.truncated,
    }


def rerank(reply: RerankReply, documents: Sequence[str] | None, name: str) -> dict[str, Any]:
    """Return the results, best first, in a form that suits Cohere's and Jina's clients.

    `documents` are the request's, or None if the answer should not repeat them; `name` becomes
    `id`. Jina's clients read the token count from `usage`, Cohere's from `meta`.
    """
    return {
        "id": name,
        "model": reply.model,
        "method": reply.method,
        "results": [
            asdict(hit) | ({"document": {"text": documents[hit.index]}} if documents else {})
            for hit in reply.results
        ],
        "usage": asdict(reply.usage),
        "meta": {"tokens": {"input_tokens": reply.usage.total_tokens}},
        "truncated": reply.truncated,
    }


def models(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's list of models, each with its `task` and its `verified` entry."""
    since = int(datetime.fromisoformat(status["since"]).timestamp())
    return {
        "object": "list",
        "data": [
            {
                "id": model["name"],
                "object": "model",
                "created": since,
                "owned_by": "sidecar",
                "task": model["task"],
                "verified": model.get("verified"),
            }
            for model in status["models"]
        ],
    }


def _base64(vector: NDArray[np.float32]) -> str:
    """Return `vector` as little-endian float32 in base64."""
    return b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def _floats(vector: NDArray[np.float32]) -> list[float]:
    """Return `vector` as floats that equal its float32 values exactly."""
    numbers: list[float] = vector.tolist()
    return numbers
