"""An artifact's whole life: prepared, proven, loaded, replaced, damaged."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog

from sidecar.models import manifest as manifests
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, cached_path, open_model
from sidecar.models.model import load
from sidecar.models.prepare import prepare

MakeModel = Callable[..., Path]


def wanted(folder: Path, **changes: str) -> Wanted:
    return replace(
        Wanted(name=str(folder), task="embed", quantization="int8", reason="a test"), **changes
    )


def test_embedded_model_meets_the_floor(minilm_artifact: Path) -> None:
    """The embedded model in INT8: mean cosine of 0.995 or more, in a quarter of the bytes."""
    manifest = manifests.read(minilm_artifact)
    assert manifest.quality is not None
    assert manifest.quality.mean >= 0.995
    assert manifest.bytes_weights <= 0.27 * manifest.bytes_fp32


def test_serving_needs_nothing_of_the_source(minilm_artifact: Path) -> None:
    """A loaded artifact turns a text into a vector of the model's width."""
    model = load(minilm_artifact)
    (row,) = model.tokenize(["a short text"])
    vector = model.forward(row)
    assert vector.shape == (384,)
    assert vector.dtype == np.float32


def test_long_text_is_cut_and_says_so(minilm_artifact: Path) -> None:
    """A text over the model's length is cut at it; a shorter one is as long as it is."""
    model = load(minilm_artifact)
    short, long = model.tokenize(["three short words", "word " * 1000])
    assert (short.tokens, short.truncated) == (5, False)
    assert (long.tokens, long.truncated) == (256, True)


def test_fp32_artifact_is_its_own_reference(make_model: MakeModel, tmp_path: Path) -> None:
    """Without quantization nothing is measured against FP32, for it is FP32."""
    manifest = prepare(make_model(), "tiny", "none", tmp_path / "out")
    assert manifest.quality is None
    assert manifest.bytes_weights == manifest.bytes_fp32


def test_reranker_scores_are_probabilities(make_model: MakeModel, tmp_path: Path) -> None:
    """A cross-encoder's score is one number between 0 and 1, and its order is verified."""
    manifest = prepare(make_model(classifier=True), "tiny", "int8", tmp_path / "out")
    assert manifest.quality is not None
    assert manifest.quality.rank_agreement is not None
    model = load(tmp_path / "out")
    (score,) = model.forward(model.tokenize([("query", "document")])[0])
    assert 0 < score < 1


def test_manifest_survives_a_round_trip(make_model: MakeModel, tmp_path: Path) -> None:
    """What was written is what is read."""
    manifest = prepare(make_model(), "tiny", "int8", tmp_path / "out")
    assert manifests.read(tmp_path / "out") == manifest


def test_artifact_is_replaced_but_nothing_else_is(make_model: MakeModel, tmp_path: Path) -> None:
    """Preparing over an artifact replaces it; over another folder it is refused."""
    folder = make_model()
    prepare(folder, "tiny", "int8", tmp_path / "out")
    assert prepare(folder, "again", "int8", tmp_path / "out").name == "again"
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelError, match="not an artifact"):
        prepare(folder, "tiny", "int8", tmp_path / "mine")


def test_failed_preparation_leaves_nothing(make_model: MakeModel, tmp_path: Path) -> None:
    """A model that turns out to be unreadable leaves no half artifact."""
    folder = make_model()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        prepare(folder, "tiny", "int8", tmp_path / "cache" / "out")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["{", "{}", '{"format": 99}'])
def test_damaged_manifest_says_what_to_do(
    minilm_artifact: Path, tmp_path: Path, damage: str
) -> None:
    """A manifest that cannot be read asks for the model to be prepared again."""
    (tmp_path / "manifest.json").write_text(damage)
    with pytest.raises(ModelError, match="prepare the model again"):
        load(tmp_path)


def test_opening_prepares_once(make_model: MakeModel, tmp_path: Path) -> None:
    """The first opening prepares and says so; the second finds the artifact."""
    folder = make_model()
    with structlog.testing.capture_logs() as first:
        open_model(wanted(folder), tmp_path)
    with structlog.testing.capture_logs() as second:
        open_model(wanted(folder), tmp_path)
    names = [entry["event"] for entry in first]
    assert names == [
        "model.loading", "quantization.selected", "model.preparing", "model.prepared",
        "quantization.applied", "model.loaded",
    ]  # fmt: skip
    assert "model.preparing" not in [entry["event"] for entry in second]


def test_events_speak_the_operators_words(make_model: MakeModel, tmp_path: Path) -> None:
    """The messages are the ones that operators search for, with the figures beside them."""
    with structlog.testing.capture_logs() as events:
        open_model(wanted(make_model()), tmp_path)
        open_model(wanted(make_model(classifier=True), task="rerank"), tmp_path)
    messages = [event["message"] for event in events if "message" in event]
    assert messages == [
        "Using int8 quantization for embeddings",
        "Applied dynamic int8 quantization (CPU)",
        "Using int8 quantization for reranker",
        "Applied dynamic int8 quantization to reranker (CPU)",
    ]
    (applied, _) = [event for event in events if event["event"] == "quantization.applied"]
    assert applied["bytes_after"] < applied["bytes_before"]
    assert applied["cosine_mean"] > 0.99


def test_model_for_another_task_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    """An embedder given as the reranker is refused."""
    with pytest.raises(ModelError, match="a model to embed, not to rerank"):
        open_model(wanted(make_model(), task="rerank"), tmp_path)


def test_artifact_in_another_quantization_is_refused(minilm_artifact: Path, tmp_path: Path) -> None:
    """An int8 artifact does not serve where FP32 is configured."""
    with pytest.raises(ModelError, match="is an artifact in int8, but none is configured"):
        open_model(wanted(minilm_artifact, quantization="none"), tmp_path)


def test_cache_follows_the_source(make_model: MakeModel, tmp_path: Path) -> None:
    """A changed source has another place in the cache, and so has another quantization."""
    folder = make_model()
    before = cached_path(folder, "int8", tmp_path)
    assert cached_path(folder, "none", tmp_path) != before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=8))
    assert cached_path(folder, "int8", tmp_path) != before
