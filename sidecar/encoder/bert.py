"""The BERT family (MiniLM, e5, bge-*-en and most small cross-encoders) as an `Encoder`.

Names and mathematics: Devlin et al., 2018 (arXiv:1810.04805), as laid out by transformers'
`BertModel` and `BertForSequenceClassification`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sidecar.encoder.architecture import (
    Classifier,
    Embeddings,
    Encoder,
    Float32,
    Layer,
    Linear,
    Norm,
    Pooling,
    UnsupportedModelError,
)

# "gelu" is the exact one, x * Phi(x); its tanh approximations differ by 1e-3 and are refused
# rather than served as something that they are not.
_ACTIVATION = "gelu"


def read_bert(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], pooling: Pooling | None
) -> Encoder:
    """Return the encoder that `config` and its tensors describe.

    `tensor` returns a float32 array by its checkpoint name without the `bert.` prefix.
    `pooling` None reads the classification head of a cross-encoder.

    Raises `UnsupportedModelError` for a variant whose mathematics differ, `KeyError` for a
    checkpoint that lacks a tensor.
    """
    _check(config)
    epsilon = float(config.get("layer_norm_eps", 1e-12))

    def linear(name: str) -> Linear:
        return Linear(tensor(f"{name}.weight"), tensor(f"{name}.bias"))

    def norm(name: str) -> Norm:
        return Norm(tensor(f"{name}.weight"), tensor(f"{name}.bias"), epsilon)

    def layer(index: int) -> Layer:
        at = f"encoder.layer.{index}"
        parts = [linear(f"{at}.attention.self.{part}") for part in ("query", "key", "value")]
        return Layer(
            query_key_value=_stack(parts),
            attention_output=linear(f"{at}.attention.output.dense"),
            attention_norm=norm(f"{at}.attention.output.LayerNorm"),
            up=linear(f"{at}.intermediate.dense"),
            down=linear(f"{at}.output.dense"),
            output_norm=norm(f"{at}.output.LayerNorm"),
        )

    return Encoder(
        embeddings=Embeddings(
            word=tensor("embeddings.word_embeddings.weight"),
            position=tensor("embeddings.position_embeddings.weight"),
            token_type=tensor("embeddings.token_type_embeddings.weight"),
            norm=norm("embeddings.LayerNorm"),
        ),
        layers=tuple(layer(index) for index in range(int(config["num_hidden_layers"]))),
        heads=int(config["num_attention_heads"]),
        head=pooling or Classifier(linear("pooler.dense"), linear("classifier")),
    )


def _check(config: Mapping[str, Any]) -> None:
    activation = config.get("hidden_act", _ACTIVATION)
    if activation != _ACTIVATION:
        raise UnsupportedModelError(f"activation {activation!r} (known is {_ACTIVATION!r})")
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UnsupportedModelError(f"{positions!r} positions (known is 'absolute')")
    if config.get("is_decoder"):
        raise UnsupportedModelError("a decoder")


def _stack(parts: list[Linear]) -> Linear:
    return Linear(
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.bias for part in parts]),
    )
