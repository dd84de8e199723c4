"""DistilBERT: BERT without token types, under names of its own.

Sanh et al., 2019 (arXiv:1910.01108), as laid out by transformers' `DistilBertModel`.
"""

from collections.abc import Callable, Mapping
from typing import Any

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

_EPSILON = 1e-12  # fixed in the reference, not a setting
_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "n_layers": 6,
    "n_heads": 12,
    "dim": 768,
    "hidden_dim": 3072,
    "activation": "gelu",
}
# transformers' names for all families, which a config may have in place of this one's own.
_ALIASES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}


def longest_distilbert_row(config: Mapping[str, Any]) -> int:
    """Return how many tokens the table of positions has rows for."""
    return _fields(config).count("max_position_embeddings")


def read_distilbert(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    fields = _fields(config)
    checkpoint = Checkpoint(tensor, _EPSILON)
    hidden, between = fields.count("dim"), fields.count("hidden_dim")
    rows = fields.count("max_position_embeddings")
    return Encoder(
        embeddings=Embeddings(
            word=checkpoint.table("embeddings.word_embeddings", fields.count("vocab_size"), hidden),
            position=checkpoint.table("embeddings.position_embeddings", rows, hidden),
            norm=checkpoint.norm("embeddings.LayerNorm", hidden),
        ),
        layers=Layers(
            fields.count("n_layers"),
            lambda index: _layer(checkpoint, f"transformer.layer.{index}", hidden, between),
        ),
        heads=fields.heads("n_heads", hidden),
        head=head or _classifier(checkpoint, hidden),
        activation=fields.activation("activation"),
    )


def _fields(config: Mapping[str, Any]) -> Fields:
    return Fields({_ALIASES.get(name, name): value for name, value in config.items()}, _DEFAULTS)


def _classifier(checkpoint: Checkpoint, hidden: int) -> Classifier:
    return Classifier(
        checkpoint.linear("pre_classifier", hidden, hidden),
        checkpoint.linear("classifier", 1, hidden),
        Activation.RELU,
    )


def _layer(checkpoint: Checkpoint, at: str, hidden: int, between: int) -> Layer:
    attention = f"{at}.attention"
    names = tuple(f"{attention}.{name}" for name in ("q_lin", "k_lin", "v_lin"))
    return Layer(
        query_key_value=checkpoint.stacked(names, hidden),
        attention_output=checkpoint.linear(f"{attention}.out_lin", hidden, hidden),
        attention_norm=checkpoint.norm(f"{at}.sa_layer_norm", hidden),
        up=checkpoint.linear(f"{at}.ffn.lin1", between, hidden),
        down=checkpoint.linear(f"{at}.ffn.lin2", hidden, between),
        output_norm=checkpoint.norm(f"{at}.output_layer_norm", hidden),
    )
