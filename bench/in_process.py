"""What an application does without a server: encoders in this process, texts in, vectors out."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from bench.callers import Encode
from bench.in_torch import textbook_int8


def in_fp32(folder: Path, cores: int) -> tuple[SentenceTransformer, Encode]:
    """Return sentence-transformers' model, and how it encodes."""
    torch.set_num_threads(cores)
    transformers.logging.disable_progress_bar()
    model = SentenceTransformer(str(folder), device="cpu")
    return model, _encoder(model)


def in_textbook_int8(model: SentenceTransformer) -> Encode:
    """Return the same model after the recipe of PyTorch's documentation."""
    return _encoder(textbook_int8(model))


def _encoder(model: SentenceTransformer) -> Encode:
    def encode(texts: list[str]) -> NDArray[np.float32]:
        return model.encode(texts, batch_size=len(texts), show_progress_bar=False)

    return encode


def by_hand(graph: Path, folder: Path, max_tokens: int, cores: int) -> Encode:
    """Return the fastest that a user can write on onnxruntime: unpadded, all cores on a text.

    The graph is ours, its operators fused, with mean pooling as its last one.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = cores
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)

    def encode(texts: list[str]) -> NDArray[np.float32]:
        vectors = []
        for text in texts:
            ids = np.array([tokenizer.encode(text).ids])
            feeds = {"ids": ids, "token_types": np.zeros_like(ids)}
            vectors.append(session.run(["vectors"], feeds)[0][0])
        found = np.stack(vectors)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return encode
