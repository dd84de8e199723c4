"""A checkpoint's tensors, read in the shapes that the families need."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sidecar.encoder.architecture import Float32, Linear, Norm, UnsupportedModelError

# "gelu" is the exact one, x * Phi(x); its tanh approximations differ by 1e-3 and are refused
# rather than served as something that they are not.
_ACTIVATION = "gelu"


class Checkpoint:
    """`tensor` returns a float32 array by name, and raises `KeyError` for one that lacks."""

    def __init__(self, tensor: Callable[[str], Float32], epsilon: float) -> None:
        self.tensor = tensor
        self._epsilon = epsilon

    def linear(self, name: str) -> Linear:
        """Return the Linear layer `name`."""
        return Linear(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def stacked(self, *names: str) -> Linear:
        """Return several Linear layers of one input as one, outputs in the order of `names`."""
        parts = [self.linear(name) for name in names]
        return Linear(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.bias for part in parts]),
        )

    def norm(self, name: str) -> Norm:
        """Return the layer normalisation `name`."""
        return Norm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), self._epsilon)


def check_mathematics(config: Mapping[str, Any], activation: str) -> None:
    """Raise `UnsupportedModelError` for a variant that the graph would compute wrongly."""
    if activation != _ACTIVATION:
        raise UnsupportedModelError(f"activation {activation!r} (known is {_ACTIVATION!r})")
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UnsupportedModelError(f"{positions!r} positions (known is 'absolute')")
    if config.get("is_decoder"):
        raise UnsupportedModelError("a decoder")
