"""The fields of config.json that determine a model's mathematics."""

from collections.abc import Mapping
from typing import Any

from sidecar.encoder.architecture import Activation, UnsupportedModelError

# transformers' names. Its various tanh approximations of GELU differ only by FP32 rounding.
_ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_accurate": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_new": Activation.GELU_TANH,
    "gelu_python_tanh": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "quick_gelu": Activation.QUICK_GELU,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
}
# The only supported value of each field; any other means different mathematics.
_ONLY: Mapping[str, Any] = {
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "position_embedding_type": "absolute",
    "quantization_config": None,
}


def check_mathematics(config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModelError` for a variant that the graph would compute incorrectly."""
    for name, only in _ONLY.items():
        value = config.get(name) or only
        if value != only:
            raise UnsupportedModelError(f"{name} is {value!r} (supported: {only!r})")


def activation_of(config: Mapping[str, Any], name: str) -> Activation:
    """Return the feed-forward activation that the field `name` states.

    Raises `UnsupportedModelError` if it is not supported.
    """
    value = config[name]
    if value not in _ACTIVATIONS:
        known = ", ".join(sorted(_ACTIVATIONS))
        raise UnsupportedModelError(f"{name} is {value!r} (supported: {known})")
    return _ACTIVATIONS[value]


def rows_behind(config: Mapping[str, Any], padding_id: int) -> int:
    """Return the number of rows of the position table after the padding row.

    Raises `UnsupportedModelError` if there are none.
    """
    rows = int(config["max_position_embeddings"]) - padding_id - 1
    if rows < 1:
        stated = f"max_position_embeddings {config['max_position_embeddings']}"
        raise UnsupportedModelError(f"{stated} leaves no position after padding id {padding_id}")
    return rows
