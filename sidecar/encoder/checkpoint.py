"""A checkpoint's tensors, read in the shapes that the families need."""

from collections.abc import Callable

import numpy as np

from sidecar.encoder.architecture import Activation, Classifier, Float32, Linear, Norm


class Checkpoint:
    """`tensor` returns a float32 array by name, and raises `ValueError` for one that lacks."""

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

    def classifier(self, dense: str, output: str, activation: Activation) -> Classifier:
        """Return the head of these two Linear layers."""
        return Classifier(self.linear(dense), self.linear(output), activation)
