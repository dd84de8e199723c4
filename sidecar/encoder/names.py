"""What a family calls its tensors and the fields of its config, and the reader of all families.

A family is data here: its names. Only what it computes differently stays in its own module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.encoder.architecture import Classifier, Embeddings, Encoder, Head, Layer, Layers
from sidecar.encoder.checkpoint import Checkpoint
from sidecar.encoder.fields import activation_of

_EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """A family's names: of tensors, without `.weight` and `.bias`, and of the config's fields.

    The layers are `layers`.0, `layers`.1, ...; the parts of a layer are named below it.
    """

    layers: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str
    has_token_types: bool = False
    layer_count: str = "num_hidden_layers"
    head_count: str = "num_attention_heads"
    activation: str = "hidden_act"


def read_encoder(
    config: Mapping[str, Any], checkpoint: Checkpoint, names: Names, head: Head | Classifier
) -> Encoder:
    """Return the encoder whose tensors have these `names`.

    Raises `UnsupportedModelError` for an activation that is not supported.
    """
    return Encoder(
        embeddings=_embeddings(checkpoint, names),
        layers=Layers(
            int(config[names.layer_count]),
            lambda index: _layer(checkpoint, names, f"{names.layers}.{index}"),
        ),
        heads=int(config[names.head_count]),
        head=head,
        activation=activation_of(config, names.activation),
    )


def _embeddings(checkpoint: Checkpoint, names: Names) -> Embeddings:
    types = f"{_EMBEDDINGS}.token_type_embeddings.weight"
    return Embeddings(
        word=checkpoint.tensor(f"{_EMBEDDINGS}.word_embeddings.weight"),
        position=checkpoint.tensor(f"{_EMBEDDINGS}.position_embeddings.weight"),
        token_type=checkpoint.tensor(types) if names.has_token_types else None,
        norm=checkpoint.norm(f"{_EMBEDDINGS}.LayerNorm"),
    )


def _layer(checkpoint: Checkpoint, names: Names, at: str) -> Layer:
    return Layer(
        query_key_value=checkpoint.stacked(
            f"{at}.{names.query}", f"{at}.{names.key}", f"{at}.{names.value}"
        ),
        attention_output=checkpoint.linear(f"{at}.{names.attention_output}"),
        attention_norm=checkpoint.norm(f"{at}.{names.attention_norm}"),
        up=checkpoint.linear(f"{at}.{names.up}"),
        down=checkpoint.linear(f"{at}.{names.down}"),
        output_norm=checkpoint.norm(f"{at}.{names.output_norm}"),
    )
