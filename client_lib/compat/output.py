"""Arrays to whatever the caller asked for. torch is imported where that is a tensor."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    Output: TypeAlias = NDArray[Any] | torch.Tensor | list[torch.Tensor]


def converted(rows: NDArray[Any], device: Any, *, to_numpy: bool, to_tensor: bool) -> "Output":
    """Return `rows` [n, ...] as they are, as one tensor, or as a list of tensors, a row each.

    A tensor goes before an array; without either it is the list. No rows are what they are in
    sentence-transformers: an array of float64 [0], a tensor of float32 [0], an empty list.
    """
    if to_numpy and not to_tensor:
        return rows if len(rows) else np.array([])
    tensor = as_tensor(rows if len(rows) else np.empty(0, np.float32), device)
    return tensor if to_tensor else list(tensor)


def as_tensor(array: NDArray[Any], device: Any = None) -> "torch.Tensor":
    """Return `array` as a tensor on `device`; None, or a list of several, is the CPU.

    Raises `ImportError` where torch is not installed.
    """
    try:
        import torch  # noqa: PLC0415 - only where a tensor is asked for
    except ImportError as error:
        raise ImportError("a tensor needs torch: install it, or ask for numpy arrays") from error
    tensor = torch.from_numpy(array)
    return tensor if device is None or isinstance(device, list) else tensor.to(device)
