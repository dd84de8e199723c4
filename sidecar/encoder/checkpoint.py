"""Access to a checkpoint's tensors as the parts that families need."""

from collections.abc import Callable

import numpy as np

from sidecar.encoder.architecture import Activation, Classifier, Float32, Linear, Norm


class Checkpoint:
    """A checkpoint; `tensor` returns a float32 array by name, or raises `ValueError` if missing."""

    def __init__(self, tensor: Callable[[str], Float32], epsilon: float) -> None:
        self.tensor = tensor
        self._epsilon = epsilon

    def linear(self, name: str) -> Linear:
        """Return the Linear layer `name`."""
        return Linear(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def stacked(self, *names: str) -> Linear:
        """Return Linear layers with a common input as one, outputs in the order of `names`."""
        parts = [self.linear(name) for name in names]
        return Linear(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.bias for part in parts]),
        )

    def norm(self, name: str) -> Norm:
        """Return the layer normalisation `name`."""
        return Norm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), self._epsilon)

    def classifier(self, dense: str, output: str, activation: Activation) -> Classifier:
        """Return the classification head made of these two Linear layers."""
        return Classifier(self.linear(dense), self.linear(output), activation)
