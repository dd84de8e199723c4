"""A recipe for quantized Linear layers and tables; the rest stays in FP32."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from sidecar.encoder.activations import Activations, Integers
from sidecar.encoder.architecture import Activation, Float32, Linear
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.recipes import Float32Recipe, Product


class QuantizedLinear(Protocol):
    """A Linear layer's quantized weights and the grid of its inputs."""

    @property
    def activations(self) -> Activations:
        """How the inputs are quantized."""

    def dense(self) -> Float32:
        """Return the dequantized weight for inputs before smoothing, float32 [out, in]."""

    def product(self, graph: GraphWriter, name: str, fed: Integers, bias: Float32 | None) -> str:
        """Add the product, float32 [1, tokens, out], before scaling by the rows' own scales."""

    def part(self, index: int, parts: int) -> "QuantizedLinear":
        """Return the layer restricted to one of `parts` equal parts of its outputs."""


class QuantizedTable(Protocol):
    """A quantized embedding table."""

    def lookup(self, graph: GraphWriter, name: str, ids: str) -> str:
        """Add the rows for `ids`, float32."""


class QuantizedRecipe(Float32Recipe):
    """Uses `linears` and `tables`, keyed by their names in the graph, and FP32 for the rest."""

    def __init__(
        self, linears: Mapping[str, QuantizedLinear], tables: Mapping[str, QuantizedTable]
    ) -> None:
        self._linears = linears
        self._tables = tables

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Gather quantized rows and dequantize them."""
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
        """Quantize the activations, multiply, and scale back.

        Parts are multiplied separately, which costs less than multiplying once and splitting.
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
        """Add the activation, with GELU replaced by its tanh approximation.

        Its error is at most 5e-4, a fraction of the next layer's quantization step. Hendrycks and
        Gimpel, 2016 (arXiv:1606.08415).
        """
        if activation is Activation.GELU:
            activation = Activation.GELU_TANH
        return super().activate(graph, activation, x, bias)
