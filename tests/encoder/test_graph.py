"""Our graph against transformers' own output, and its rows against each other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForSequenceClassification

from sidecar.encoder.architecture import Encoder, UnsupportedModelError
from sidecar.encoder.calibration import observe
from sidecar.encoder.graph import build
from sidecar.encoder.int8 import Int8Recipe, calibrate
from sidecar.encoder.mpnet import distance_bias
from sidecar.encoder.recipes import Float32Recipe
from sidecar.encoder.runtime import Session
from sidecar.models.folder import describe, read_encoder

MakeModel = Callable[..., Path]


def encoder_of(folder: Path) -> Encoder:
    return read_encoder(folder, describe(folder))


def random_ids(tokens: int, *, batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 30_000, (batch, tokens))


FAMILIES = ["bert", "roberta", "xlm-roberta", "mpnet", "distilbert"]


def transformers_inputs(family: str, ids: np.ndarray, types: np.ndarray) -> dict[str, Any]:
    tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(ids.shape)}
    return tensors | ({"token_type_ids": torch.tensor(types)} if family == "bert" else {})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("tokens", [1, 7, 96])
def test_fp32_embedder_equals_transformers(
    make_model: MakeModel, family: str, pooling: str, tokens: int
) -> None:
    """The FP32 graph is transformers' model to 1e-4, whatever the pooling and the length."""
    folder = make_model(family, pooling=pooling)
    ids, types = random_ids(tokens), np.zeros((1, tokens), np.int64)
    types[0, tokens // 2 :] = family == "bert"
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**transformers_inputs(family, ids, types)).last_hidden_state
    expected = hidden.mean(1) if pooling == "mean" else hidden[:, 0]
    ours = Session(build(encoder_of(folder), Float32Recipe()).SerializeToString()).run(ids, types)
    assert np.abs(ours - expected.numpy()).max() <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_reranker_equals_transformers(make_model: MakeModel, family: str) -> None:
    """A cross-encoder's logit is transformers' logit to 1e-4."""
    folder = make_model(family, classifier=True)
    ids, types = random_ids(33), np.zeros((1, 33), np.int64)
    types[0, 12:] = family == "bert"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**transformers_inputs(family, ids, types)).logits
    ours = Session(build(encoder_of(folder), Float32Recipe()).SerializeToString()).run(ids, types)
    assert ours.shape == (1, 1)
    assert np.abs(ours - expected.numpy()).max() <= 1e-4


@pytest.mark.parametrize("longest", [2, 20, 514])
def test_distance_buckets_are_the_references(longest: int) -> None:
    """MPNet's bias by distance is transformers' own, at every distance."""
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-longest + 1, longest)
    expected = MPNetEncoder.relative_position_bucket(distances, num_buckets=32)
    table = np.arange(32, dtype=np.float32)[:, np.newaxis]
    assert (distance_bias(table, longest)[0] == expected.numpy()).all()


@pytest.mark.slow
def test_fp32_equals_sentence_transformers_on_the_real_model(minilm_folder: Path) -> None:
    """On the embedded model the FP32 graph is transformers' to 1e-4 at its longest input."""
    ids, types = random_ids(256), np.zeros((1, 256), np.int64)
    model = AutoModel.from_pretrained(minilm_folder).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids)).last_hidden_state.mean(1).numpy()
    graph = build(encoder_of(minilm_folder), Float32Recipe())
    assert np.abs(Session(graph.SerializeToString()).run(ids, types) - expected).max() <= 1e-4


def int8_session(folder: Path) -> Session:
    encoder = encoder_of(folder)
    texts = [(ids, np.zeros_like(ids)) for ids in (random_ids(40, seed=s) for s in range(20))]
    observed = observe(encoder, texts, lambda: None)
    linears = {name: calibrate(layer, 7) for name, layer in observed.items()}
    return Session(build(encoder, Int8Recipe(linears)).SerializeToString())


@pytest.fixture(scope="module", params=FAMILIES)
def int8(make_model: MakeModel, request: pytest.FixtureRequest) -> Session:
    return int8_session(make_model(request.param))


@given(lengths=st.lists(st.integers(1, 96), min_size=1, max_size=16), threads=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_int8_row_is_bit_identical_beside_any_others(
    int8: Session, lengths: list[int], threads: int
) -> None:
    """A row has the same bytes alone and while any other rows run beside it."""
    rows = [random_ids(length, seed=length) for length in lengths]
    alone = [int8.run(ids, np.zeros_like(ids)).tobytes() for ids in rows]
    with ThreadPoolExecutor(threads) as pool:
        beside = list(pool.map(lambda ids: int8.run(ids, np.zeros_like(ids)).tobytes(), rows))
    assert alone == beside


def test_rows_are_never_merged(int8: Session) -> None:
    """Two rows in one run are refused: their last bits would depend on each other."""
    ids = random_ids(6, batch=2)
    with pytest.raises(Exception, match="Expected: 1"):
        int8.run(ids, np.zeros_like(ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_close_to_fp32(make_model: MakeModel, family: str) -> None:
    """Even on random weights the 8-bit vector points where the FP32 one does."""
    folder = make_model(family)
    exact = Session(build(encoder_of(folder), Float32Recipe()).SerializeToString())
    ids = random_ids(50)
    a, b = (session.run(ids, np.zeros_like(ids))[0] for session in (exact, int8_session(folder)))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "relu"}, {"is_decoder": True}, {"position_embedding_type": "relative_key"}],
)
def test_variant_with_other_mathematics_is_refused(
    make_model: MakeModel, change: dict[str, object]
) -> None:
    """A BERT that this graph would compute wrongly is refused instead."""
    import json

    folder = make_model()
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    from sidecar.models.errors import ModelError

    with pytest.raises((UnsupportedModelError, ModelError), match=r"known is|decoder"):
        encoder_of(folder)
