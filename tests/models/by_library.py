"""Our FP32 vectors and scores for a folder, compared with those of sentence-transformers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.encoder.graph import build
from sidecar.encoder.recipes import Float32Recipe
from sidecar.models.compute import forward, session_of
from sidecar.models.exact import tokenizer_of
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.rows import Text
from sidecar.models.tokenizer import Tokenizer

from ..later import Later

CrossEncoder = Later("sentence_transformers", "CrossEncoder")
SentenceTransformer = Later("sentence_transformers", "SentenceTransformer")

TEXTS = ["", "ok", "how do I renew a passport", "a [PAD] in the middle", "copper heats. " * 40]
PAIRS = [("a query", "ok"), ("what is copper", "a metal"), ("copper", "conducts heat. " * 30)]


def ours(folder: Path, texts: Sequence[Text], workshop: Path) -> Float32:
    """Return our graph's outputs, float32 [texts, outputs]; `workshop` holds the tokenizer."""
    description = describe(folder)
    graph = build(read_encoder(folder, description), Float32Recipe())
    session = session_of(graph.SerializeToString(), "none")
    text = tokenizer_of(folder, description.max_tokens, None)
    (workshop / "tokenizer.json").write_text(text)
    rows = Tokenizer(workshop / "tokenizer.json", description.max_tokens).rows(texts)
    vectors = np.stack([forward(session, description.activation, row) for row in rows])
    if not description.normalize:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def differences(folder: Path, workshop: Path) -> Float32:
    """Return how far our vector or score for each text is from the library's.

    A vector's distance is relative to the length of the library's.
    """
    if describe(folder).task == "rerank":
        model = CrossEncoder(str(folder), device="cpu")
        scores = np.concatenate([model.predict([pair]) for pair in PAIRS])
        return np.abs(ours(folder, PAIRS, workshop)[:, 0] - scores)
    embedder = SentenceTransformer(str(folder), device="cpu")
    vectors = np.stack([embedder.encode([text])[0] for text in TEXTS])
    gaps = np.linalg.norm(ours(folder, TEXTS, workshop) - vectors, axis=1)
    return np.asarray(gaps / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12), np.float32)
