"""The gate of half precision, and its events. The CPU stands in for a CUDA device."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from safetensors.numpy import load_file, save_file

from sidecar.models import fp16, library
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, open_model
from sidecar.models.precision import Precision
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row
from sidecar.models.torch_model import TorchModel, load
from sidecar.models.torch_pipeline import Source

from ..later import Later

torch = Later("torch")

MakeModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a few short probes: CPUs are slow at half precision."""
    monkeypatch.setattr(fp16, "probe_inputs", lambda task: probe_inputs(task)[:16])


def wanted(folder: Path, task: str = "embed", *, device: str = "cpu", **changes: Any) -> Wanted:
    precision = replace(Precision("fp16", weight_bits=8, floor=0.99), **changes)
    return Wanted(name=str(folder), task=task, precision=precision, reason="a test", device=device)  # type: ignore[arg-type]


def opened(order: Wanted) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Open the model as on a CUDA device; return it and the events by name."""
    with structlog.testing.capture_logs() as events:
        model = library._open_with_torch(order)
    return model, {event["event"]: event for event in events}


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_half_precision_serves_once_it_is_measured(make_model: MakeModel, task: str) -> None:
    """Events and status report half precision's closeness, both speeds, and the bytes saved."""
    model, events = opened(wanted(make_model(classifier=task == "rerank"), task))
    selected, applied = events["quantization.selected"], events["quantization.applied"]
    assert selected["quantization"] == "fp16"
    assert selected["reason"].startswith("a test; fp16 measured")
    to = " to reranker" if task == "rerank" else ""
    assert applied["message"] == f"Applied FP16{to} (CPU)"
    assert applied["kernel"] == "torch float16 on cpu, by sentence-transformers"
    assert applied["bytes_after"] == applied["bytes_before"] / 2
    assert events["model.loaded"]["quantization"] == "fp16"
    status = model.describe()
    assert status["quantization"] == status["requested"] == "fp16"
    assert set(status["speed"]) == {"none", "fp16"}
    closeness = {"embed": "cosine_mean", "rerank": "score_closeness_mean"}[task]
    assert applied[closeness] == status["quality"]["mean"] > 0.99


def test_what_is_not_close_enough_stays_in_fp32(make_model: MakeModel) -> None:
    """Below the floor, FP32 is served bit for bit, and an event reports the measured closeness."""
    folder = make_model()
    model, events = opened(wanted(folder, floor=1.1))
    fell_back = events["quantization.fell_back"]
    assert fell_back["quantization"] == events["model.loaded"]["quantization"] == "none"
    assert "below the floor of 1.1" in fell_back["reason"]
    assert "quantization.applied" not in events
    (row,) = model.tokenize(["a text"])
    exact = load(Source(folder, "exact", "embed"))
    np.testing.assert_array_equal(model.forward(row), exact.forward(row))


def test_what_is_not_finite_stays_in_fp32(make_model: MakeModel) -> None:
    """A model whose values overflow in FP16 stays in FP32."""
    folder = make_model()
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.0.intermediate.dense.weight"] *= np.float32(1e6)
    save_file(tensors, path, metadata={"format": "pt"})
    model, events = opened(wanted(folder))
    assert "non-finite" in events["quantization.fell_back"]["reason"]
    assert (model.describe()["quantization"], model.describe()["quality"]) == ("none", None)


