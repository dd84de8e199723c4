"""MPNet: BERT's layers with a distance-dependent bias on the attention scores.

Song et al., 2020 (arXiv:2004.09297), with the distance buckets of T5, Raffel et al., 2019
(arXiv:1910.10683), as implemented by `MPNetModel` in transformers.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import (
    Activation,
    Encoder,
    Float32,
    Head,
    UnsupportedModelError,
)
from sidecar.encoder.checkpoint import Checkpoint
from sidecar.encoder.fields import check_mathematics, rows_behind
from sidecar.encoder.names import Names, read_encoder

_NAMES = Names(
    layers="encoder.layer",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)

# Hard-coded in the reference implementation, whatever the config states.
_PADDING_ID = 1
_MAX_DISTANCE = 128
_BUCKETS = 32


def longest_mpnet_row(config: Mapping[str, Any]) -> int:
    """Return the number of tokens for which the position table has rows after the padding row."""
    return rows_behind(config, _PADDING_ID)


def read_mpnet(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    check_mathematics(config)
    checkpoint = Checkpoint(tensor, float(config["layer_norm_eps"]))
    buckets = checkpoint.tensor("encoder.relative_attention_bias.weight")
    if len(buckets) < _BUCKETS:
        raise UnsupportedModelError(f"{len(buckets)} distance buckets, at least {_BUCKETS} needed")
    classifier = head or checkpoint.classifier(
        "classifier.dense", "classifier.out_proj", Activation.TANH
    )
    encoder = read_encoder(config, checkpoint, _NAMES, classifier)
    return replace(
        encoder,
        embeddings=replace(encoder.embeddings, padding_id=_PADDING_ID),
        distance_bias=distance_bias(buckets, longest_mpnet_row(config)),
    )


def distance_bias(buckets: Float32, longest: int) -> Float32:
    """Return the attention score bias by distance, float32 [heads, 2 * longest - 1].

    Column `longest - 1 + d` is for a key d tokens after its query. `buckets` is the learned
    table, float32 [buckets, heads]; only its first 32 rows are used.
    """
    distances = np.arange(-longest + 1, longest)
    return np.ascontiguousarray(buckets[_bucket(distances)].T)


def _bucket(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return T5's bidirectional buckets: exact below 8 tokens, then logarithmic."""
    half = _BUCKETS // 2
    exact = half // 2
    far = np.abs(distances)
    # In float32 like the reference, as the bucket boundaries depend on it.
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / exact) / np.log(_MAX_DISTANCE / exact)
    logarithmic = exact + (ratio * (half - exact)).astype(np.int64)
    inside = np.where(far < exact, far, np.minimum(logarithmic, half - 1))
    bucket: NDArray[np.int64] = inside + np.where(distances > 0, half, 0)
    return bucket
