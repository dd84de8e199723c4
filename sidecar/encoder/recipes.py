"""How a matrix multiplication and a table lookup are done: the interface, and FP32.

A recipe sees one operation at a time and knows nothing of the model around it.
"""

from typing import NamedTuple, Protocol

from sidecar.encoder.architecture import Float32, Linear
from sidecar.encoder.nodes import GraphWriter


class Product(NamedTuple):
    """A value in the graph, float32 [1, tokens, out], and whether it has its bias yet."""

    value: str
    biased: bool


class Recipe(Protocol):
    """One way to hold and to multiply weights."""

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Add `table[ids]`, float32 [1, tokens, hidden]; `table` is [rows, hidden]."""

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> Product:
        """Add `x @ weight.T`, with the bias where that is free; `after_gelu`: x >= -0.17."""


class Float32Recipe:
    """The reference: what the checkpoint says, in FP32."""

    def lookup(self, graph: GraphWriter, name: str, table: Float32, ids: str) -> str:
        """Gather rows."""
        return graph.op("Gather", graph.constant(table, name), ids)

    def matmul(
        self, graph: GraphWriter, name: str, linear: Linear, x: str, *, after_gelu: bool = False
    ) -> Product:
        """Multiply by the transposed weight; the bias fuses with what follows."""
        del after_gelu
        return Product(graph.op("MatMul", x, graph.constant(linear.weight.T, name)), biased=False)
