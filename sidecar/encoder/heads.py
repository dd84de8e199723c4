"""Heads after the last layer: pooling and the modules after it, or a classifier.

They are computed in FP32: with one vector per text, quantization would save nothing.
"""

from collections.abc import Callable, Mapping

import numpy as np
from onnx import TensorProto

from sidecar.encoder.architecture import Classifier, Dense, Head, Linear, Norm, Pooling, Step
from sidecar.encoder.functions import activate
from sidecar.encoder.nodes import GraphWriter

_LEAST_LENGTH = 1e-12  # as in torch's `normalize`


def add_head(graph: GraphWriter, head: Head | Classifier, x: str) -> str:
    """Add `head` on `x`, float32 [1, tokens, hidden]; its output is float32 [1, outputs]."""
    if isinstance(head, Classifier):
        hidden = _linear(graph, "head.dense", head.dense, _token(graph, x, 0))
        return _linear(graph, "head.output", head.output, activate(graph, head.activation, hidden))
    pooled = [_POOLINGS[pooling](graph, x) for pooling in head.pooling]
    vector = pooled[0] if len(pooled) == 1 else graph.op("Concat", *pooled, axis=-1)
    for index, step in enumerate(head.steps):
        vector = _step(graph, f"head.{index}", step, vector)
    return vector


def add_norm(graph: GraphWriter, name: str, norm: Norm, x: str) -> str:
    """Add the layer normalisation of `x` over its last axis."""
    scale = graph.constant(norm.scale, f"{name}.scale")
    bias = graph.constant(norm.bias, f"{name}.bias")
    return graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=norm.epsilon)


def _step(graph: GraphWriter, name: str, step: Step, x: str) -> str:
    if isinstance(step, Dense):
        return _dense(graph, name, step, x)
    if isinstance(step, Norm):
        return add_norm(graph, name, step, x)
    length = graph.op("ReduceL2", x, graph.constant(np.array([1])), keepdims=1)
    return graph.op("Div", x, graph.op("Max", length, graph.scalar(_LEAST_LENGTH)))


def _dense(graph: GraphWriter, name: str, dense: Dense, x: str) -> str:
    y = activate(graph, dense.activation, _linear(graph, name, dense.linear, x))
    if not dense.use_residual:
        return y
    if dense.residual is None:
        return graph.op("Add", y, x)
    residual = graph.constant(dense.residual, f"{name}.residual")
    return graph.op("Add", y, graph.op("Gemm", x, residual, transB=1))


def _linear(graph: GraphWriter, name: str, linear: Linear, x: str) -> str:
    weight, bias = graph.constant(linear.weight, name), graph.constant(linear.bias, f"{name}.bias")
    return graph.op("Gemm", x, weight, bias, transB=1)


def _token(graph: GraphWriter, x: str, index: int) -> str:
    return graph.op("Gather", x, graph.scalar(index, np.int64), axis=1)


def _over_tokens(graph: GraphWriter, reduce: str, x: str) -> str:
    return graph.op(reduce, x, graph.constant(np.array([1])), keepdims=0)


def _count(graph: GraphWriter, x: str) -> str:
    """Add the number of tokens, float32 [1]."""
    return graph.op("Cast", graph.op("Shape", x, start=1, end=2), to=TensorProto.FLOAT)


def _mean_sqrt_len(graph: GraphWriter, x: str) -> str:
    length = graph.op("Sqrt", _count(graph, x))
    return graph.op("Div", _over_tokens(graph, "ReduceSum", x), length)


def _weighted_mean(graph: GraphWriter, x: str) -> str:
    """Add the mean weighted by position: 1, 2, …."""
    tokens = graph.op("Squeeze", graph.op("Shape", x, start=1, end=2))
    one = graph.scalar(1, np.int64)
    ranks = graph.op("Range", one, graph.op("Add", tokens, one), one)
    column = graph.op("Unsqueeze", ranks, graph.constant(np.array([1])))
    weights = graph.op("Cast", column, to=TensorProto.FLOAT)
    total = graph.op("ReduceSum", weights, graph.constant(np.array([0])), keepdims=0)
    return graph.op("Div", _over_tokens(graph, "ReduceSum", graph.op("Mul", x, weights)), total)


def _bag(graph: GraphWriter, x: str) -> str:
    count = graph.op("Max", _count(graph, x), graph.scalar(1))
    return graph.op("Div", _over_tokens(graph, "ReduceSum", x), count)


_POOLINGS: Mapping[Pooling, Callable[[GraphWriter, str], str]] = {
    Pooling.CLS: lambda graph, x: _token(graph, x, 0),
    Pooling.MAX: lambda graph, x: _over_tokens(graph, "ReduceMax", x),
    Pooling.MEAN: lambda graph, x: _over_tokens(graph, "ReduceMean", x),
    Pooling.MEAN_SQRT_LEN: _mean_sqrt_len,
    Pooling.WEIGHTED_MEAN: _weighted_mean,
    Pooling.LAST_TOKEN: lambda graph, x: _token(graph, x, -1),
    Pooling.BAG: _bag,
}
