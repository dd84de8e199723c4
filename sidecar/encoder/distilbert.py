"""DistilBERT: BERT without token types, and with different names.

Sanh et al., 2019 (arXiv:1910.01108), as implemented by `DistilBertModel` in transformers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.encoder.architecture import Activation, Encoder, Float32, Head
from sidecar.encoder.checkpoint import Checkpoint
from sidecar.encoder.fields import check_mathematics
from sidecar.encoder.names import Names, read_encoder

_NAMES = Names(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
    layer_count="n_layers",
    head_count="n_heads",
    activation="activation",
)
_EPSILON = 1e-12  # hard-coded in the reference implementation


def read_distilbert(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    check_mathematics(config)
    checkpoint = Checkpoint(tensor, _EPSILON)
    classifier = head or checkpoint.classifier("pre_classifier", "classifier", Activation.RELU)
    return read_encoder(config, checkpoint, _NAMES, classifier)
