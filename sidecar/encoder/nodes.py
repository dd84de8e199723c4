"""A small ONNX graph writer that generates names and shares constants."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

_OPSET = 21
_IR_VERSION = 10  # the newest version compatible with this opset
# Smaller initializers stay in the model: in the file each takes at least an aligned page.
_LEAST_STORED = 1024
_ALIGNED = 4096
CONTRIB = "com.microsoft"


class GraphWriter:
    """Collects nodes and initializers; `model` returns them as one ONNX model.

    Large initializers are written to the file `weights`, if given, and not kept in memory. The
    model refers to it by name, so both must be in the same folder.
    """

    def __init__(self, weights: BinaryIO | None = None) -> None:
        self._weights = weights
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._scalars: dict[tuple[str, bytes], str] = {}
        self._shared: dict[str, str] = {}

    def constant(self, value: NDArray[Any], name: str = "") -> str:
        """Add `value` as an initializer and return its name; equal unnamed values are shared."""
        if name:
            stored = self._weights is not None and value.nbytes >= _LEAST_STORED
            make = self._stored if stored else numpy_helper.from_array
            self._initializers[name] = make(np.asarray(value, order="C"), name)
            return name
        key = (f"{value.dtype}{value.shape}", value.tobytes())
        if key not in self._scalars:
            self._scalars[key] = self.constant(value, f"constant_{len(self._scalars)}")
        return self._scalars[key]

    def scalar(self, value: float, dtype: type[np.generic] = np.float32) -> str:
        """Add a 0-d constant and return its name."""
        return self.constant(np.array(value, dtype))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        (output,) = self.op_n(1, kind, *inputs, domain=domain, **attributes)
        return output

    def op_n(
        self, count: int, kind: str, *inputs: str, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node with `count` outputs and return their names."""
        stem = f"{kind}_{len(self._nodes)}"
        outputs = (stem,) if count == 1 else tuple(f"{stem}_{i}" for i in range(count))
        node = helper.make_node(kind, inputs, outputs, name=stem, domain=domain, **attributes)
        self._nodes.append(node)
        return outputs

    def shared(self, name: str, make: Callable[[], str]) -> str:
        """Return the value that `make` adds; it is called only once per `name`."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    def rename(self, value: str, name: str) -> None:
        """Add `name` as the public name of an output value."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))

    def _stored(self, value: NDArray[Any], name: str) -> TensorProto:
        assert self._weights is not None
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=value.shape)
        tensor.data_location = TensorProto.EXTERNAL
        offset = -(-self._weights.tell() // _ALIGNED) * _ALIGNED
        self._weights.seek(offset)
        self._weights.write(value.data)
        where = {"location": Path(self._weights.name).name, "offset": offset}
        for key, text in {**where, "length": value.nbytes}.items():
            tensor.external_data.add(key=key, value=str(text))
        return tensor

    def model(self, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> ModelProto:
        """Return the finished model."""
        initializers = list(self._initializers.values())
        graph = helper.make_graph(self._nodes, "encoder", inputs, outputs, initializers)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="sidecar"
        )
