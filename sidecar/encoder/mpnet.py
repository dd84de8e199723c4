"""MPNet: BERT's layers with a bias on the attention scores that depends on the distance.

Song et al., 2020 (arXiv:2004.09297); the distance's buckets are T5's, Raffel et al., 2019
(arXiv:1910.10683), as laid out by transformers' `MPNetModel`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import (
    Activation,
    Classifier,
    Embeddings,
    Encoder,
    Float32,
    Head,
    Layer,
    Layers,
)
from sidecar.encoder.checkpoint import Checkpoint
from sidecar.encoder.fields import Fields

# Fixed in the reference, whatever the config says.
_PADDING_ID = 1
_MAX_DISTANCE = 128
_BUCKETS = 32

_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30_527,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "relative_attention_num_buckets": _BUCKETS,
}


def longest_mpnet_row(config: Mapping[str, Any]) -> int:
    """Return how many tokens the table of positions has rows for, behind the padding's own."""
    first = _PADDING_ID + 1
    return Fields(config, _DEFAULTS).count("max_position_embeddings", least=first + 1) - first


def read_mpnet(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    fields = Fields(config, _DEFAULTS)
    checkpoint = Checkpoint(tensor, fields.number("layer_norm_eps"))
    hidden, between = fields.count("hidden_size"), fields.count("intermediate_size")
    rows, heads = (
        fields.count("max_position_embeddings"),
        fields.heads("num_attention_heads", hidden),
    )
    buckets = fields.count("relative_attention_num_buckets", least=_BUCKETS)
    biases = checkpoint.table("encoder.relative_attention_bias", buckets, heads)
    return Encoder(
        embeddings=Embeddings(
            word=checkpoint.table("embeddings.word_embeddings", fields.count("vocab_size"), hidden),
            position=checkpoint.table("embeddings.position_embeddings", rows, hidden),
            norm=checkpoint.norm("embeddings.LayerNorm", hidden),
            padding_id=_PADDING_ID,
        ),
        layers=Layers(
            fields.count("num_hidden_layers"),
            lambda index: _layer(checkpoint, f"encoder.layer.{index}", hidden, between),
        ),
        heads=heads,
        head=head or _classifier(checkpoint, hidden),
        activation=fields.activation("hidden_act"),
        distance_bias=distance_bias(biases, longest_mpnet_row(config)),
    )


def distance_bias(buckets: Float32, longest: int) -> Float32:
    """Return what is added to the scores of keys at a distance, float32 [heads, 2*longest - 1].

    Column `longest - 1 + d` is for a key d tokens after its query. `buckets` is the learned
    table, float32 [buckets, heads], of which the first 32 rows are used.
    """
    distances = np.arange(-longest + 1, longest)
    return np.ascontiguousarray(buckets[_bucket(distances)].T)


def _bucket(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return T5's bidirectional bucket: exact up to a quarter of them, then logarithmic."""
    half = _BUCKETS // 2
    exact = half // 2
    far = np.abs(distances)
    # In float32, as the reference computes it: the edges of the buckets depend on it.
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / exact) / np.log(_MAX_DISTANCE / exact)
    logarithmic = exact + (ratio * (half - exact)).astype(np.int64)
    inside = np.where(far < exact, far, np.minimum(logarithmic, half - 1))
    bucket: NDArray[np.int64] = inside + np.where(distances > 0, half, 0)
    return bucket


def _classifier(checkpoint: Checkpoint, hidden: int) -> Classifier:
    return Classifier(
        checkpoint.linear("classifier.dense", hidden, hidden),
        checkpoint.linear("classifier.out_proj", 1, hidden),
        Activation.TANH,
    )


def _layer(checkpoint: Checkpoint, at: str, hidden: int, between: int) -> Layer:
    attention = f"{at}.attention.attn"
    names = tuple(f"{attention}.{name}" for name in "qkv")
    return Layer(
        query_key_value=checkpoint.stacked(names, hidden),
        attention_output=checkpoint.linear(f"{attention}.o", hidden, hidden),
        attention_norm=checkpoint.norm(f"{at}.attention.LayerNorm", hidden),
        up=checkpoint.linear(f"{at}.intermediate.dense", between, hidden),
        down=checkpoint.linear(f"{at}.output.dense", hidden, between),
        output_norm=checkpoint.norm(f"{at}.output.LayerNorm", hidden),
    )
