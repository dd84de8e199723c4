"""Our graph against transformers' output, and independence of rows from each other."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.encoder import layerwise
from sidecar.encoder.architecture import Encoder
from sidecar.encoder.folding import folded
from sidecar.encoder.graph import build, build_embeddings, build_layer
from sidecar.encoder.mpnet import distance_bias
from sidecar.encoder.recipes import Float32Recipe
from sidecar.encoder.runtime import Session
from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.manifest import Quality
from sidecar.models.model import session_of
from sidecar.models.precision import Precision
from sidecar.models.quantize import quantized
from sidecar.models.rows import Row

from ..later import Later

torch = Later("torch")
AutoModel = Later("transformers", "AutoModel")
AutoModelForSequenceClassification = Later("transformers", "AutoModelForSequenceClassification")

MakeModel = Callable[..., Path]


WORDS = 300


def encoder_of(folder: Path) -> Encoder:
    return read_encoder(folder, describe(folder))


def random_ids(tokens: int, *, batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, WORDS, (batch, tokens))


@pytest.fixture(scope="session")
def make_model(make_model: MakeModel) -> MakeModel:
    """Return the maker of small models, limited to few words: tables are quantized row by row."""
    return partial(make_model, vocab_size=WORDS)


# One per implementation: CamemBERT and ERNIE are computed like XLM-R and BERT.
FAMILIES = ["bert", "roberta", "xlm-roberta", "electra", "mpnet", "distilbert"]
TYPED = {"bert", "electra"}


def transformers_inputs(family: str, ids: np.ndarray, types: np.ndarray) -> dict[str, Any]:
    tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(ids.shape)}
    return tensors | ({"token_type_ids": torch.tensor(types)} if family in TYPED else {})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("tokens", [1, 7, 96])
def test_fp32_embedder_equals_transformers(
    make_model: MakeModel, family: str, pooling: str, tokens: int
) -> None:
    """The FP32 graph matches transformers within 1e-4 for every family, pooling and length."""
    folder = make_model(family, pooling=pooling)
    ids, types = random_ids(tokens), np.zeros((1, tokens), np.int64)
    types[0, tokens // 2 :] = family in TYPED
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**transformers_inputs(family, ids, types)).last_hidden_state
    expected = hidden.mean(1) if pooling == "mean" else hidden[:, 0]
    ours = Session(build(encoder_of(folder), Float32Recipe()).SerializeToString()).run(ids, types)
    assert np.abs(ours - expected.numpy()).max() <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_reranker_equals_transformers(make_model: MakeModel, family: str) -> None:
    """A cross-encoder's logit matches transformers' within 1e-4."""
    folder = make_model(family, classifier=True)
    ids, types = random_ids(33), np.zeros((1, 33), np.int64)
    types[0, 12:] = family in TYPED
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**transformers_inputs(family, ids, types)).logits
    ours = Session(build(encoder_of(folder), Float32Recipe()).SerializeToString()).run(ids, types)
    assert ours.shape == (1, 1)
    assert np.abs(ours - expected.numpy()).max() <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_biases_leave_the_function_as_it_is(make_model: MakeModel, family: str) -> None:
    """Folding removes every bias before a residual sum and changes vectors by at most 1e-4."""
    encoder = encoder_of(make_model(family))
    other = folded(encoder)
    assert all(layer.down.bias.any() for layer in encoder.layers)
    assert not any(layer.down.bias.any() for layer in other.layers)
    assert not any(layer.attention_output.bias.any() for layer in other.layers)
    ids, types = random_ids(40), np.zeros((1, 40), np.int64)
    graphs = [build(each, Float32Recipe()).SerializeToString() for each in (encoder, other)]
    before, after = (Session(graph).run(ids, types) for graph in graphs)
    assert np.abs(before - after).max() <= 1e-4
    assert len(graphs[1]) < len(graphs[0])


@pytest.mark.parametrize("longest", [2, 20, 514])
def test_distance_buckets_are_the_references(longest: int) -> None:
    """MPNet's distance buckets equal transformers' at every distance."""
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-longest + 1, longest)
    expected = MPNetEncoder.relative_position_bucket(distances, num_buckets=32)
    table = np.arange(32, dtype=np.float32)[:, np.newaxis]
    assert (distance_bias(table, longest)[0] == expected.numpy()).all()


@pytest.mark.slow
def test_fp32_equals_sentence_transformers_on_the_real_model(minilm_folder: Path) -> None:
    """On MiniLM, the FP32 graph matches transformers within 1e-4 for the longest input."""
    ids, types = random_ids(256), np.zeros((1, 256), np.int64)
    model = AutoModel.from_pretrained(minilm_folder).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids)).last_hidden_state.mean(1).numpy()
    graph = build(encoder_of(minilm_folder), Float32Recipe())
    assert np.abs(Session(graph.SerializeToString()).run(ids, types) - expected).max() <= 1e-4


def session(folder: Path, quantization: str, bits: int = 7) -> Session:
    """Return a session as served in `quantization`, calibrated on random ids."""
    encoder = encoder_of(folder)
    if quantization == "none":
        return session_of(build(encoder, Float32Recipe()).SerializeToString(), quantization)
    texts = [random_ids(40, seed=seed)[0] for seed in range(20)]
    rows = [Row(ids, np.zeros_like(ids), truncated=False) for ids in texts]
    unproven = Quality(mean=1.0, p1=1.0, min=1.0, texts=0)
    made = quantized(
        encoder, rows, Precision(quantization, bits, 0.0), lambda _: unproven, lambda *_: None
    )
    return session_of(made.graph.SerializeToString(), quantization)


PLANS = ["none", "int8", "int4"]


@pytest.fixture(scope="module", params=[f"{f} {p}" for f in FAMILIES for p in PLANS])
def served(make_model: MakeModel, request: pytest.FixtureRequest) -> Session:
    """Return every family in every quantization served on a CPU."""
    family, plan = request.param.split()
    return session(make_model(family), plan)


@given(lengths=st.lists(st.integers(1, 96), min_size=1, max_size=16), threads=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_row_is_bit_identical_beside_any_others(
    served: Session, lengths: list[int], threads: int
) -> None:
    """A row's output is bit-identical whether it runs alone or alongside other rows."""
    rows = [random_ids(length, seed=length) for length in lengths]
    alone = [served.run(ids, np.zeros_like(ids)).tobytes() for ids in rows]
    with ThreadPoolExecutor(threads) as pool:
        beside = list(pool.map(lambda ids: served.run(ids, np.zeros_like(ids)).tobytes(), rows))
    assert alone == beside


