"""A recipe for what has been quantized; what has not stays in FP32."""

from collections.abc import Mapping
from typing import Protocol

from sidecar.encoder.activations import Activations, Integers
from sidecar.encoder.architecture import Float32, Linear
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Float32Recipe, Product


class QuantizedLinear(Protocol):
    """A Linear layer's weights in fewer bits, and the grid that its inputs are brought to."""

    @property
    def activations(self) -> Activations:
        """How the inputs become integers."""

    def dense(self) -> Float32:
        """Return the weight that is multiplied in effect, float32 [out, in]."""

    def product(self, graph: GraphWriter, name: str, fed: Integers, bias: str = "") -> str:
        """Add the multiplication, float32 [1, tokens, out], before the rows' own scale."""


class QuantizedTable(Protocol):
    """An embedding table in fewer bits."""

    def lookup(self, graph: GraphWriter, name: str, ids: str) -> str:
        """Add the rows of `ids`, float32."""


class QuantizedRecipe(Float32Recipe):
    """Computes with `linears` and `tables` by their names in the graph, the rest in FP32."""

    def __init__(
        self, linears: Mapping[str, QuantizedLinear], tables: Mapping[str, QuantizedTable]
    ) -> None:
        self._linears = linears
        self._tables = tables

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Gather rows as they are stored, and restore them."""
        quantized = self._tables.get(name)
        if quantized is None:
            return super().lookup(graph, name, table, ids)
        return quantized.lookup(graph, name, ids)

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> Product:
        """Scale the activations to integers, multiply, scale back."""
        quantized = self._linears.get(name)
        if quantized is None:
            return super().matmul(graph, name, linear, x, after_gelu=after_gelu)
        fed = quantized.activations.integers(graph, name, x)
        if fed.scale:
            product = quantized.product(graph, name, fed)
            return Product(graph.op("Mul", product, fed.scale), biased=False)
        bias = graph.constant(linear.bias, f"{name}.bias")
        return Product(quantized.product(graph, name, fed, bias), biased=True)
