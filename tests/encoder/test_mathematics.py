"""The FP32 graph against a numpy implementation, across every way in which models differ."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from sidecar.encoder.architecture import (
    Activation,
    Classifier,
    Dense,
    Embeddings,
    Encoder,
    Head,
    Norm,
    Pooling,
    UnitLength,
)
from sidecar.encoder.folding import folded
from sidecar.encoder.functions import activate
from sidecar.encoder.graph import build
from sidecar.encoder.heads import add_head
from sidecar.encoder.nodes import GraphWriter
from sidecar.encoder.quantized import QuantizedRecipe
from sidecar.encoder.recipes import Float32Recipe
from sidecar.encoder.runtime import Session
from sidecar.encoder.static import static_encoder

from .by_hand import ACTIVATIONS, EPSILONS, ByHand, Random, headed, small_encoder

EMPTY = np.zeros((1, 0), np.int64)


def run(encoder: Encoder, ids: Sequence[int], types: Sequence[int]) -> np.ndarray:
    session = Session(build(encoder, Float32Recipe()).SerializeToString())
    feeds = (np.array([each], np.int64) for each in (ids, types))
    return session.run(*feeds)[0]


def text_of(tokens: int) -> tuple[list[int], list[int]]:
    """Return ids that contain 3 and 5, which a test may use as padding, at several positions."""
    ids = np.random.default_rng(tokens).integers(0, 60, tokens)
    ids[1::5], ids[2::7] = 3, 5
    return ids.tolist(), [int(i >= tokens // 3) for i in range(tokens)]


def varied() -> dict[str, dict[str, Any]]:
    """Return variations of an encoder by name."""
    draw = Random(9)
    plain = small_encoder().embeddings
    return {
        "as it is": {},
        "one head": {"heads": 1},
        "eight heads": {"heads": 8},
        "a bias by distance": {"distance_bias": draw.array(4, 2 * 25 - 1)},
        "no token types": {"embeddings": replace(plain, token_type=None)},
        "no positions": {"embeddings": replace(plain, position=None)},
        "padding of 0": {"embeddings": replace(plain, padding_id=0)},
        "padding of 3": {"embeddings": replace(plain, padding_id=3)},
        "narrow tables": {
            "embeddings": Embeddings(
                draw.array(60, 6), draw.array(40, 6), draw.array(2, 6), draw.norm(6, 0.2),
                projection=draw.linear(6, 16),
            )
        },
        **{f"activation {kind}": {"activation": kind} for kind in Activation},
    }  # fmt: skip


@pytest.mark.parametrize("what", list(varied()))
def test_the_graph_computes_what_the_papers_have(what: str) -> None:
    """The graph matches the numpy model, even if every layer norm has a distinct large epsilon."""
    encoder = small_encoder(**varied()[what])
    for tokens in (1, 2, 20):
        ids, types = text_of(tokens)
        expected = ByHand(encoder).vector(ids, types)
        np.testing.assert_allclose(run(encoder, ids, types), expected, atol=2e-5)
        np.testing.assert_allclose(run(folded(encoder), ids, types), expected, atol=5e-5)


@pytest.mark.parametrize("at", range(5))
def test_every_epsilon_is_seen_in_a_vector(at: int) -> None:
    """A vector changes measurably if any layer norm's epsilon grows by a third."""
    encoder = small_encoder()
    ids, types = text_of(20)
    epsilons = list(EPSILONS)
    epsilons[at] *= 1.3
    other = ByHand(small_encoder(epsilons=epsilons)).vector(ids, types)
    assert np.abs(ByHand(encoder).vector(ids, types) - other).max() > 4e-5


def test_tables_of_no_layers_are_averaged() -> None:
    """A model without layers returns the mean of its token vectors, zero for an empty text."""
    encoder = static_encoder(Random(1).array(20, 6), Head((Pooling.BAG,)))
    session = Session(build(encoder, Float32Recipe()).SerializeToString())
    assert not session.run(EMPTY, EMPTY).any()
    for ids in ([3], [1, 2, 2, 19]):
        found = session.run(np.array([ids]), np.zeros((1, len(ids)), np.int64))
        np.testing.assert_allclose(found[0], encoder.embeddings.word[ids].mean(axis=0), atol=1e-6)
    assert folded(encoder) is encoder
    assert len(encoder.layers) == 0
    with pytest.raises(IndexError):
        encoder.layers[0]


def heads() -> list[Head | Classifier]:
    draw = Random(4)
    residual = draw.array(5, 12)
    return [
        *(Head((pooling,)) for pooling in Pooling),
        Head(tuple(Pooling)),
        Head((Pooling.LAST_TOKEN, Pooling.CLS), (UnitLength(),)),
        Head((Pooling.CLS,), (draw.norm(12, 0.4), Dense(draw.linear(12, 3), Activation.TANH))),
        Head((Pooling.MEAN,), (Dense(draw.linear(12, 12), Activation.RELU, use_residual=True),)),
        Head(
            (Pooling.MEAN,),
            (Dense(draw.linear(12, 5), Activation.ELU, use_residual=True, residual=residual),
             UnitLength(), draw.norm(5, 1e-5)),
        ),
        *(Classifier(draw.linear(12, 7), draw.linear(7, 2), kind) for kind in Activation),
    ]  # fmt: skip