def test_rows_are_never_merged(served: Session) -> None:
    """A run with two rows is refused, because their last bits would depend on each other."""
    ids = random_ids(6, batch=2)
    with pytest.raises(Exception, match="Expected: 1"):
        served.run(ids, np.zeros_like(ids))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("plan", "least"), [("int8", 0.99), ("int4", 0.9)])
@pytest.mark.parametrize("bits", [7, 8])
def test_quantized_is_close_to_fp32(
    make_model: MakeModel, family: str, plan: str, least: float, bits: int
) -> None:
    """Even with random weights, the quantized vector stays close to the FP32 one in direction."""
    folder = make_model(family)
    ids = random_ids(50)
    a, b = (
        served.run(ids, np.zeros_like(ids))[0]
        for served in (session(folder, "none"), session(folder, plan, bits))
    )
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > least


@pytest.mark.parametrize("activation", ["gelu_new", "quick_gelu", "relu", "silu"])
@pytest.mark.parametrize(("plan", "least"), [("int8", 0.99), ("int4", 0.9)])
def test_other_activations_are_quantized_as_close(
    make_model: MakeModel, activation: str, plan: str, least: float
) -> None:
    """Models with activations other than GELU stay close to FP32 when quantized."""
    folder = make_model(hidden_act=activation)
    for tokens in (2, 50):
        ids = random_ids(tokens)
        a, b = (
            served.run(ids, np.zeros_like(ids))[0]
            for served in (session(folder, "none"), session(folder, plan))
        )
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > least


def test_what_reaches_lower_than_gelu_keeps_all_of_its_range(make_model: MakeModel) -> None:
    """Only activations bounded like GELU get its one-sided grid, which would clip SiLU."""
    texts = [(random_ids(90), np.zeros((1, 90), np.int64))]
    for activation in ("gelu", "gelu_new", "quick_gelu", "relu", "silu"):
        encoder = encoder_of(make_model(hidden_act=activation))
        hidden = layerwise.run_embeddings(encoder, Float32Recipe(), texts)
        fed = layerwise.run_layer(encoder, 0, Float32Recipe(), hidden).fed["layer.0.down"]
        assert fed.after_gelu == (min(rows.min() for rows in fed.rows) >= -0.1701), activation


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_are_the_whole(make_model: MakeModel, family: str) -> None:
    """The embeddings and layers, run as separate models, give the whole model's result."""
    encoder = encoder_of(make_model(family))
    ids, recipe = random_ids(30), Float32Recipe()
    feeds = {"ids": ids, "token_types": np.zeros_like(ids)}
    graph = build_embeddings(encoder, recipe)
    (x,) = Session(graph.SerializeToString()).run_for(["hidden"], feeds)
    for index in range(len(encoder.layers)):
        graph = build_layer(encoder, index, recipe)
        (x,) = Session(graph.SerializeToString()).run_for(["hidden"], {"x": x})
    whole = Session(build(encoder, recipe).SerializeToString()).run(*feeds.values())
    np.testing.assert_allclose(x.mean(axis=1), whole, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "tanh"}, {"is_decoder": True}, {"position_embedding_type": "relative_key"}],
)
def test_variant_with_other_mathematics_is_refused(
    make_model: MakeModel, change: dict[str, object]
) -> None:
    """A BERT variant that the graph would compute incorrectly is refused by field name."""
    folder = make_model()
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownArchitectureError, match=rf"{next(iter(change))} is .* \(supported"):
        encoder_of(folder)
