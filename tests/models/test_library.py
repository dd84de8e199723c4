"""Whether an artifact is what a daemon is configured to serve, and what is logged about it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from sidecar.models import library
from sidecar.models import manifest as manifests
from sidecar.models.announcements import log_loaded, log_outcome, reason_of
from sidecar.models.description import Task
from sidecar.models.errors import DamagedError, ModelError
from sidecar.models.library import Wanted, check, open_model
from sidecar.models.manifest import Manifest, Quality, Speed
from sidecar.models.model import Model
from sidecar.models.precision import Precision
from sidecar.models.prompts import Prompts
from sidecar.models.verification import Verification

MakeModel = Callable[..., Path]
INT8 = Precision("int8", weight_bits=8, floor=0.5)


@pytest.fixture
def manifest(tiny_artifact: Path) -> Manifest:
    return manifests.read(tiny_artifact)


def wanted(folder: Path, **changes: Any) -> Wanted:
    plain = Wanted(name=str(folder), task="embed", precision=INT8, reason="a test")
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("asked", "requested", "came_out", "serves"),
    [
        ("int8", "int8", "int8", True),
        ("int8", "int8", "none", True),  # it fell back
        ("int8", "auto", "int8", True),
        ("int8", "auto", "none", False),
        ("int8", "int4", "int4", False),
        ("int4", "int8", "int8", False),
        ("none", "int8", "int8", False),
        ("none", "int8", "none", True),
        ("none", "none", "none", True),
        ("int8", "none", "none", False),
        ("auto", "int4", "int4", True),
        ("auto", "none", "none", True),
    ],
)
def test_an_artifact_is_in_what_is_configured(
    manifest: Manifest, asked: str, requested: str, came_out: str, serves: bool
) -> None:
    """An artifact matches the configuration by what it came out in, or was requested in."""
    made = replace(manifest, requested=requested, quantization=came_out)
    ordered = wanted(Path("/artifact"), precision=replace(INT8, quantization=asked))
    if serves:
        check(ordered, made)
        return
    with pytest.raises(ModelError, match=f"is an artifact in {came_out}, but {asked} is config"):
        check(ordered, made)


@pytest.mark.parametrize(
    ("quantization", "has", "bears", "serves"),
    [
        ("int8", 8, 8, True), ("int8", 7, 7, True), ("int8", 7, 8, True), ("int8", 8, 7, False),
        ("int4", 8, 7, False), ("none", 8, 7, True),
    ],
)  # fmt: skip
def test_weights_have_no_more_bits_than_the_processor_bears(
    manifest: Manifest, quantization: str, has: int, bears: int, serves: bool
) -> None:
    """Weights may have fewer bits than the processor supports, but no more, except in FP32."""
    made = replace(manifest, requested="auto", quantization=quantization, weight_bits=has)
    ordered = wanted(Path("/artifact"), precision=Precision("auto", bears, 0.5))
    if serves:
        check(ordered, made)
        return
    with pytest.raises(ModelError, match=f"has {has}-bit weights"):
        check(ordered, made)


@pytest.mark.parametrize(("task", "other"), [("embed", "rerank"), ("rerank", "embed")])
def test_an_artifact_is_for_its_task(manifest: Manifest, task: Task, other: Task) -> None:
    """An artifact for the other task is refused."""
    made = replace(manifest, description=replace(manifest.description, task=task))
    check(wanted(Path("/artifact"), task=task), made)
    with pytest.raises(ModelError, match=f"is a model to {task}, not to {other}"):
        check(wanted(Path("/artifact"), task=other), made)


def test_an_artifact_of_another_format_says_which(manifest: Manifest, tmp_path: Path) -> None:
    """An intact artifact of another format is refused, and the error states the format."""
    manifests.write(tmp_path, manifest)
    assert manifests.read(tmp_path) == manifest
    manifests.write(tmp_path, replace(manifest, format=manifests.FORMAT + 1))
    with pytest.raises(DamagedError, match=f"has format {manifests.FORMAT + 1}, not"):
        manifests.read(tmp_path)


def test_every_field_of_a_manifest_is_covered_by_its_digest(
    manifest: Manifest, tmp_path: Path
) -> None:
    """A manifest's digest covers every field, nested ones included."""
    manifests.write(tmp_path, manifest)
    text = (tmp_path / "manifest.json").read_text()
    for before, after in (
        ('"max_tokens": 98', '"max_tokens": 512'), ('"query": ""', '"query": "q"'),
        (f'"seconds": {manifest.seconds}', '"seconds": 1.5'), ('"bytes": ', '"bytes": 1'),
    ):  # fmt: skip
        assert before in text, before
        (tmp_path / "manifest.json").write_text(text.replace(before, after))
        with pytest.raises(DamagedError, match="does not match its recorded SHA-256"):
            manifests.read(tmp_path)


