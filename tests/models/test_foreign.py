"""Models outside the known families, served by sentence-transformers itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from sidecar.models import foreign
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, open_model
from sidecar.models.precision import Precision

MakeModel = Callable[..., Path]
TEXTS = ["a short text", "another one, somewhat longer than the first", "word " * 300]


@pytest.fixture(scope="module")
def folder(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a Dense layer behind the pooling, which no graph here computes."""
    plain = SentenceTransformer(str(make_model()), device="cpu")
    transformer, pooling, normalize = list(plain.children())
    modules = [transformer, pooling, Dense(64, 32), normalize]
    path = tmp_path_factory.mktemp("foreign")
    SentenceTransformer(modules=modules, device="cpu").save(str(path))
    return path


def wanted(folder: Path, task: str = "embed") -> Wanted:
    precision = Precision("int8", weight_bits=7, floor=0.9)
    return Wanted(name=str(folder), task=task, precision=precision, reason="a test")  # type: ignore[arg-type]


def test_vectors_are_sentence_transformers_own(folder: Path, tmp_path: Path) -> None:
    """What is served is what the library computes, whatever its modules."""
    model = open_model(wanted(folder), tmp_path)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=1)
    for row, vector in zip(model.tokenize(TEXTS), expected, strict=True):
        ours = model.forward(row)
        np.testing.assert_allclose(ours / np.linalg.norm(ours), vector, atol=1e-5)


def test_it_says_that_it_is_the_slow_path(folder: Path, tmp_path: Path) -> None:
    """An event names the model and what is not known of it; nothing claims to be quantized."""
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(folder), tmp_path)
    (slow,) = [event for event in events if event["event"] == "model.slow_path"]
    assert "Dense" in slow["reason"]
    assert model.describe()["quantization"] == "none"
    assert model.dimensions == 32
    (loaded,) = [event for event in events if event["event"] == "model.loaded"]
    assert loaded["bytes"] > 0
    assert "quantization.applied" not in [event["event"] for event in events]


def test_long_text_is_reported_as_cut(folder: Path, tmp_path: Path) -> None:
    """A text over the model's length is cut at it, and says so."""
    model = open_model(wanted(folder), tmp_path)
    rows = model.tokenize(TEXTS)
    assert [row.truncated for row in rows] == [False, False, True]
    assert rows[-1].tokens == model.max_tokens


def test_without_the_library_the_error_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without sentence-transformers is told which extra brings it."""
    monkeypatch.setattr(foreign.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"Dense.*extra `server`"):
        open_model(wanted(folder), tmp_path)


def test_what_the_library_cannot_load_is_an_error(make_model: MakeModel, tmp_path: Path) -> None:
    """A folder that neither side can read is refused with both reasons, and nothing hangs."""
    folder = make_model(pooling="max")
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match=r"max_tokens.*cannot load it"):
        open_model(wanted(folder), tmp_path)


def test_foreign_rerankers_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    """The slow path is for embedding models."""
    folder = make_model(pooling="max")
    with pytest.raises(ModelError, match="only embedding models"):
        open_model(wanted(folder, task="rerank"), tmp_path)


def test_other_mathematics_take_the_slow_path(make_model: MakeModel, tmp_path: Path) -> None:
    """A BERT with another activation is found out while it is prepared, and served all the same."""
    folder = make_model(hidden_act="relu")
    model = open_model(wanted(folder), tmp_path)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS[0])
    ours = model.forward(model.tokenize(TEXTS[:1])[0])
    np.testing.assert_allclose(ours / np.linalg.norm(ours), expected, atol=1e-5)