def test_what_cannot_be_computed_stays_in_fp32(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose operations do not exist in half precision is served in FP32."""

    def load_only_in_fp32(source: Source, *, device: str, dtype: str = "float32") -> TorchModel:
        if dtype != "float32":
            raise ModelError("Unsupported dtype Half")
        return load(source, device=device)

    monkeypatch.setattr(fp16, "load", load_only_in_fp32)
    model, events = opened(wanted(make_model()))
    assert events["quantization.fell_back"]["reason"] == "Unsupported dtype Half"
    assert (model.describe()["quantization"], model.describe()["speed"]) == ("none", {})


def test_without_quantization_nothing_is_compared(make_model: MakeModel) -> None:
    """Without quantization, FP32 is served, and nothing is reported as measured."""
    model, events = opened(wanted(make_model(), quantization="none"))
    assert events["quantization.selected"]["message"] == "Using no quantization for embeddings"
    assert set(events) == {"quantization.selected", "model.loaded"}
    assert model.proof is None
    assert "quality" not in model.describe()


def test_an_artifact_is_for_a_cpu(tmp_path: Path) -> None:
    """An artifact is refused on CUDA, and the error says how to serve it on the CPU."""
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="SIDECAR_DEVICE=cpu"):
        open_model(wanted(tmp_path, device="cuda"), tmp_path / "cache")


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_half_precision_serves_on_cuda(make_model: MakeModel, tmp_path: Path, task: str) -> None:
    """On a CUDA device, half precision is measured and served by the daemon's own call."""
    folder = make_model(classifier=task == "rerank")
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(folder, task, device="cuda"), tmp_path)
    status = model.describe()
    assert (status["quantization"], status["device"]) == ("fp16", "cuda")
    (applied,) = [event for event in events if event["event"] == "quantization.applied"]
    assert applied["message"].endswith("(CUDA)")
    assert status["quality"]["mean"] > 0.99


class Stood:
    """A stand-in for a loaded model, which looks up its outputs by the row."""

    def __init__(self, outputs: np.ndarray, quantization: str, weight_bytes: int) -> None:
        self.task, self.quantization, self.weight_bytes = "embed", quantization, weight_bytes
        self.outputs = outputs
        self.verified = "proven" if quantization == "none" else None
        self.proof: Any = None

    def tokenize(self, texts: list[str]) -> list[Row]:
        return [
            Row(np.array([number]), np.zeros(1, np.int64), truncated=False)
            for number in range(len(texts))
        ]

    def forward(self, row: Row) -> np.ndarray:
        return self.outputs[row.ids[0]]


def gate(
    monkeypatch: pytest.MonkeyPatch, cosines: list[float], floor: float
) -> tuple[Stood, Stood, Stood]:
    """Return FP32, half precision with these cosines to it, and whichever of them serves."""
    exact = Stood(np.array([[1, 0]] * 16, np.float32), "none", 400)
    angles = np.arccos(np.resize(np.array(cosines), 16))
    half_outputs = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    other = Stood(half_outputs, "fp16", 200)

    def loaded(source: Any, *, device: str, dtype: str = "float32") -> Stood:
        assert device == "cpu"
        return exact if dtype == "float32" else other

    monkeypatch.setattr(fp16, "load", loaded)
    served: Any = fp16.load_fp16(Source(Path(), "t", "embed"), device="cpu", floor=floor)
    return exact, other, served


def test_half_precision_is_judged_by_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision serves if its mean over all probes reaches the floor, with FP32's proof."""
    exact, other, served = gate(monkeypatch, [1, 0.5], 0.75)
    assert served is other
    assert served.verified == exact.verified == "proven"
    assert served.proof.quality.mean == 0.75
    assert served.proof.quality.min == pytest.approx(0.5, abs=1e-6)
    assert served.proof.quality.texts == 16
    assert (served.proof.bytes_fp32, served.proof.fell_back) == (400, None)
    assert served.proof.requested == "fp16"
    exact, other, served = gate(monkeypatch, [1, 0.5], 0.750001)
    assert served is exact
    assert served.proof.fell_back.startswith("the closeness of half precision is 0.75, below")
    assert served.proof.quality.mean == 0.75
    assert set(served.proof.speed) == {"none", "fp16"}


def test_one_value_that_is_not_finite_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single non-finite value in one of many texts keeps a model in FP32, whatever the floor."""
    exact, _, served = gate(monkeypatch, [1] * 15 + [np.nan], -1)
    assert served is exact
    assert "non-finite" in served.proof.fell_back


def test_scores_of_half_precision_are_activated_in_full(make_model: MakeModel) -> None:
    """A logit in half precision is activated in FP32, so its score has all of FP32's digits."""
    path = make_model("albert", classifier=True)
    model = load(Source(path, "t", "rerank"), dtype="float16")
    rows = model.tokenize([("a query", "word " * count) for count in range(1, 9)])
    scores = np.stack([model.forward(row) for row in rows])
    assert scores.dtype == np.float32
    assert (scores != scores.astype(np.float16)).any()
