"""A checkpoint's tensors, read in the shapes that the families need."""

from collections.abc import Callable

import numpy as np

from sidecar.encoder.architecture import Float32, Linear, Norm


class Checkpoint:
    """Reads by `tensor`, which returns float32 by name and raises `KeyError` for what lacks.

    Raises `ValueError` for a tensor of another shape than the config says.
    """

    def __init__(self, tensor: Callable[[str], Float32], epsilon: float) -> None:
        self._tensor = tensor
        self._epsilon = epsilon

    def table(self, name: str, rows: int, width: int) -> Float32:
        """Return the lookup table `name`, float32 [rows, width]."""
        return self._of_shape(f"{name}.weight", rows, width)

    def linear(self, name: str, outputs: int, inputs: int) -> Linear:
        """Return the Linear layer `name`."""
        weight = self._of_shape(f"{name}.weight", outputs, inputs)
        return Linear(weight, self._of_shape(f"{name}.bias", outputs))

    def stacked(self, names: tuple[str, ...], hidden: int) -> Linear:
        """Return square Linear layers of one input as one, outputs in the order of `names`."""
        parts = [self.linear(name, hidden, hidden) for name in names]
        return Linear(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.bias for part in parts]),
        )

    def norm(self, name: str, width: int) -> Norm:
        """Return the layer normalisation `name`."""
        scale, bias = (self._of_shape(f"{name}.{part}", width) for part in ("weight", "bias"))
        return Norm(scale, bias, self._epsilon)

    def _of_shape(self, name: str, *shape: int) -> Float32:
        array = self._tensor(name)
        if array.shape != shape:
            stated = f"config.json says {list(shape)}"
            raise ValueError(f"tensor {name!r} has the shape {list(array.shape)}; {stated}")
        return array
