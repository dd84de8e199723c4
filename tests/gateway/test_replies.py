"""The daemon's replies in the formats of other APIs, field by field."""

from base64 import b64decode
from datetime import UTC, datetime

import numpy as np
import pytest

from client_lib import EmbedReply, RerankReply, RerankResult, Timings, Usage
from sidecar.gateway import replies

USAGE = Usage(prompt_tokens=5, total_tokens=6)
TIMINGS = Timings(1, 2, 3, 4, 5, 6, 7, 8)
VECTORS = np.array([[0.1, -2.5, 3.0], [1e-30, 0.0, -0.0]], np.float32)


def test_vectors_are_openais() -> None:
    """Vectors are floats equal to their float32, or little-endian float32 bytes in base64."""
    reply = EmbedReply("m", VECTORS, USAGE, TIMINGS, (1,))
    numbers = replies.embeddings(reply, "float")
    assert {name: numbers[name] for name in ("object", "model", "usage", "truncated")} == {
        "object": "list", "model": "m", "truncated": (1,),
        "usage": {"prompt_tokens": 5, "total_tokens": 6},
    }  # fmt: skip
    assert [(row["object"], row["index"]) for row in numbers["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    kept = np.array([row["embedding"] for row in numbers["data"]], np.float32)
    assert kept.tobytes() == VECTORS.tobytes()
    in_bytes = [b64decode(row["embedding"]) for row in replies.embeddings(reply, "base64")["data"]]
    assert b"".join(in_bytes) == VECTORS.astype("<f4").tobytes()


@pytest.mark.parametrize("documents", [None, ["a", "b", "c"]])
def test_rankings_are_coheres_and_jinas(documents: list[str] | None) -> None:
    """Results keep the daemon's order, and each returned document has its own text."""
    hits = (RerankResult(2, 0.5), RerankResult(0, -1.0))
    body = replies.rerank(
        RerankReply("m", "cross_encoder", hits, USAGE, TIMINGS, (0,)), documents, "name"
    )
    texts = [{"document": {"text": "c"}}, {"document": {"text": "a"}}] if documents else [{}, {}]
    assert body == {
        "id": "name", "model": "m", "method": "cross_encoder", "truncated": (0,),
        "usage": {"prompt_tokens": 5, "total_tokens": 6},
        "meta": {"tokens": {"input_tokens": 6}},
        "results": [
            {"index": 2, "relevance_score": 0.5, **texts[0]},
            {"index": 0, "relevance_score": -1.0, **texts[1]},
        ],
    }  # fmt: skip


def test_models_are_openais() -> None:
    """Each model has the daemon's start in whole seconds, its task and its verification."""
    since = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    models = [
        {"name": "a", "task": "embed", "verified": {"cosine_min": 1.0}},
        {"name": "b", "task": "rerank"},
    ]
    shared = {"object": "model", "created": 1_767_323_045, "owned_by": "sidecar"}
    assert replies.models({"since": since.isoformat(), "models": models}) == {
        "object": "list",
        "data": [
            {"id": "a", "task": "embed", "verified": {"cosine_min": 1.0}, **shared},
            {"id": "b", "task": "rerank", "verified": None, **shared},
        ],
    }
