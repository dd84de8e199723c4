"""The life of an artifact: prepared, compared with FP32, loaded, replaced, damaged."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from safetensors.numpy import load_file, save_file

from sidecar.models import manifest as manifests
from sidecar.models.digests import Digests, fingerprint
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, open_model
from sidecar.models.manifest import Manifest
from sidecar.models.model import load
from sidecar.models.place import cached_path
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.probes import calibration_inputs

MakeModel = Callable[..., Path]


INT8 = Precision("int8", weight_bits=7, floor=0.95)
INT4 = Precision("int4", weight_bits=7, floor=0.9)
FP32 = Precision("none", weight_bits=7, floor=0.95)


def wanted(folder: Path, **changes: Any) -> Wanted:
    plain = Wanted(name=str(folder), task="embed", precision=INT8, reason="a test")
    return replace(plain, **changes)


def made(folder: Path, output: Path, precision: Precision = INT8, **changes: Any) -> Manifest:
    order = PrepareRequest(folder=folder, name="tiny", precision=precision, output=output)
    return prepare(replace(order, **changes))


def test_embedded_model_meets_the_floor(minilm_artifact: Path) -> None:
    """The packaged model in INT8 has a mean cosine of at least 0.995, in a quarter of the bytes."""
    manifest = manifests.read(minilm_artifact)
    assert manifest.quality is not None
    assert manifest.quality.mean >= 0.995
    assert manifest.bytes_weights <= 0.27 * manifest.bytes_fp32


@pytest.mark.slow
def test_embedded_model_in_four_bits(minilm_folder: Path, tmp_path: Path) -> None:
    """The packaged model's first two layers in INT4 have a mean cosine of at least 0.99.

    They take at most 15 % of the bytes. `python -m bench accuracy` measures the whole model, and
    fails if it is less close than before.
    """
    folder = Path(shutil.copytree(minilm_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    tensors = load_file(folder / "model.safetensors")
    others = tuple(f"encoder.layer.{index}." for index in range(2, 6))
    left = {name: value for name, value in tensors.items() if not name.startswith(others)}
    save_file(left, folder / "model.safetensors")
    texts = calibration_inputs("embed")[:150]
    manifest = made(folder, tmp_path / "out", INT4, texts=tuple(texts))
    assert manifest.quantization == "int4"
    assert manifest.quality is not None
    assert 0.99 <= manifest.quality.mean < 0.9999, manifest.quality
    assert manifest.bytes_weights <= 0.15 * manifest.bytes_fp32


def test_a_setting_caps_the_length(minilm_artifact: Path, tmp_path: Path) -> None:
    """A configured cap truncates texts and reports it, but does not exceed the artifact's limit."""
    texts = ["short", "copper conducts heat " * 10, "copper conducts heat " * 500]
    for cap, limit in ((16, 16), (0, 256), (1024, 256)):
        model = open_model(wanted(minilm_artifact, max_tokens=cap), tmp_path)
        rows = model.tokenize(texts)
        assert [row.truncated for row in rows] == [False, limit == 16, True]
        assert max(row.tokens for row in rows) == model.max_tokens == limit
        status = model.describe()
        assert (status["max_tokens"], status["model_max_tokens"]) == (limit, 256)


def test_the_side_that_is_cut_is_the_folders(make_model: MakeModel, tmp_path: Path) -> None:
    """If its folder truncates on the left, an artifact keeps the end of a long text."""
    folder = make_model()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "truncation_side": "left"}))
    made(folder, tmp_path / "out", FP32)
    model = load(tmp_path / "out")
    (end, same) = model.tokenize(["copper " * 5000 + "conducts heat " * 90, "conducts heat " * 90])
    assert end.truncated
    assert end.ids.tolist() == same.ids.tolist()


def test_four_bits_are_served_as_they_are_stored(make_model: MakeModel, tmp_path: Path) -> None:
    """An int4 artifact is smaller than an int8 one, reports its quantization, and serves."""
    folder = make_model()
    int8 = made(folder, tmp_path / "int8")
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(folder, precision=INT4), tmp_path)
    (applied,) = [event for event in events if event["event"] == "quantization.applied"]
    assert applied["message"] == "Applied dynamic int4 quantization (CPU)"
    assert "unpacked from 4 bits" in applied["kernel"]
    assert applied["bytes_after"] < 0.7 * int8.bytes_weights
    assert set(model.describe()["speed"]) == {"none", "int4"}