def test_threads_and_the_cap_reach_the_model(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads and the length cap reach the model, even if its layout is found to be damaged."""
    asked: list[int] = []
    lay_out, load, failures = library.layout_of, library.load, [True, False]

    def counted(artifact: Path, cache: Path, threads: int, *_: object) -> Any:
        asked.append(threads)
        return lay_out(artifact, cache, 1)

    def failing(*args: Any, **options: Any) -> Any:
        if failures.pop(0):
            raise DamagedError(tmp_path / "layout" / "model.onnx", "is another")
        return load(*args, **options)

    monkeypatch.setattr(library, "layout_of", counted)
    monkeypatch.setattr(library, "layout_anew", counted)
    monkeypatch.setattr(library, "load", failing)
    model = open_model(wanted(tiny_artifact, threads=3, max_tokens=9), tmp_path)
    assert asked == [3, 3]
    assert model.max_tokens == 9


def test_what_is_told_of_an_embedder_in_int8(tiny_artifact: Path, tmp_path: Path) -> None:
    """The status of an int8 embedder has its device and weight bits, and no activation."""
    model = open_model(wanted(tiny_artifact), tmp_path)
    status = model.describe()
    assert model.least_tokens == 1
    assert status["activation"] is None
    assert (status["device"], status["requested"], status["weight_bits"]) == ("cpu", "int8", 7)
    assert "files" not in status


def test_a_model_that_is_open_has_run_and_says_why_it_was_chosen(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open model has run one forward, so that no request pays for it, and states its reason."""
    ran: list[object] = []
    monkeypatch.setattr(Model, "forward", lambda _, row: ran.append(row))
    model = open_model(wanted(tiny_artifact), tmp_path)
    assert len(ran) == 1
    assert model.reason == reason_of("a test", manifests.read(tiny_artifact).speed)


def test_a_reason_tells_how_many_times_as_fast() -> None:
    """A reason includes the mean speed relative to FP32, except for FP32 itself."""
    speed = {"none": Speed(1, 9, 6), "int8": Speed(2, 30, 4)}
    assert reason_of("a test", speed) == "a test; int8 measured 1.50 times as fast as FP32"
    assert reason_of("a test", {"none": Speed(1, 9, 6)}) == "a test"
    assert reason_of("a test", {}) == "a test"


def test_what_became_of_a_quantization_is_told(manifest: Manifest) -> None:
    """Events report bytes, the closeness measured for the task, and the restored layers."""
    quality = Quality(mean=0.9, p1=0.8, min=0.7, texts=5, rank_agreement=0.6)
    made = replace(
        manifest, requested="auto", kept=("layer.1.up", "layer.0.down"), quality=quality,
        bytes_fp32=40, bytes_weights=10, seconds=2.5,
    )  # fmt: skip
    for task, figures in (
        ("embed", {"cosine_mean": 0.9, "cosine_p1": 0.8, "cosine_min": 0.7}),
        ("rerank", {"score_closeness_mean": 0.9, "rank_agreement": 0.6}),
    ):
        description = replace(made.description, task=task)  # type: ignore[arg-type]
        with structlog.testing.capture_logs() as events:
            log_outcome(replace(made, description=description))
        fell_back, applied = events
        assert fell_back["event"] == "quantization.fell_back"
        assert fell_back["layers"] == ["layer.1.up", "layer.0.down"]
        assert fell_back["reason"].startswith("int8 for every layer")
        assert applied.items() >= {
            "event": "quantization.applied", "task": task, "quantization": "int8",
            "bytes_before": 40, "bytes_after": 10, "seconds": 2.5, **figures,
        }.items()  # fmt: skip
        assert ("cosine_mean" in applied) == (task == "embed")
    with structlog.testing.capture_logs() as events:
        log_outcome(replace(manifest, quantization="none", kept=()))
    assert events == []


@pytest.mark.parametrize("proven", [True, False])
def test_what_was_loaded_is_told(proven: bool) -> None:
    """The load event has each figure under its own name; an unverified model logs a warning."""
    proof = Verification(
        versions={"torch": "1"}, texts=70, outputs=30, cosine_min=0.9, score_error_max=0.1
    )
    model: Any = SimpleNamespace(
        name="org/tiny", task="embed", dimensions=11, max_tokens=22, model_max_tokens=33,
        intra_op_threads=4, verified=proof if proven else None, prompting=Prompts(by_name={}),
    )  # fmt: skip
    with structlog.testing.capture_logs() as events:
        log_loaded(model, "int8", 55)
    loaded = events[0]
    assert loaded.pop("pss_bytes") > 0
    expected: dict[str, Any] = {
        "event": "model.loaded", "log_level": "info", "model": "org/tiny", "task": "embed",
        "quantization": "int8", "dimensions": 11, "max_tokens": 22, "model_max_tokens": 33,
        "bytes": 55, "lone_threads": 4, "verified": proven,
    }  # fmt: skip
    if proven:
        expected |= {
            "verified_texts": 70, "verified_cosine_min": 0.9, "verified_score_error_max": 0.1,
            "verified_versions": {"torch": "1"},
        }  # fmt: skip
    assert loaded == expected
    assert [event["event"] for event in events[1:]] == ([] if proven else ["model.unverified"])


def test_a_proof_is_told_in_a_line() -> None:
    """A proof is printed in one line, with the figure of its task."""
    proof = Verification(versions={"sentence-transformers": "6.1"}, texts=70, outputs=30)
    assert str(replace(proof, cosine_min=0.9999987)) == (
        "equal to sentence-transformers 6.1: token ids of 70 texts, "
        "outputs of 30 texts (cosine >= 0.999999)"
    )
    assert str(replace(proof, score_error_max=3.2e-6)).endswith("(scores within 3.2e-06)")
