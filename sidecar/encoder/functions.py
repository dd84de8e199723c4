"""Activation functions as graph operators, exact to FP32 rounding."""

from collections.abc import Callable, Mapping

from sidecar.encoder.architecture import Activation
from sidecar.encoder.nodes import CONTRIB, GraphWriter

_OPERATORS: Mapping[Activation, Callable[[GraphWriter, str], str]] = {
    Activation.IDENTITY: lambda _, x: x,
    Activation.ELU: lambda graph, x: graph.op("Elu", x),
    Activation.GELU: lambda graph, x: graph.op("Gelu", x, domain=CONTRIB),
    Activation.GELU_TANH: lambda graph, x: graph.op("FastGelu", x, domain=CONTRIB),
    Activation.LEAKY_RELU: lambda graph, x: graph.op("LeakyRelu", x, alpha=0.01),
    Activation.MISH: lambda graph, x: graph.op("Mish", x),
    Activation.QUICK_GELU: lambda graph, x: graph.op("QuickGelu", x, domain=CONTRIB, alpha=1.702),
    Activation.RELU: lambda graph, x: graph.op("Relu", x),
    Activation.SELU: lambda graph, x: graph.op("Selu", x),
    Activation.SIGMOID: lambda graph, x: graph.op("Sigmoid", x),
    Activation.SILU: lambda graph, x: graph.op("QuickGelu", x, domain=CONTRIB, alpha=1.0),
    Activation.SOFTPLUS: lambda graph, x: graph.op("Softplus", x),
    Activation.SOFTSIGN: lambda graph, x: graph.op("Softsign", x),
    Activation.TANH: lambda graph, x: graph.op("Tanh", x),
}
# Operators that add a bias in the same pass.
_WITH_BIAS: Mapping[Activation, str] = {
    Activation.GELU: "BiasGelu",
    Activation.GELU_TANH: "FastGelu",
}


def activate(graph: GraphWriter, activation: Activation, x: str, bias: str = "") -> str:
    """Add `activation(x + bias)`; `bias` is "" if there is none."""
    if not bias:
        return _OPERATORS[activation](graph, x)
    if activation in _WITH_BIAS:
        return graph.op(_WITH_BIAS[activation], x, bias, domain=CONTRIB)
    return _OPERATORS[activation](graph, graph.op("Add", x, bias))
