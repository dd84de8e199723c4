"""Recipes for matrix multiplications and table lookups: the interface and the FP32 recipe.

A recipe sees one operation at a time and knows nothing about the surrounding model.
"""

from typing import NamedTuple, Protocol

from sidecar.encoder.architecture import Activation, Float32, Linear
from sidecar.encoder.functions import activate
from sidecar.encoder.nodes import GraphWriter


class Product(NamedTuple):
    """Graph values, float32 [1, tokens, out / parts] each, and whether they include the bias."""

    parts: tuple[str, ...]
    biased: bool

    @property
    def value(self) -> str:
        """The whole product, if it has a single part."""
        (value,) = self.parts
        return value


class Recipe(Protocol):
    """A way to store and multiply weights."""

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Add `table[ids]`, float32 [1, tokens, hidden]; `table` is [rows, hidden]."""

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
        """Add `x @ weight.T`, including the bias if that is free; `after_gelu`: x >= -0.17.

        The outputs are split into `parts` equal parts.
        """

    def activate(self, graph: GraphWriter, activation: Activation, x: str, bias: str) -> str:
        """Add `activation(x + bias)`; `bias` is "" if none is left to add."""


class Float32Recipe:
    """The reference: the checkpoint's weights in FP32."""

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Gather rows."""
        return graph.op("Gather", graph.constant(table, name), ids)

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
        """Multiply by the transposed weight; the bias fuses with the next operator."""
        del after_gelu
        product = graph.op("MatMul", x, graph.constant(linear.weight.T, name))
        if parts == 1:
            return Product((product,), biased=False)
        split = graph.op_n(parts, "Split", product, axis=-1, num_outputs=parts)
        return Product(split, biased=False)

    def activate(self, graph: GraphWriter, activation: Activation, x: str, bias: str) -> str:
        """Add the exact function."""
        return activate(graph, activation, x, bias)
