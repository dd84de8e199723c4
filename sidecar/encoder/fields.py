"""The fields of a config.json that a family reads, over the defaults of transformers' class."""

from collections.abc import Mapping
from typing import Any

from sidecar.encoder.architecture import Activation, UnsupportedModelError

# transformers' names. Its several tanh approximations of GELU differ by FP32's rounding only.
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
# Fields whose other values are other mathematics, which no family here computes.
_ONLY: Mapping[str, Any] = {
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "position_embedding_type": "absolute",
    "quantization_config": None,
}


class Fields:
    """What `stated`, a config.json, says, and `defaults` where it is silent.

    A field whose value is of another type than it should be raises `ValueError` when it is
    read. Raises `UnsupportedModelError` for a variant that no graph here computes.
    """

    def __init__(self, stated: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._values = {**defaults, **stated}
        for name, only in _ONLY.items():
            value = stated.get(name) or only
            if value != only:
                raise UnsupportedModelError(f"{name} is {value!r} (known is {only!r})")

    def count(self, name: str, *, least: int = 1) -> int:
        """Return a whole number of at least `least`."""
        value = self._values[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is {value!r}, not a whole number of at least {least}")
        return value

    def number(self, name: str) -> float:
        """Return a number that is not negative."""
        value = self._values[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise ValueError(f"{name} is {value!r}, not a number of at least 0")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        return bool(self._values[name])

    def activation(self, name: str) -> Activation:
        """Return the activation function between a layer's two larger multiplications."""
        value = self._values[name]
        if value not in _ACTIVATIONS:
            known = ", ".join(sorted(_ACTIVATIONS))
            raise UnsupportedModelError(f"{name} is {value!r} (known are {known})")
        return _ACTIVATIONS[value]

    def heads(self, name: str, hidden: int) -> int:
        """Return the number of attention heads, which `hidden` is split among."""
        count = self.count(name)
        if hidden % count:
            raise ValueError(f"{name} is {count}, which does not divide {hidden} dimensions")
        return count
