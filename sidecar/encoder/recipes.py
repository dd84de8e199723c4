"""How a matrix multiplication and a table lookup are done: the interface, and FP32.

A recipe sees one operation at a time and knows nothing of the model around it.
"""

from typing import NamedTuple, Protocol

from sidecar.encoder.architecture import Activation, Float32, Linear
from sidecar.encoder.functions import activate
from sidecar.encoder.nodes import GraphWriter


class Product(NamedTuple):
    """Values in the graph, float32 [1, tokens, out / parts], and whether they have their bias."""

    parts: tuple[str, ...]
    biased: bool

    @property
    def value(self) -> str:
        """The whole product, where it is in one part."""
        (value,) = self.parts
        return value


class Recipe(Protocol):
    """One way to hold and to multiply weights."""

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
        """Add `x @ weight.T`, with the bias where that is free; `after_gelu`: x >= -0.17.

        The outputs come in as many equal `parts`.
        """

    def activate(self, graph: GraphWriter, activation: Activation, x: str, bias: str) -> str:
        """Add `activation(x + bias)`; `bias` is "" where there is none left to add."""


class Float32Recipe:
    """The reference: what the checkpoint says, in FP32."""

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
        """Multiply by the transposed weight; the bias fuses with what follows."""
        del after_gelu
        product = graph.op("MatMul", x, graph.constant(linear.weight.T, name))
        if parts == 1:
            return Product((product,), biased=False)
        split = graph.op_n(parts, "Split", product, axis=-1, num_outputs=parts)
        return Product(split, biased=False)

    def activate(self, graph: GraphWriter, activation: Activation, x: str, bias: str) -> str:
        """Add the function itself."""
        return activate(graph, activation, x, bias)