def test_heads_compute_what_they_say() -> None:
    """Every pooling and every head step matches numpy for one token and for several."""
    for head in heads():
        for tokens in (1, 2, 9):
            x = Random(tokens).array(tokens, 12)
            found = run_head(head, x)
            np.testing.assert_allclose(found, headed(head, x), atol=1e-5, err_msg=str(head)[:90])


def run_head(head: Head | Classifier, x: np.ndarray) -> np.ndarray:
    graph = GraphWriter()
    graph.rename(add_head(graph, head, "x"), "y")
    make = helper.make_tensor_value_info
    inputs = [make("x", TensorProto.FLOAT, [1, "tokens", x.shape[1]])]
    model = graph.model(inputs, [make("y", TensorProto.FLOAT, None)])
    session = ort.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(["y"], {"x": x[np.newaxis]})[0])[0]


def test_a_vector_of_no_length_stays_one() -> None:
    """UnitLength divides vectors shorter than 1e-12 by 1e-12, so zeros stay zeros."""
    head = Head((Pooling.CLS,), (UnitLength(),))
    assert not run_head(head, np.zeros((1, 4), np.float32)).any()
    tiny = np.full((1, 4), 1e-14, np.float32)
    np.testing.assert_allclose(run_head(head, tiny)[0], 1e-2, rtol=1e-4)
    np.testing.assert_allclose(run_head(head, 1e6 * tiny)[0], 0.5, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_functions_are_what_they_are_called(*, bias: bool) -> None:
    """Activations are exact in FP32; quantized recipes replace GELU by its tanh approximation."""
    x = np.linspace(-6, 6, 241, dtype=np.float32)[np.newaxis, np.newaxis]
    more = Random(2).array(241) if bias else np.zeros(241, np.float32)
    for kind, function in ACTIVATIONS.items():
        expected = [function(float(each)) for each in (x[0, 0] + more)]
        np.testing.assert_allclose(run_function(kind, x, more, activate), expected, atol=2e-6)
        other = Activation.GELU_TANH if kind is Activation.GELU else kind
        expected = [ACTIVATIONS[other](float(each)) for each in (x[0, 0] + more)]
        recipe = QuantizedRecipe({}, {})
        np.testing.assert_allclose(
            run_function(kind, x, more, recipe.activate), expected, atol=2e-6
        )
    assert ACTIVATIONS.keys() == set(Activation)


def run_function(kind: Activation, x: np.ndarray, more: np.ndarray, add: Any) -> np.ndarray:
    graph = GraphWriter()
    bias = graph.constant(more, "bias") if more.any() else ""
    graph.rename(add(graph, kind, "x", bias), "y")
    make = helper.make_tensor_value_info
    floats = [make(name, TensorProto.FLOAT, x.shape) for name in ("x", "y")]
    session = ort.InferenceSession(graph.model(floats[:1], floats[1:]).SerializeToString())
    return np.asarray(session.run(["y"], {"x": x})[0])[0, 0]


def test_widths_behind_a_head_are_checked() -> None:
    """The output width is known before building, and an error names a step that does not fit."""
    draw = Random(5)
    steps = (draw.norm(32, 0.1), UnitLength(), Dense(draw.linear(32, 7), Activation.TANH))
    encoder = small_encoder(Head((Pooling.MEAN, Pooling.CLS), steps))
    assert (encoder.hidden, encoder.outputs) == (16, 7)
    assert len(run(encoder, *text_of(4))) == 7
    assert small_encoder().outputs == 16
    classifier = Classifier(draw.linear(16, 5), draw.linear(5, 3), Activation.RELU)
    assert small_encoder(classifier).outputs == len(run(small_encoder(classifier), [1], [0])) == 3
    with pytest.raises(ValueError, match="Norm takes 32 dimensions, but gets 16"):
        small_encoder(Head((Pooling.MEAN,), steps))
    with pytest.raises(ValueError, match="Dense takes 32 dimensions, but gets 7"):
        small_encoder(Head((Pooling.MEAN, Pooling.CLS), (*steps, steps[-1])))


def test_a_layer_that_is_changed_is_the_only_one() -> None:
    """Replacing a layer affects only that layer; the others are still read on every access."""
    encoder, reads = small_encoder(), []

    def read(index: int) -> Any:
        reads.append(index)
        return encoder.layers[index]

    layers = replace(encoder, layers=type(encoder.layers)(2, read)).layers
    norm = Norm(np.ones(16, np.float32), np.zeros(16, np.float32), 1.0)
    first = layers.changed(0, replace(layers[0], output_norm=norm))
    both = first.changed(1, replace(layers[1], attention_norm=norm))
    reads.clear()
    assert (first[0].output_norm is norm, first[1] is encoder.layers[1]) == (True, True)
    assert reads == [1]
    assert [each.output_norm is norm for each in both] == [True, False]
    assert both[1].attention_norm is norm
    assert layers[0].output_norm is encoder.layers[0].output_norm
    assert (len(first), len(both)) == (2, 2)
