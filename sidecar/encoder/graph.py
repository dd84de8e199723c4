"""ONNX graphs built from an `Encoder`: one row per run, so no padding and no mask.

Inputs are `ids` and `token_types`, int64 [1, tokens]; the output is `vectors`, float32
[1, outputs]. The first axis is fixed: merged rows would share the vector registers of elementwise
kernels, whose tails are computed differently, so a text's last bit would depend on its neighbours.
"""

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from sidecar.encoder.architecture import Activation, Embeddings, Encoder, Layer, Linear
from sidecar.encoder.heads import add_head, add_norm
from sidecar.encoder.nodes import CONTRIB, GraphWriter
from sidecar.encoder.recipes import Recipe

# Activations that are never below GELU's minimum, about -0.17.
_LIKE_GELU = {Activation.GELU, Activation.GELU_TANH, Activation.QUICK_GELU, Activation.RELU}


def build(encoder: Encoder, recipe: Recipe, weights: BinaryIO | None = None) -> ModelProto:
    """Return the ONNX model that computes `encoder` with the arithmetic of `recipe`.

    Its weights are written to the file `weights`, if given.
    """
    graph = GraphWriter(weights)
    assembly = _Assembly(graph, recipe, encoder, _score_bias(graph, encoder, "ids"))
    x = assembly.embed(encoder.embeddings)
    for index, layer in enumerate(encoder.layers):
        x = assembly.layer(f"layer.{index}", layer, x)
    graph.rename(add_head(graph, encoder.head, x), "vectors")
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, encoder.outputs])
    return graph.model(_rows(), [vectors])


def build_embeddings(encoder: Encoder, recipe: Recipe) -> ModelProto:
    """Return the part of the model before the first layer; output `hidden`, [1, tokens, hidden]."""
    graph = GraphWriter()
    assembly = _Assembly(graph, recipe, encoder, "")
    graph.rename(assembly.embed(encoder.embeddings), "hidden")
    return graph.model(_rows(), [_hidden("hidden", encoder)])


def build_layer(encoder: Encoder, index: int, recipe: Recipe) -> ModelProto:
    """Return one layer as a model, from `x` to `hidden`, both float32 [1, tokens, hidden]."""
    graph = GraphWriter()
    assembly = _Assembly(graph, recipe, encoder, _score_bias(graph, encoder, "x"))
    graph.rename(assembly.layer(f"layer.{index}", encoder.layers[index], "x"), "hidden")
    return graph.model([_hidden("x", encoder)], [_hidden("hidden", encoder)])


def _rows() -> list[ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"])
        for name in ("ids", "token_types")
    ]


def _hidden(name: str, encoder: Encoder) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "tokens", encoder.hidden])


@dataclass(frozen=True, slots=True)
class _Assembly:
    graph: GraphWriter
    recipe: Recipe
    encoder: Encoder
    score_bias: str

    def embed(self, tables: Embeddings) -> str:
        graph = self.graph
        total = self.recipe.lookup(graph, "word", tables.word, "ids")
        if tables.token_type is not None:  # a row or two
            token_types = graph.constant(tables.token_type, "token_type")
            total = graph.op("Add", total, graph.op("Gather", token_types, "token_types"))
        if tables.position is not None:
            positions = _positions(graph, tables.padding_id)
            position = self.recipe.lookup(graph, "position", tables.position, positions)
            total = graph.op("Add", total, position)
        if tables.norm is not None:
            total = add_norm(graph, "embeddings.norm", tables.norm, total)
        return self.projected(tables.projection, total)

    def projected(self, linear: Linear | None, x: str) -> str:
        if linear is None:
            return x
        # FP32 in every recipe: it is at most a sixth of a layer.
        product = self.graph.op("MatMul", x, self.graph.constant(linear.weight.T, "projection"))
        return self.graph.op("Add", product, self.bias("projection", linear))

    def layer(self, name: str, layer: Layer, x: str) -> str:
        graph = self.graph
        y = self.attention(f"{name}.qkv", layer.query_key_value, x)
        y = self.linear(f"{name}.attention_output", layer.attention_output, y)
        x = add_norm(graph, f"{name}.attention_norm", layer.attention_norm, graph.op("Add", y, x))
        y = self.activated(f"{name}.up", layer.up, x)
        after_gelu = self.encoder.activation in _LIKE_GELU
        y = self.linear(f"{name}.down", layer.down, y, after_gelu=after_gelu)
        return add_norm(graph, f"{name}.output_norm", layer.output_norm, graph.op("Add", y, x))

    def linear(self, name: str, linear: Linear, x: str, *, after_gelu: bool = False) -> str:
        product = self.recipe.matmul(self.graph, name, linear, x, after_gelu=after_gelu)
        if product.biased or not linear.bias.any():
            return product.value
        return self.graph.op("Add", product.value, self.bias(name, linear))

    def activated(self, name: str, linear: Linear, x: str) -> str:
        product = self.recipe.matmul(self.graph, name, linear, x)
        bias = "" if product.biased else self.bias(name, linear)
        return self.recipe.activate(self.graph, self.encoder.activation, product.value, bias)

    def attention(self, name: str, linear: Linear, x: str) -> str:
        graph = self.graph
        product = self.recipe.matmul(graph, name, linear, x, parts=3)
        bias = "" if product.biased else self.bias(name, linear)
        inputs = [*product.parts, bias, "", self.score_bias]
        while not inputs[-1]:  # missing trailing inputs must be left out
            inputs.pop()
        heads = self.encoder.heads
        return graph.op("MultiHeadAttention", *inputs, domain=CONTRIB, num_heads=heads)

    def bias(self, name: str, linear: Linear) -> str:
        return self.graph.constant(linear.bias, f"{name}.bias")


def _range(graph: GraphWriter, of: str) -> str:
    """Add the positions 0, 1, … of the tokens on axis 1 of `of`, int64 [tokens]."""
    count = graph.op("Squeeze", graph.op("Shape", of, start=1, end=2))
    return graph.op("Range", graph.scalar(0, np.int64), count, graph.scalar(1, np.int64))


def _positions(graph: GraphWriter, padding_id: int | None) -> str:
    """Add the index into the position table for every token; see `Embeddings`."""
    if padding_id is None:
        return _range(graph, "ids")
    padding = graph.scalar(padding_id, np.int64)
    others = graph.op("Not", graph.op("Equal", "ids", padding))
    others = graph.op("Cast", others, to=TensorProto.INT64)
    counted = graph.op("CumSum", others, graph.scalar(1, np.int64))
    return graph.op("Add", graph.op("Mul", counted, others), padding)


def _score_bias(graph: GraphWriter, encoder: Encoder, tokens: str) -> str:
    """Add the bias of every query and key by their distance, [1, heads, tokens, tokens].

    Returns "" if the model has none.
    """
    table = encoder.distance_bias
    if table is None:
        return ""
    keys = _range(graph, tokens)
    queries = graph.op("Unsqueeze", keys, graph.constant(np.array([1])))
    center = graph.scalar(table.shape[1] // 2, np.int64)
    distances = graph.op("Add", graph.op("Sub", keys, queries), center)
    # Gathering a distance's values for all heads as one contiguous row and transposing afterwards
    # is faster than gathering them one by one.
    bias = graph.op("Gather", graph.constant(table.T, "distance_bias"), distances)
    bias = graph.op("Transpose", bias, perm=[2, 0, 1])
    return graph.op("Unsqueeze", bias, graph.constant(np.array([0])))
