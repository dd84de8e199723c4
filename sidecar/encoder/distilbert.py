"""DistilBERT: BERT without token types, and with different names.

Sanh et al., 2019 (arXiv:1910.01108), as implemented by `DistilBertModel` in transformers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.encoder.architecture import (
    Activation,
    Embeddings,
    Encoder,
    Float32,
    Head,
    Layer,
    Layers,
)
from sidecar.encoder.checkpoint import Checkpoint
from sidecar.encoder.fields import activation_of, check_mathematics

_EPSILON = 1e-12  # hard-coded in the reference implementation


def read_distilbert(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    check_mathematics(config)
    checkpoint = Checkpoint(tensor, _EPSILON)
    return Encoder(
        embeddings=Embeddings(
            word=checkpoint.tensor("embeddings.word_embeddings.weight"),
            position=checkpoint.tensor("embeddings.position_embeddings.weight"),
            norm=checkpoint.norm("embeddings.LayerNorm"),
        ),
        layers=Layers(
            int(config["n_layers"]),
            lambda index: _layer(checkpoint, f"transformer.layer.{index}"),
        ),
        heads=int(config["n_heads"]),
        head=head or checkpoint.classifier("pre_classifier", "classifier", Activation.RELU),
        activation=activation_of(config, "activation"),
    )


def _layer(checkpoint: Checkpoint, at: str) -> Layer:
    attention = f"{at}.attention"
    return Layer(
        query_key_value=checkpoint.stacked(
            f"{attention}.q_lin", f"{attention}.k_lin", f"{attention}.v_lin"
        ),
        attention_output=checkpoint.linear(f"{attention}.out_lin"),
        attention_norm=checkpoint.norm(f"{at}.sa_layer_norm"),
        up=checkpoint.linear(f"{at}.ffn.lin1"),
        down=checkpoint.linear(f"{at}.ffn.lin2"),
        output_norm=checkpoint.norm(f"{at}.output_layer_norm"),
    )
