"""Converts arrays to the requested type. torch is imported only for tensors."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    Output: TypeAlias = NDArray[Any] | torch.Tensor | list[torch.Tensor]


def converted(rows: NDArray[Any], device: Any, *, to_numpy: bool, to_tensor: bool) -> "Output":
    """Return `rows` [n, ...] as an array, as one tensor, or as a list of one tensor per row.

    `to_tensor` takes precedence over `to_numpy`; without either the result is a list. Without rows
    it is, as in sentence-transformers, a float64 array [0], a float32 tensor [0] or an empty list.
    """
    if to_numpy and not to_tensor:
        return rows if len(rows) else np.array([])
    tensor = as_tensor(rows if len(rows) else np.empty(0, np.float32), device)
    return tensor if to_tensor else list(tensor)


def as_tensor(array: NDArray[Any], device: Any = None) -> "torch.Tensor":
    """Return `array` as a tensor on `device`; None or a list of devices means the CPU.

    Raises `ImportError` if torch is not installed.
    """
    try:
        import torch  # noqa: PLC0415 - only if a tensor is requested
    except ImportError as error:
        raise ImportError("a tensor needs torch: install it, or request numpy arrays") from error
    tensor = torch.from_numpy(array)
    return tensor if device is None or isinstance(device, list) else tensor.to(device)
