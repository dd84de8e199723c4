"""Linear layers in 4 and 8 bits, checked against a computation weight by weight."""

from dataclasses import replace
from functools import partial

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from sidecar.encoder import int4, int8
from sidecar.encoder.activations import Activations, choose
from sidecar.encoder.architecture import Linear
from sidecar.encoder.calibration import Observed
from sidecar.encoder.int4 import Int4Linear
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.quantized import QuantizedLinear, QuantizedRecipe
from sidecar.encoder.rounding import quantize_rows
from sidecar.encoder.saturation import nearest, scales_of
from sidecar.host import read_host
from sidecar.plan import weight_bits

from .by_hand import Float64, Random, rounded_by_hand

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)


def layer_of(
    inputs: int, outputs: int = 10, *, after_gelu: bool = False, seed: int = 0, rows: int = 300
) -> Observed:
    """Return a layer with correlated inputs, in channels of different magnitudes."""
    draw = Random(seed)
    causes = draw.array(rows, inputs // 2 + 1)
    x = causes @ draw.array(inputs // 2 + 1, inputs) + 0.2 * draw.array(rows, inputs)
    x = (x * np.exp(draw.array(inputs))).astype(np.float32)
    x = np.maximum(x, np.float32(-0.17)) if after_gelu else x
    linear = Linear(draw.array(outputs, inputs), draw.array(outputs))
    return Observed(linear, after_gelu, np.abs(x).max(axis=0), x.T @ x, x)


def seen_by(layer: Observed, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the inputs after smoothing."""
    if activations.unsmooth is None:
        return layer.linear.weight, layer.sample
    return layer.linear.weight / activations.unsmooth, layer.sample * activations.unsmooth


def share_of_error(layer: Observed, dense: np.ndarray) -> float:
    exact = layer.sample @ layer.linear.weight.T
    return float(np.square(layer.sample @ dense.T - exact).sum() / np.square(exact).sum())


class GridByHand:
    """Groups of sixteen levels. In the second half of the inputs, a weight's levels are 0 to 15
    higher, depending on the low half of the byte that it shares with one of the first half.
    """

    def __init__(self, inputs: int, outputs: int, size: int, importance: np.ndarray) -> None:
        self.integers = np.zeros((inputs, outputs))
        self.scales = np.zeros((inputs // size, outputs))
        self.zeros = np.zeros((inputs // size, outputs))
        self.size, self.importance = size, importance

    def levels(self, j: int, output: int) -> np.ndarray:
        half = len(self.integers) // 2
        low = 0 if j < half else int(self.integers[j - half, output]) // 16 % 16
        return np.arange(-8, 8) * 16 + low

    def rounded(self, j: int, rest: Float64) -> Float64:
        group = j // self.size
        for output in range(rest.shape[1]):
            if j % self.size == 0:
                self.fit(group, output, rest[: self.size, output])
            self.integers[j, output] = self.at(j, output, rest[0, output])
        return (self.integers[j] - self.zeros[group]) * self.scales[group]

    def at(self, j: int, output: int, value: float) -> float:
        group = j // self.size
        levels = self.levels(j, output)
        wanted = value / self.scales[group, output] + self.zeros[group, output]
        return float(levels[np.argmin(np.abs(levels - wanted))])

    def fit(self, group: int, output: int, values: Float64) -> None:
        columns = range(group * self.size, (group + 1) * self.size)
        middle = np.mean(
            [(self.levels(j, output)[0] + self.levels(j, output)[-1]) for j in columns]
        )
        least, most = min(values.min(), 0), max(values.max(), 0)
        found = []
        for clip in CLIPS:
            scale = float(np.float32(max((most - least) * clip, 1e-12) / 240))
            self.scales[group, output] = max((most - least) * clip, 1e-12) / 240
            zero = np.rint(middle / 2 - (most + least) / 2 * clip / self.scales[group, output])
            self.zeros[group, output] = zero
            error = sum(
                self.importance[j]
                * ((self.at(j, output, value) - zero) * self.scales[group, output] - value) ** 2
                for j, value in zip(columns, values, strict=True)
            )
            found.append((error, len(found), scale, zero))
        _, _, self.scales[group, output], self.zeros[group, output] = min(found)


def by_hand(weight: np.ndarray, gram: np.ndarray, size: int) -> GridByHand:
    grid = GridByHand(weight.shape[1], len(weight), size, np.diag(gram))
    rounded_by_hand(weight, gram, grid.rounded)
    return grid


@pytest.mark.parametrize(
    ("inputs", "outputs", "bits"), [(8, 9, 8), (12, 9, 7), (36, 4, 8), (388, 2, 7)]
)
def test_four_bits_are_what_the_method_gives(inputs: int, outputs: int, bits: int) -> None:
    """INT4 scales, zero points and bytes match the reference, with one or more groups per half."""
    layer = layer_of(inputs, outputs, seed=inputs, rows=inputs + 200)
    found = int4.calibrate(layer, bits)
    weight, x = seen_by(layer, found.activations)
    expected = by_hand(weight, x.T @ x, int4.group_size(inputs))
    np.testing.assert_allclose(found.scales, expected.scales, rtol=1e-5)
    np.testing.assert_array_equal(found.zeros, expected.zeros)
    high = expected.integers[inputs // 2 :].reshape(found.packed.shape)
    assert (found.packed == high).mean() > 0.999
    low = expected.integers[: inputs // 2].reshape(found.packed.shape)
    assert (found.packed.astype(int) % 16 * 16 == low % 256).mean() > 0.999
    expected_activations = (
        Activations(7, after_gelu=False)
        if bits == 7
        else choose(layer, partial(nearest, saturates=False))
    )
    assert (found.activations.bits, found.activations.step) == (bits, expected_activations.step)


def test_inputs_that_weigh_more_decide_how_a_group_is_cut() -> None:
    """An outlier weight is kept if its input is large, and clipped if its input is nearly idle."""
    weight = Random(3).array(30, 64)
    weight[:, 5] = 6
    errors = []
    for moves in (1e-3, 30):
        gram = np.eye(64, dtype=np.float32)
        gram[5, 5] = moves**2
        x = np.sqrt(gram)
        layer = Observed(Linear(weight, np.zeros(30)), False, x.max(axis=0), gram, x)
        errors.append(np.abs(int4.calibrate(layer, 7).dense() - weight)[:, 5].mean())
    assert errors[1] < 0.15
    assert errors[0] > 0.6


def test_zero_points_of_weights_of_one_sign_fit_a_byte() -> None:
    """Zero is always within a group's range, so zero points fit int8 for weights of one sign."""
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        weight = (sign * rng.uniform(5, 6, (20, 64))).astype(np.float32)
        x = rng.standard_normal((300, 64)).astype(np.float32)
        linear = Linear(weight, np.zeros(20, np.float32))
        layer = Observed(linear, False, np.abs(x).max(axis=0), x.T @ x, x)
        found = int4.calibrate(layer, 7)
        assert np.abs(found.dense() - weight).max() < 1
        assert (np.sign(found.zeros.astype(int)) == -sign).all()
        assert np.abs(found.zeros.astype(int)).min() > 110


def test_four_bits_leave_less_than_the_nearest_and_not_nothing() -> None:
    """INT4 leaves between 1% and 50% of the error of 15 levels with a scale per row."""
    layer = layer_of(128, 40, seed=4)
    rows, scales = quantize_rows(layer.linear.weight, 7)
    plain = share_of_error(layer, rows * scales)
    for bits in (7, 8):
        found = share_of_error(layer, int4.calibrate(layer, bits).dense())
        assert 0.01 * plain < found < 0.5 * plain, bits


@pytest.mark.parametrize("bits", [7, 8])
def test_eight_bits_leave_less_than_the_nearest_and_not_nothing(bits: int) -> None:
    layer = layer_of(96, 40, seed=5)
    rows, scales = quantize_rows(layer.linear.weight, 127 if bits == 8 else 64)
    plain = share_of_error(layer, rows * scales)
    found = share_of_error(layer, int8.calibrate(layer, bits).dense())
    assert 0.01 * plain < found < 0.6 * plain


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("after_gelu", [False, True])
def test_eight_bits_are_rounded_behind_the_smoothing(bits: int, after_gelu: bool) -> None:
    """INT8 scales and rounding use the weight and the second moments after smoothing."""
    layer = layer_of(40, after_gelu=after_gelu, seed=6)
    found = int8.calibrate(layer, bits)
    assert (found.activations.unsmooth is None) == after_gelu
    weight, x = seen_by(layer, found.activations)
    gram = (x.T @ x).astype(np.float32)
    expected = scales_of(weight, np.diag(gram), saturates=bits == 7)
    np.testing.assert_allclose(found.scales, expected, rtol=1e-5)
    # Independent of the order of the columns: well below the error of rounding to nearest.
    moments = gram + np.eye(40) * 0.01 * np.diag(gram).mean()
    own = found.rows * found.scales[:, np.newaxis] - weight
    nearest_ = np.rint(weight / expected[:, np.newaxis]) * expected[:, np.newaxis] - weight
    assert np.einsum("oi,ij,oj->", own, moments, own) < 0.6 * np.einsum(
        "oi,ij,oj->", nearest_, moments, nearest_
    )


@pytest.mark.parametrize("bits", [7, 8])
def test_smoothing_changes_no_product(bits: int) -> None:
    """Smoothing changes neither the products nor, beyond rounding, the effective weight."""
    layer = layer_of(64, seed=7)
    found = int8.calibrate(layer, bits)
    assert found.activations.unsmooth is not None
    weight, gram = int8.smoothed(layer, found.activations)
    x = layer.sample * found.activations.unsmooth
    np.testing.assert_allclose(x @ weight.T, layer.sample @ layer.linear.weight.T, atol=1e-2)
    np.testing.assert_allclose(gram, x.T @ x, rtol=1e-3, atol=1e-3 * np.abs(gram).max())
    np.testing.assert_allclose(
        found.dense(), found.rows * found.scales[:, np.newaxis] * found.activations.unsmooth
    )
    assert share_of_error(layer, found.dense()) < 1e-3


def test_a_part_is_its_own_outputs_alone() -> None:
    """The parts of a layer, in 8 and 4 bits, concatenate to the whole layer's weight."""
    layer = layer_of(24, 12, seed=8)
    for whole in (int8.calibrate(layer, 8), int4.calibrate(layer, 8)):
        parts = [whole.part(index, 3).dense() for index in range(3)]
        assert [len(part) for part in parts] == [4, 4, 4]
        np.testing.assert_array_equal(np.concatenate(parts), whole.dense())


def test_a_byte_holds_a_weight_of_each_half() -> None:
    """A byte gives one weight for each half: itself, and 16 times it with overflow."""
    packed = np.array([[[-128], [127]], [[0x35], [-1]]], np.int8)  # two groups of two per half
    scales = np.float32([[1], [2], [3], [4]])
    zeros = np.array([[0], [5], [-128], [127]], np.int8)
    rows = Activations(7, after_gelu=False)
    found = Int4Linear(packed, scales, zeros, rows).dense()[0]
    low = [0, -16, 0x50, -16]  # 16 times the byte, modulo 256
    high = [-128, 127, 0x35, -1]
    steps = np.repeat([1, 2, 3, 4], 2)
    assert found.tolist() == ((np.array(low + high) - np.repeat(zeros[:, 0], 2)) * steps).tolist()


def test_smoothed_four_bits_are_those_of_the_smoothed_layer() -> None:
    layer = layer_of(32, seed=9)
    found = int4.calibrate(layer, 8)
    unsmooth = found.activations.unsmooth
    assert unsmooth is not None
    plain = replace(found, activations=Activations(8, after_gelu=False))
    np.testing.assert_allclose(found.dense(), plain.dense() * unsmooth)
    assert share_of_error(layer, found.dense()) < 0.02


def run_parts(layer: Observed, linear: QuantizedLinear, parts: int) -> np.ndarray:
    """Return the graph's products of `parts` parts, concatenated, with the bias."""
    graph = GraphWriter()
    recipe = QuantizedRecipe({"w": linear}, {})
    product = recipe.matmul(graph, "w", layer.linear, "x", after_gelu=layer.after_gelu, parts=parts)
    assert len(product.parts) == parts
    assert product.biased == (linear.activations.step is not None)
    names = [f"y{i}" for i in range(parts)]
    for part, name in zip(product.parts, names, strict=True):
        graph.rename(part, name)
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", *names)]
    session = ort.InferenceSession(graph.model(floats[:1], floats[1:]).SerializeToString())
    found = np.concatenate(session.run(names, {"x": layer.sample[np.newaxis]}), axis=-1)[0]
    return np.asarray(found if product.biased else found + layer.linear.bias)


@pytest.mark.parametrize("after_gelu", [False, True])
def test_parts_are_multiplied_as_they_say_side_by_side(*, after_gelu: bool) -> None:
    """Each part uses its own weights, scales and biases, with static and with per-row scales."""
    layer = layer_of(24, 12, after_gelu=after_gelu, seed=11)
    plain = Activations(7, after_gelu)
    ways: list[QuantizedLinear] = [int8.calibrate(layer, 7), int4.calibrate(layer, 7)]
    ways.append(replace(int8.calibrate(layer, 7), activations=plain))
    if weight_bits(read_host()) > 7:  # on other hosts they would saturate
        ways += [int8.calibrate(layer, 8), int4.calibrate(layer, 8)]
    for linear in ways:
        expected = linear.activations.restored(layer.sample) @ linear.dense().T + layer.linear.bias
        for parts in (1, 3):
            found = run_parts(layer, linear, parts)
            # An input halfway between two steps may be rounded either way.
            near = np.abs(found - expected) <= 1e-4 * np.abs(expected).max()
            assert near.mean() > 0.99, (linear.activations, parts)
