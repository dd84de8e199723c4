"""Calibration statistics and layer-by-layer fitting, checked against numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from sidecar.encoder import int4, int8, layerwise
from sidecar.encoder.activations import Integers
from sidecar.encoder.architecture import Activation, Encoder, Float32, Linear
from sidecar.encoder.calibration import Observed, observe
from sidecar.encoder.graph import build
from sidecar.encoder.layerwise import Ids
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.quantized import QuantizedLinear, QuantizedRecipe, QuantizedTable
from sidecar.encoder.recipes import Float32Recipe
from sidecar.encoder.runtime import Session
from sidecar.encoder.sequential import quantize_sequentially
from sidecar.encoder.tables import int4_table, int8_table

from .by_hand import ByHand, Float64, product, small_encoder

PARTS = {
    "qkv": "query_key_value",
    "attention_output": "attention_output",
    "up": "up",
    "down": "down",
}
RESIDUALS = {"attention_output": "qkv", "down": "up"}


def texts_of(count: int, *, seed: int = 0) -> list[Ids]:
    """Return texts of 1 to 30 tokens; those longer than 7 have two token types."""
    rng = np.random.default_rng(seed)
    lengths = [1, 2, 30, *rng.integers(3, 30, count - 3)]
    ids = [rng.integers(0, 60, (1, length)) for length in lengths]
    return [(each, (np.arange(each.size)[np.newaxis] >= 7).astype(np.int64)) for each in ids]


def squares_of(rows: Float64) -> Float64:
    return np.square(rows).mean(axis=1, keepdims=True) + 1e-12


def rows_by_hand(encoder: Encoder, texts: Sequence[Ids]) -> dict[str, list[Float64]]:
    """Return the input rows of each Linear layer for every text."""
    rows: dict[str, list[Float64]] = {}
    for ids, types in texts:
        walked = ByHand(encoder)
        walked.hidden(ids[0], types[0])
        for name, fed in walked.fed.items():
            rows.setdefault(name, []).append(fed)
    return rows


def test_every_layer_is_observed_on_what_it_is_really_fed() -> None:
    """Each layer's peaks, normalised second moments and sampled rows match numpy on all texts.

    The sample always includes a text's first and last tokens, which are special.
    """
    encoder = small_encoder(activation=Activation.GELU)
    texts = texts_of(37)
    expected = rows_by_hand(encoder, texts)
    found = dict(observe(encoder, texts))
    assert list(found) == [f"layer.{i}.{part}" for i in (0, 1) for part in PARTS]
    for name, observed in found.items():
        rows = np.concatenate(expected[name])
        even = rows / np.sqrt(squares_of(rows))
        np.testing.assert_allclose(observed.peak, np.abs(rows).max(axis=0), rtol=1e-4)
        np.testing.assert_allclose(observed.gram, even.T @ even, atol=1e-3 * len(rows))
        layer, part = name.removeprefix("layer.").split(".")
        linear = getattr(encoder.layers[int(layer)], PARTS[part])
        assert observed.linear is linear
        assert observed.after_gelu == (part == "down")
        picked = [text[picks(len(text))] for text in expected[name]]
        np.testing.assert_allclose(observed.sample, np.concatenate(picked), atol=1e-4)


def picks(tokens: int) -> list[int]:
    """Return the indexes of up to twelve tokens, evenly spaced from the first to the last."""
    return sorted({(tokens - 1) * i // 11 for i in range(12)})


def test_a_walk_keeps_what_it_is_asked_for() -> None:
    """Running a layer returns the inputs of all, some or none of its parts, chunked or not."""
    encoder, texts = small_encoder(), texts_of(35)
    recipe = Float32Recipe()
    hidden = layerwise.run_embeddings(encoder, recipe, texts)
    for (ids, types), found in zip(texts, hidden, strict=True):
        np.testing.assert_allclose(found, ByHand(encoder).embedded(ids[0], types[0]), atol=1e-4)
    whole = layerwise.run_layer(encoder, 1, recipe, hidden)
    assert [*whole.fed] == [f"layer.1.{part}" for part in PARTS]
    some = layerwise.run_layer(encoder, 1, recipe, hidden, {"layer.1.up"})
    assert [*some.fed] == ["layer.1.up"]
    assert not layerwise.run_layer(encoder, 1, recipe, hidden, ()).fed
    parts = list(layerwise.run_layer_in_chunks(encoder, 1, recipe, hidden))
    assert len(parts) > 1
    assert sum(len(part.texts) for part in parts) == 35
    together = [text for part in parts for text in part.texts]
    for text, one, other in zip(hidden, whole.texts, together, strict=True):
        np.testing.assert_allclose(one, ByHand(encoder).layer(1, text), atol=1e-4)
        np.testing.assert_array_equal(one, other)
    for name, fed in whole.fed.items():
        rows = [each for part in parts for each in part.fed[name].rows]
        for one, other in zip(fed.rows, rows, strict=True):
            np.testing.assert_array_equal(one, other)


@dataclass(frozen=True)
class Unrounded:
    """Unquantized activations, with which products can be compared to many digits."""

    def integers(self, graph: GraphWriter, name: str, x: str) -> Integers:
        return Integers(x, graph.scalar(1), graph.scalar(0), "")

    def restored(self, x: Float32) -> Float32:
        return x


@dataclass(frozen=True)
class Coarse:
    """A Linear layer or a table whose numbers are multiples of 0.2."""

    weight: Float32
    activations: Unrounded = Unrounded()

    def dense(self) -> Float32:
        return self.weight

    def part(self, index: int, parts: int) -> "Coarse":
        return Coarse(np.split(self.weight, parts)[index])

    def product(self, graph: GraphWriter, name: str, fed: Integers, bias: Float32 | None) -> str:
        given = graph.op("MatMul", fed.value, graph.constant(self.weight.T, name))
        return given if bias is None else graph.op("Add", given, graph.constant(bias, f"{name}.b"))

    def lookup(self, graph: GraphWriter, name: str, ids: str) -> str:
        return graph.op("Gather", graph.constant(self.weight, name), ids)


def coarse(weight: Float64) -> Coarse:
    return Coarse((np.rint(weight / 0.2) * 0.2).astype(np.float32))


class FitByHand:
    """Refits layer by layer, recomputing the rows from the embeddings for each."""

    def __init__(self, encoder: Encoder, texts: Sequence[Ids], table: Coarse) -> None:
        self.exact, self.texts, self.table = encoder, texts, table
        self.linears: dict[str, Linear] = {}
        self.coarse: dict[str, Coarse] = {}

    def part(self, index: int, part: str) -> tuple[Linear, Float64]:
        """Return the layer fitted in FP32, before bias correction, and its inputs."""
        name, residual = f"layer.{index}.{part}", RESIDUALS.get(part, "")
        wanted, ours = self.rows(ByHand(self.exact)), self.rows(self.walk())
        linear: Linear = getattr(self.exact.layers[index], PARTS[part])
        x, target = ours[name], product("", linear, wanted[name])
        if residual:
            target = (
                target + wanted[f"layer.{index}.{residual}"] - ours[f"layer.{index}.{residual}"]
            )
        # Rows are weighted as if all had the same mean square.
        counts = np.sqrt(1 / squares_of(x))
        missing = target - product("", linear, x)
        mean = (missing * counts**2).sum(axis=0) / (counts**2).sum()
        inputs = x.shape[1]
        # Ridge regression as least squares, with an extra row per input whose target is 0.
        strength = np.sqrt(np.trace((x * counts).T @ (x * counts)) / inputs)
        stacked = np.concatenate([x * counts, strength * np.eye(inputs)])
        aims = np.concatenate([(missing - mean) * counts, np.zeros((inputs, len(linear.bias)))])
        change = np.linalg.lstsq(stacked, aims, rcond=None)[0].T
        fitted = Linear((linear.weight + change).astype(np.float32), linear.bias + mean)
        self.coarse[name] = coarse(fitted.weight)
        left = target - (x @ self.coarse[name].weight.T + fitted.bias)
        bias = fitted.bias + (left * counts**2).sum(axis=0) / (counts**2).sum()
        self.linears[name] = Linear(fitted.weight, bias)
        return fitted, x

    def walk(self) -> ByHand:
        """Return a run with the layers quantized so far, and FP32 after them."""
        return ByHand(
            self.exact, self.times, lambda _, table: self.seen(table), Activation.GELU_TANH
        )

    def seen(self, table: Float32) -> Float64:
        word = table is self.exact.embeddings.word
        return (self.table.weight if word else table).astype(np.float64)

    def times(self, name: str, linear: Linear, x: Float64) -> Float64:
        if name not in self.linears:
            return product(name, linear, x)
        return x @ self.coarse[name].weight.T + self.linears[name].bias

    def rows(self, walk: ByHand) -> dict[str, Float64]:
        rows: dict[str, list[Float64]] = {}
        for ids, types in self.texts:
            walk.hidden(ids[0], types[0])
            for name, fed in walk.fed.items():
                rows.setdefault(name, []).append(fed)
        return {name: np.concatenate(each) for name, each in rows.items()}


def test_each_layer_is_fitted_to_what_fp32_has_at_its_place() -> None:
    """Each layer is fitted to FP32 on quantized inputs by ridge regression; then its bias."""
    encoder, texts = small_encoder(width=8), texts_of(12)
    table = coarse(encoder.embeddings.word)
    by_hand = FitByHand(encoder, texts, table)
    steps = []

    def quantize(name: str, layer: Observed) -> Coarse:
        _, index, part = name.split(".")
        fitted, x = by_hand.part(int(index), part)
        np.testing.assert_allclose(layer.linear.weight, fitted.weight, atol=2e-4)
        np.testing.assert_allclose(layer.linear.bias, fitted.bias, atol=2e-4)
        np.testing.assert_allclose(layer.peak, np.abs(x).max(axis=0), atol=1e-4)
        np.testing.assert_allclose(layer.gram, x.T @ (x / squares_of(x)), atol=1e-4 * len(x))
        assert layer.after_gelu == (part == "down")
        steps.append(name)
        return by_hand.coarse[name]  # identical weights: 1e-7 could round to another multiple

    told = []
    found = quantize_sequentially(
        encoder, texts, {"word": table}, quantize, lambda *done: told.append(done)
    )
    assert steps == [f"layer.{i}.{part}" for i in (0, 1) for part in PARTS]
    assert told == [(count, 8) for count in range(1, 9)]
    assert found.linears == by_hand.coarse
    for name, expected in by_hand.linears.items():
        linear = linear_of(found.encoder, name)
        np.testing.assert_allclose(linear.weight, expected.weight, atol=2e-4)
        np.testing.assert_allclose(linear.bias, expected.bias, atol=2e-4)
    assert found.encoder.embeddings is encoder.embeddings


def linear_of(encoder: Encoder, name: str) -> Linear:
    _, index, part = name.split(".")
    linear: Linear = getattr(encoder.layers[int(index)], PARTS[part])
    return linear


SMALL = (0.05, *[1e-5] * 6)  # three layers


def vectors_of(graph: ModelProto, texts: Sequence[Ids]) -> np.ndarray:
    session = Session(graph.SerializeToString())
    return np.concatenate([session.run(*text) for text in texts])


def test_layers_make_up_for_those_before() -> None:
    """Sequential INT4 quantization is closer to FP32 than quantizing layers independently."""
    encoder, texts = small_encoder(epsilons=SMALL), texts_of(40)
    tables: dict[str, QuantizedTable] = {"word": int4_table(encoder.embeddings.word)}

    def quantize(_: str, layer: Observed) -> QuantizedLinear:
        return int4.calibrate(layer, 7)

    together = quantize_sequentially(encoder, texts, tables, quantize, lambda *_: None)
    apart = {name: int4.calibrate(layer, 7) for name, layer in observe(encoder, texts)}
    graphs = (
        build(encoder, Float32Recipe()),
        build(together.encoder, QuantizedRecipe(together.linears, tables)),
        build(encoder, QuantizedRecipe(apart, tables)),
    )
    exact, refitted, blind = (vectors_of(graph, texts_of(30, seed=9)) for graph in graphs)
    error = float(np.square(refitted - exact).sum())
    assert 0.2 < error / np.square(blind - exact).sum() < 0.7
    assert 1e-5 < error / np.square(exact).sum() < 1e-3


@pytest.mark.parametrize("after", [Activation.GELU, Activation.SILU])
def test_a_quantized_graph_computes_what_its_parts_say(after: Activation) -> None:
    """A quantized graph matches numpy with the same weights, activation grids and tables."""
    encoder, texts = small_encoder(epsilons=SMALL, activation=after), texts_of(20)
    tables = {
        "word": int4_table(encoder.embeddings.word),
        "position": int8_table(encoder.embeddings.position),
    }
    dense = {"word": tables["word"].dense()}
    dense["position"] = tables["position"].rows * tables["position"].scales
    for calibrate in (int8.calibrate, int4.calibrate):
        linears = {name: calibrate(layer, 7) for name, layer in observe(encoder, texts)}
        graph = build(encoder, QuantizedRecipe(linears, tables))

        def times(name: str, linear: Linear, x: Float64, linears: Any = linears) -> Float64:
            given = linears[name].activations.restored(x.astype(np.float32))
            return given @ linears[name].dense().T + linear.bias

        walked = ByHand(encoder, times, lambda name, _: dense[name], Activation.GELU_TANH)
        expected = [walked.vector(ids[0], types[0]) for ids, types in texts]
        exact = [ByHand(encoder).vector(ids[0], types[0]) for ids, types in texts]
        found = vectors_of(graph, texts)
        # An input halfway between two steps may be rounded either way.
        error = np.square(found - expected).sum() / np.square(found - exact).sum()
        assert error < 0.05
