"""Readers for weight files, returning float32 tensors one at a time.

A safetensors file is a header followed by the tensors' bytes. The safetensors library validates
the header; the bytes are read here, because its NumPy backend lacks bfloat16.
"""

import importlib.util
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from sidecar.encoder.architecture import Float32
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.files import reading

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LENGTH_BYTES = 8  # the header's length comes first, little-endian


class Store(Protocol):
    """The tensors of one file, or of several combined."""

    def names(self) -> frozenset[str]:
        """Return the names of the tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor `name`."""

    def tensor(self, name: str) -> Float32:
        """Return the tensor `name`.

        Raises `UnknownArchitectureError` if its dtype is not a supported floating-point type.
        """


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: str
    shape: tuple[int, ...]
    start: int


class Safetensors:
    """The tensors of a .safetensors file, read from disk on every access.

    Raises `ModelError` if the file cannot be read or is truncated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with reading(path):
            path.open("rb").close()  # an OSError here states the reason more clearly
            try:
                with safe_open(path, framework="numpy"):
                    self._entries = _entries(path)
            except SafetensorError as error:
                raise ModelError(f"{path} is not a complete safetensors file: {error}") from None

    def names(self) -> frozenset[str]:
        """Return the names of the tensors."""
        return frozenset(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor `name`."""
        return self._entries[name].shape

    def tensor(self, name: str) -> Float32:
        """Return the tensor `name` as float32, exact unless stored in 64 bits."""
        entry = self._entries[name]
        if entry.kind not in _FLOATS:
            raise _not_floating(self._path, name, entry.kind)
        count = math.prod(entry.shape)
        with reading(self._path):
            stored = np.fromfile(self._path, _FLOATS[entry.kind], count, offset=entry.start)
        if len(stored) != count:
            raise ModelError(f"{self._path} was truncated while it was being read")
        wide = _widened(stored) if entry.kind == "BF16" else stored.astype(np.float32, copy=False)
        return wide.reshape(entry.shape)


class Pickled:
    """The tensors of a .bin file, loaded with torch and memory-mapped if the format allows it.

    Only tensors are unpickled. Raises `ModelError` if torch is missing or rejects the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors = _loaded(path)

    def names(self) -> frozenset[str]:
        """Return the names of the tensors."""
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor `name`."""
        return tuple(self._tensors[name].shape)

    def tensor(self, name: str) -> Float32:
        """Return the tensor `name` as float32, exact unless stored in 64 bits."""
        stored = self._tensors[name].detach()
        if not stored.is_floating_point():
            raise _not_floating(self._path, name, str(stored.dtype))
        return np.array(stored.float().numpy(), np.float32)


class Shards:
    """Several files combined; of a duplicate name, the last file's tensor is used."""

    def __init__(self, stores: list[Store]) -> None:
        self._of = {name: store for store in stores for name in store.names()}

    def names(self) -> frozenset[str]:
        """Return the names of the tensors."""
        return frozenset(self._of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor `name`."""
        return self._of[name].shape(name)

    def tensor(self, name: str) -> Float32:
        """Return the tensor `name` as float32."""
        return self._of[name].tensor(name)


def finite(folder: Path, store: Store, name: str) -> Float32:
    """Return the tensor `name` of the module in `folder`.

    Raises `ModelError` if it holds NaN or infinity.
    """
    found = store.tensor(name)
    if not np.isfinite(found.sum(dtype=np.float64)):  # a sum needs no temporary array
        raise ModelError(f"{folder}: tensor {name!r} holds NaN or infinity")
    return found


def _entries(path: Path) -> dict[str, _Entry]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
    data_start = _LENGTH_BYTES + length
    return {
        name: _Entry(facts["dtype"], tuple(facts["shape"]), data_start + facts["data_offsets"][0])
        for name, facts in header.items()
        if name != "__metadata__"
    }


def _widened(halves: Any) -> Float32:
    """Return bfloat16 bits as float32, whose upper half they are."""
    bits = halves.astype(np.uint32)
    bits <<= 16  # in place: a table may be a gigabyte
    wide: Float32 = bits.view(np.float32)
    return wide


def _loaded(path: Path) -> Mapping[str, Any]:
    if importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"{path} needs torch: install the extra `server` where the model is prepared, "
            "or save the weights as model.safetensors"
        )
    import torch  # noqa: PLC0415 - takes seconds to import, and only this format needs it

    with reading(path):
        path.open("rb").close()  # torch's message for an OSError spans several lines
        try:
            mapped = zipfile.is_zipfile(path)  # the legacy format cannot be mapped
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{path} is not a weights-only file: {reason}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds {type(found).__name__}, not tensors by name")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _not_floating(path: Path, name: str, kind: str) -> UnknownArchitectureError:
    readable = ", ".join(sorted(_FLOATS))
    return UnknownArchitectureError(f"{path}: tensor {name!r} is {kind}; supported: {readable}")
