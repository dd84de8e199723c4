"""A recipe for what has been quantized; what has not stays in FP32."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from sidecar.encoder.activations import Activations, Integers
from sidecar.encoder.architecture import Activation, Float32, Linear
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Float32Recipe, Product


class QuantizedLinear(Protocol):
    """A Linear layer's weights in fewer bits, and the grid that its inputs are brought to."""

    @property
    def activations(self) -> Activations:
        """How the inputs become integers."""

    def dense(self) -> Float32:
        """Return the weight that is multiplied in effect, float32 [out, in]."""

    def product(self, graph: GraphWriter, name: str, fed: Integers, bias: Float32 | None) -> str:
        """Add the multiplication, float32 [1, tokens, out], before the rows' own scale."""

    def part(self, index: int, parts: int) -> "QuantizedLinear":
        """Return the layer with one of `parts` equal parts of its outputs alone."""


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
        self,
        graph: GraphWriter,
        name: str,
        linear: Linear,
        x: str,
        *,
        after_gelu: bool = False,
        parts: int = 1,
    ) -> Product:
        """Scale the activations to integers, multiply, scale back.

        Parts are multiplied one by one: that costs less than to multiply them at once and to
        copy them apart.
        """
        quantized = self._linears.get(name)
        if quantized is None:
            return super().matmul(graph, name, linear, x, after_gelu=after_gelu, parts=parts)
        fed = quantized.activations.integers(graph, name, x)
        biases = [None] * parts if fed.scale else np.split(linear.bias, parts)
        products = tuple(
            quantized.part(index, parts).product(graph, f"{name}.{index}", fed, bias)
            for index, bias in enumerate(biases)
        )
        if fed.scale:
            products = tuple(graph.op("Mul", product, fed.scale) for product in products)
        return Product(products, biased=not fed.scale)

    def activate(self, graph: GraphWriter, activation: Activation, x: str, bias: str) -> str:
        """Add the function; for GELU its tanh approximation.

        That is off by 5e-4 at most, a fraction of the next layer's step. Hendrycks and Gimpel,
        2016 (arXiv:1606.08415).
        """
        if activation is Activation.GELU:
            activation = Activation.GELU_TANH
        return super().activate(graph, activation, x, bias)
