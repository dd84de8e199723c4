"""Quantization of a layer's inputs, checked against an elementwise computation."""

import math
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from sidecar.encoder.activations import Activations, choose, output_error
from sidecar.encoder.architecture import Activation, Linear
from sidecar.encoder.calibration import Observed
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.rounding import quantize_rows

from .by_hand import ACTIVATIONS, Random

ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def grid_of(activations: Activations, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the integers of `x`, the step of every number, and the integer that represents 0."""
    levels = 2**activations.bits
    if activations.step is not None:
        assert activations.unsmooth is not None
        zero, steps = levels // 2, np.full(x.shape, activations.step) / activations.unsmooth
    elif activations.after_gelu:
        # A sixteenth of the levels is below zero and reaches at least down to -0.17.
        zero = levels // 16
        peak = np.maximum(x.max(axis=1), 0.17 * 15)
        steps = np.repeat(peak[:, np.newaxis] / (levels - 1 - zero), x.shape[1], axis=1)
    else:
        zero = levels // 2
        peak = np.maximum(np.abs(x).max(axis=1), 1e-12)
        steps = np.repeat(peak[:, np.newaxis] / (levels - 1 - zero), x.shape[1], axis=1)
    integers = [round(float(each)) + zero for each in (x / steps).ravel()]
    return np.clip(integers, 0, levels - 1).reshape(x.shape), steps, zero


def kinds(inputs: int) -> list[Activations]:
    unsmooth = np.geomspace(0.2, 5, inputs, dtype=np.float32)
    return [
        *(Activations(bits, after_gelu) for bits in (7, 8) for after_gelu in (False, True)),
        Activations(8, after_gelu=False, step=0.02, unsmooth=unsmooth),
        Activations(8, after_gelu=True, step=0.02, unsmooth=unsmooth),
    ]


def rows_for(activations: Activations, inputs: int) -> np.ndarray:
    """Return rows of very different magnitudes; after a GELU no number is below -0.17."""
    x = Random(1).array(9, inputs) * np.geomspace(0.01, 100, 9, dtype=np.float32)[:, np.newaxis]
    x[4] = 0
    return np.maximum(x, np.float32(-0.17)) if activations.after_gelu else x


def test_integers_stand_for_what_they_say() -> None:
    """Numpy and the graph give the same integers, which restore a row within half a step."""
    for activations in kinds(24):
        x = rows_for(activations, 24)
        expected, steps, zero = grid_of(activations, x)
        restored = (expected - zero) * steps
        tolerance = 1e-4 * steps.max()
        np.testing.assert_allclose(activations.restored(x), restored, atol=tolerance)
        assert activations.zero == zero
        found, scaled = run_integers(activations, x)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected, str(activations))
        smooth = 1 if activations.unsmooth is None else activations.unsmooth
        np.testing.assert_allclose(scaled / smooth, restored, atol=tolerance)
        if activations.step is None:
            assert (np.abs(restored - x) <= 0.501 * steps).all()
            assert np.abs(expected - zero)[-1].max() == 2**activations.bits - 1 - zero


def run_integers(activations: Activations, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the graph's integers of `x`, and (integers - zero) * step * scale."""
    graph = GraphWriter()
    value, step, zero, scale = activations.integers(graph, "w", "x")
    float_of = [graph.op("Cast", each, to=TensorProto.FLOAT) for each in (value, zero)]
    scaled = graph.op("Mul", graph.op("Sub", *float_of), step)
    scaled = graph.op("Mul", scaled, scale) if scale else scaled
    for name, each in {"integers": value, "scaled": scaled}.items():
        graph.rename(each, name)
    make = helper.make_tensor_value_info
    outputs = [
        make("integers", TensorProto.UINT8, None),
        make("scaled", TensorProto.FLOAT, None),
    ]
    model = graph.model([make("x", TensorProto.FLOAT, [1, "tokens", x.shape[1]])], outputs)
    session = ort.InferenceSession(model.SerializeToString())
    integers, floats = session.run(["integers", "scaled"], {"x": x[np.newaxis]})
    return np.asarray(integers)[0], np.asarray(floats)[0]


def test_zeros_are_shared_by_the_layers_of_a_grid_alone() -> None:
    """Layers with different grids do not share zero points, so 128 is not used for 16."""
    graph = GraphWriter()
    x = Random(2).array(5, 8)
    kinds = [Activations(8, after_gelu=False), Activations(8, after_gelu=True)] * 2
    values = [kind.integers(graph, str(i), "x").value for i, kind in enumerate(kinds)]
    for i, value in enumerate(values):
        graph.rename(value, f"y{i}")
    make = helper.make_tensor_value_info
    names = [f"y{i}" for i in range(4)]
    outputs = [make(name, TensorProto.UINT8, None) for name in names]
    model = graph.model([make("x", TensorProto.FLOAT, [1, "tokens", 8])], outputs)
    session = ort.InferenceSession(model.SerializeToString())
    for kind, found in zip(kinds, session.run(names, {"x": x[np.newaxis]}), strict=True):
        np.testing.assert_array_equal(np.asarray(found)[0], grid_of(kind, x)[0])


def test_gelu_and_its_like_are_never_below_what_its_grid_reaches() -> None:
    """GELU and its approximations stay above -0.1701, and tanh's error is at most 5e-4."""
    x = np.linspace(-8, 8, 20_001)
    values = {
        kind: np.array([ACTIVATIONS[kind](each) for each in x])
        for kind in (Activation.GELU, Activation.GELU_TANH, Activation.QUICK_GELU)
    }
    exact, tanh, quick = values.values()
    assert -0.1701 < exact.min() < -0.1699
    assert -0.1701 < tanh.min() < exact.min() + 1e-3
    assert -0.17 < quick.min() < -0.16
    assert 4e-4 < np.abs(tanh - exact).max() < 5e-4


def layer_of(spread: float, *, after_gelu: bool = False, seed: int = 0) -> Observed:
    """Return a layer whose rows differ in magnitude by `spread`, with some near-idle channels."""
    draw = Random(seed)
    x = draw.array(40, 12) * np.geomspace(1, spread, 40, dtype=np.float32)[:, np.newaxis]
    x *= np.exp(draw.array(12))
    x[:, 3] = 0
    x[:, 4] *= np.float32(1e-7)
    weight = draw.array(8, 12) * np.exp(draw.array(12))
    weight[:, 5] = 0
    linear = Linear(weight, draw.array(8))
    return Observed(linear, after_gelu, np.abs(x).max(axis=0), x.T @ x, x)


def nearest(weight: np.ndarray) -> np.ndarray:
    rows, scales = quantize_rows(weight, 127)
    return (rows * scales).astype(np.float32)


def error_of(layer: Observed, restored: np.ndarray, weight: np.ndarray) -> float:
    """Return the squared error relative to each row's energy, averaged over rows."""
    shares = []
    for x, given in zip(layer.sample, restored, strict=True):
        wanted = layer.linear.weight @ x
        shares.append(np.square(weight @ given - wanted).sum() / (np.square(wanted).sum() + 1e-12))
    return float(np.mean(shares))


def static_of(layer: Observed, alpha: float) -> Activations:
    """Return SmoothQuant's grid; idle channels count as 1e-4 of the largest channel."""
    moves = np.array([max(each, 1e-4 * layer.peak.max() + 1e-12) for each in layer.peak])
    columns = np.abs(layer.linear.weight).max(axis=0)
    weighs = np.array([max(each, 1e-4 * columns.max() + 1e-12) for each in columns])
    smooth = moves**alpha / weighs ** (1 - alpha)
    smooth /= np.median(smooth)
    step = (layer.peak / smooth).max() / 127
    return Activations(8, layer.after_gelu, float(step), (1 / smooth).astype(np.float32))


def test_error_is_the_mean_share_of_a_rows_energy() -> None:
    layer = layer_of(30)
    for activations in (Activations(8, after_gelu=False), static_of(layer, 0.7)):
        integers, steps, zero = grid_of(activations, layer.sample)
        expected = error_of(layer, (integers - zero) * steps, nearest(layer.linear.weight))
        found = output_error(layer, activations, nearest(layer.linear.weight))
        assert found == pytest.approx(expected, rel=1e-2)


def test_a_scale_is_static_where_that_costs_no_more_than_twice_the_error() -> None:
    """A static scale is chosen if at most twice as bad, with the best of the six alphas."""
    taken = []
    for spread in (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 12, 30):
        for seed in range(4):
            layer = layer_of(spread, seed=seed)
            weight = layer.linear.weight
            rows = Activations(8, after_gelu=False)
            bearable = 2 * output_error(layer, rows, nearest(weight))
            errors = []
            for alpha in ALPHAS:
                static = static_of(layer, alpha)
                own = nearest(weight / static.unsmooth) * static.unsmooth
                errors.append(output_error(layer, static, own))
            best = int(np.argmin(errors))
            chosen = choose(layer, nearest)
            assert chosen.bits == 8
            assert (chosen.step is not None) == (errors[best] <= bearable), (spread, seed)
            taken.append(None if chosen.step is None else best)
            if chosen.step is not None:
                expected = static_of(layer, ALPHAS[best])
                assert chosen.step == pytest.approx(expected.step, rel=1e-4)
                np.testing.assert_allclose(chosen.unsmooth, expected.unsmooth, rtol=1e-4)
    assert len(set(taken)) >= 4  # per-row scales, and several alphas


def test_what_comes_after_a_gelu_has_scales_per_row() -> None:
    assert choose(layer_of(1, after_gelu=True), nearest) == Activations(8, after_gelu=True)


def test_the_choice_is_made_on_rows_from_all_of_the_sample() -> None:
    """Outlier rows are considered even if they come last in a very large sample."""
    layer = layer_of(1, seed=1)
    many = np.concatenate([layer.sample] * 40)
    assert choose(replace(layer, sample=many), nearest).step is not None
    many[-600:] *= 30
    assert choose(replace(layer, sample=many), nearest).step is None


def test_a_layer_of_zeros_divides_by_nothing() -> None:
    layer = layer_of(1)
    silent = replace(layer, sample=0 * layer.sample, peak=0 * layer.peak)
    for each in (silent, replace(silent, linear=Linear(0 * layer.linear.weight, np.zeros(8)))):
        chosen = choose(each, nearest)
        assert chosen.step is None or math.isfinite(chosen.step)
        assert not chosen.restored(each.sample).any()
