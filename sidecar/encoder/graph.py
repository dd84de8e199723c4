"""An `Encoder` as an ONNX graph: one text a row, no padding, therefore no mask.

Input `ids` and `token_types`, int64 [batch, tokens], all rows of one length; output
`vectors`, float32 [batch, outputs]. Every operation works on one row at a time, so a row's
bytes do not depend on the rows beside it.
"""

import numpy as np
from onnx import ModelProto, TensorProto, helper

from sidecar.encoder.architecture import Classifier, Encoder, Layer, Linear, Norm, Pooling
from sidecar.encoder.nodes import CONTRIB, GraphWriter
from sidecar.encoder.recipes import Recipe


def build(encoder: Encoder, recipe: Recipe) -> ModelProto:
    """Return the ONNX model that computes `encoder` with `recipe`'s arithmetic."""
    graph = GraphWriter()
    x = _embed(graph, encoder, recipe)
    for index, layer in enumerate(encoder.layers):
        x = _layer(graph, f"layer.{index}", layer, recipe, encoder.heads, x)
    graph.rename(_head(graph, encoder.head, x), "vectors")
    rows = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("ids", "token_types")
    ]
    vectors = helper.make_tensor_value_info(
        "vectors", TensorProto.FLOAT, ["batch", encoder.outputs]
    )
    return graph.model(rows, [vectors])


def _embed(graph: GraphWriter, encoder: Encoder, recipe: Recipe) -> str:
    tables = encoder.embeddings
    tokens = graph.op("Shape", "ids", start=1, end=2)
    word = recipe.lookup(graph, "word", tables.word, "ids")
    # Positions and token types stay FP32: together a few hundred rows.
    start, axis = graph.constant(np.array([0])), graph.constant(np.array([0]))
    position = graph.op("Slice", graph.constant(tables.position, "position"), start, tokens, axis)
    token_type = graph.op("Gather", graph.constant(tables.token_type, "token_type"), "token_types")
    total = graph.op("Add", graph.op("Add", word, token_type), position)
    return _norm(graph, "embeddings.norm", tables.norm, total)


def _layer(graph: GraphWriter, name: str, layer: Layer, recipe: Recipe, heads: int, x: str) -> str:
    attended = _attention(graph, f"{name}.qkv", layer.query_key_value, recipe, heads, x)
    y = recipe.matmul(graph, f"{name}.attention_output", layer.attention_output, attended)
    y = _add_bias(graph, f"{name}.attention_output", layer.attention_output, y)
    x = _norm(graph, f"{name}.attention_norm", layer.attention_norm, graph.op("Add", y, x))

    y = recipe.matmul(graph, f"{name}.up", layer.up, x)
    bias = graph.constant(layer.up.bias, f"{name}.up.bias")
    y = graph.op("BiasGelu", y, bias, domain=CONTRIB)
    y = recipe.matmul(graph, f"{name}.down", layer.down, y, after_gelu=True)
    y = _add_bias(graph, f"{name}.down", layer.down, y)
    return _norm(graph, f"{name}.output_norm", layer.output_norm, graph.op("Add", y, x))


def _attention(
    graph: GraphWriter, name: str, linear: Linear, recipe: Recipe, heads: int, x: str
) -> str:
    stacked = recipe.matmul(graph, name, linear, x)
    query, key, value = graph.op_n(3, "Split", stacked, axis=-1, num_outputs=3)
    bias = graph.constant(linear.bias, f"{name}.bias")
    return graph.op("MultiHeadAttention", query, key, value, bias, domain=CONTRIB, num_heads=heads)


def _head(graph: GraphWriter, head: Pooling | Classifier, x: str) -> str:
    if head is Pooling.MEAN:
        return graph.op("ReduceMean", x, graph.constant(np.array([1])), keepdims=0)
    first = graph.op("Gather", x, graph.scalar(0, np.int64), axis=1)
    if isinstance(head, Classifier):
        # A few thousand multiplications: not worth a rounding.
        hidden = graph.op("Tanh", _exact(graph, "head.dense", head.dense, first))
        return _exact(graph, "head.output", head.output, hidden)
    return first


def _exact(graph: GraphWriter, name: str, linear: Linear, x: str) -> str:
    weight, bias = graph.constant(linear.weight, name), graph.constant(linear.bias, f"{name}.bias")
    return graph.op("Gemm", x, weight, bias, transB=1)


def _add_bias(graph: GraphWriter, name: str, linear: Linear, x: str) -> str:
    return graph.op("Add", x, graph.constant(linear.bias, f"{name}.bias"))


def _norm(graph: GraphWriter, name: str, norm: Norm, x: str) -> str:
    scale = graph.constant(norm.scale, f"{name}.scale")
    bias = graph.constant(norm.bias, f"{name}.bias")
    return graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=norm.epsilon)