def test_serving_needs_nothing_of_the_source(minilm_artifact: Path) -> None:
    """A loaded artifact turns a text into a vector of the model's width."""
    model = load(minilm_artifact)
    (row,) = model.tokenize(["a short text"])
    vector = model.forward(row)
    assert vector.shape == (384,)
    assert vector.dtype == np.float32


def test_long_text_is_cut_and_says_so(minilm_artifact: Path) -> None:
    """A text over the model's limit is truncated and reported as such; a shorter one is not."""
    model = load(minilm_artifact)
    short, long = model.tokenize(["three short words", "word " * 1000])
    assert (short.tokens, short.truncated) == (5, False)
    assert (long.tokens, long.truncated) == (256, True)


def test_fp32_artifact_is_its_own_reference(make_model: MakeModel, tmp_path: Path) -> None:
    """Without quantization, an artifact is not compared with FP32, since it is FP32."""
    folder = make_model()
    manifest = made(folder, tmp_path / "out", FP32)
    assert manifest.quality is None
    assert manifest.bytes_weights == manifest.bytes_fp32
    assert (manifest.requested, manifest.kept, manifest.name) == ("none", (), "tiny")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert manifest.source_sha256 == fingerprint(folder, Digests())
    assert set(manifest.versions) == {"sidecar", "onnx", "onnxruntime"}
    assert set(modes) == {"manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"}
    assert modes["model.onnx.data"] == modes["model.onnx"]  # as public as the graph


def test_reranker_scores_are_probabilities(make_model: MakeModel, tmp_path: Path) -> None:
    """A cross-encoder's score is a number between 0 and 1, and its rank agreement is measured."""
    manifest = made(make_model(classifier=True), tmp_path / "out")
    assert manifest.quality is not None
    assert manifest.quality.rank_agreement is not None
    model = load(tmp_path / "out")
    (score,) = model.forward(model.tokenize([("query", "document")])[0])
    assert 0 < score < 1


def test_manifest_survives_a_round_trip(make_model: MakeModel, tmp_path: Path) -> None:
    """A manifest that is written and read again is unchanged."""
    manifest = made(make_model(), tmp_path / "out")
    assert manifests.read(tmp_path / "out") == manifest


def test_artifact_is_replaced_but_nothing_else_is(make_model: MakeModel, tmp_path: Path) -> None:
    """Preparing replaces an existing artifact, but refuses to replace any other folder."""
    folder = make_model()
    made(folder, tmp_path / "out")
    assert made(folder, tmp_path / "out", name="again").name == "again"
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelError, match="not an artifact"):
        made(folder, tmp_path / "mine")


def test_failed_preparation_leaves_nothing(make_model: MakeModel, tmp_path: Path) -> None:
    """Preparing a model that turns out to be unreadable leaves no partial artifact behind."""
    folder = make_model()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer"):
        made(folder, tmp_path / "cache" / "out")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["{", "{}", '{"format": 99}'])
def test_damaged_manifest_says_what_to_do(
    minilm_artifact: Path, tmp_path: Path, damage: str
) -> None:
    """A manifest that cannot be read raises an error that asks to prepare the model again."""
    (tmp_path / "manifest.json").write_text(damage)
    with pytest.raises(ModelError, match="prepare the model again"):
        load(tmp_path)


def test_opening_prepares_once(make_model: MakeModel, tmp_path: Path) -> None:
    """Opening a model for the first time prepares it and logs that; the next time finds it."""
    folder = make_model()
    with structlog.testing.capture_logs() as first:
        open_model(wanted(folder), tmp_path)
    with structlog.testing.capture_logs() as second:
        open_model(wanted(folder), tmp_path)
    names = [entry["event"] for entry in first]
    assert names == [
        "model.loading", "model.preparing", "model.prepared", "quantization.selected",
        "quantization.applied", "model.loaded",
    ]  # fmt: skip
    assert "model.preparing" not in [entry["event"] for entry in second]


def test_events_speak_the_operators_words(make_model: MakeModel, tmp_path: Path) -> None:
    """Log messages use the words that operators search for, next to fields with the figures."""
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
    """An embedding model that is configured as the reranker is refused."""
    with pytest.raises(ModelError, match="a model to embed, not to rerank"):
        open_model(wanted(make_model(), task="rerank"), tmp_path)


def test_artifact_in_another_quantization_is_refused(minilm_artifact: Path, tmp_path: Path) -> None:
    """An int8 artifact is refused if FP32 is configured."""
    with pytest.raises(ModelError, match="is an artifact in int8, but none is configured"):
        open_model(wanted(minilm_artifact, precision=FP32), tmp_path)


def test_auto_serves_any_artifact(minilm_artifact: Path, tmp_path: Path) -> None:
    """With quantization set to auto, an artifact is served in whatever it was prepared in."""
    auto = replace(INT8, quantization="auto")
    model = open_model(wanted(minilm_artifact, precision=auto), tmp_path)
    assert model.describe()["quantization"] == "int8"


def test_cache_follows_the_source(make_model: MakeModel, tmp_path: Path) -> None:
    """A changed source has another path in the cache, and so has another quantization."""
    folder = make_model()
    before = cached_path(folder, INT8, tmp_path)
    assert cached_path(folder, FP32, tmp_path) != before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=8))
    assert cached_path(folder, INT8, tmp_path) != before


def test_artifact_of_another_processor_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    """8-bit weights are refused on a host whose integer multiplication would saturate."""
    artifact = tmp_path / "out"
    made(make_model(), artifact, replace(INT8, weight_bits=8))
    with pytest.raises(ModelError, match="--portable"):
        open_model(wanted(artifact), tmp_path)
    open_model(wanted(artifact, precision=replace(INT8, weight_bits=8)), tmp_path)


def test_worst_layers_go_back_until_the_floor_is_met(make_model: MakeModel, tmp_path: Path) -> None:
    """Below the floor, layers return to FP32 until the model passes; an event names them."""
    folder = make_model()
    whole = made(folder, tmp_path / "whole").quality
    assert whole is not None
    strict = replace(INT8, floor=whole.mean + 0.2 * (1 - whole.mean))
    with structlog.testing.capture_logs() as events:
        open_model(wanted(folder, precision=strict), tmp_path)
    (fell_back,) = [event for event in events if event["event"] == "quantization.fell_back"]
    (applied,) = [event for event in events if event["event"] == "quantization.applied"]
    assert 0 < len(fell_back["layers"]) < 8
    assert applied["cosine_mean"] >= strict.floor


def test_model_that_cannot_pass_serves_in_fp32(make_model: MakeModel, tmp_path: Path) -> None:
    """A model that cannot reach the floor is served in FP32, and every report says so."""
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(make_model(), precision=replace(INT8, floor=1.0)), tmp_path)
    (fell_back,) = [event for event in events if event["event"] == "quantization.fell_back"]
    assert fell_back["quantization"] == "none"
    assert model.describe()["speed"] == {}  # FP32's speed is not reported as int8's
    assert model.describe()["quantization"] == "none"
    assert "quantization.applied" not in [event["event"] for event in events]


def test_damaged_source_is_an_error_of_one_line(make_model: MakeModel, tmp_path: Path) -> None:
    """An error in the preparing process is raised here as the same error, in one line."""
    folder = make_model()
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match=r"model\.safetensors") as caught:
        open_model(wanted(folder), tmp_path)
    assert "\n" not in str(caught.value)


def test_speed_is_measured_before_it_serves(make_model: MakeModel, tmp_path: Path) -> None:
    """The manifest and the event report how fast int8 is compared with FP32 on this host."""
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(make_model()), tmp_path)
    speed = model.describe()["speed"]
    assert set(speed) == {"none", "int8"}
    assert speed["int8"]["long_ms"] > speed["int8"]["short_ms"] > 0
    (selected,) = [event for event in events if event["event"] == "quantization.selected"]
    assert "times as fast as FP32" in selected["reason"]


def test_auto_takes_the_faster(make_model: MakeModel, tmp_path: Path) -> None:
    """Auto serves int8 only if it was measured to be faster than FP32."""
    auto = replace(INT8, quantization="auto")
    manifest = made(make_model(), tmp_path / "out", auto)
    faster = manifest.speed["int8"].mixed_ms < manifest.speed["none"].mixed_ms
    assert manifest.quantization == ("int8" if faster else "none")
    assert manifest.requested == "auto"


def test_auto_without_a_candidate_is_fp32(make_model: MakeModel, tmp_path: Path) -> None:
    """Auto serves FP32 if nothing passes the gate."""
    strict = replace(INT8, quantization="auto", floor=1.0)
    assert made(make_model(), tmp_path / "out", strict).quantization == "none"
