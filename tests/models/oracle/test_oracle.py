"""Verification against the real library, on real folders."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog

from sidecar.models import exact, library
from sidecar.models.digests import Digests, fingerprint
from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.exact import read_exact
from sidecar.models.library import Wanted, open_model
from sidecar.models.manifest import Manifest
from sidecar.models.manifest import read as read_manifest
from sidecar.models.oracle import ask
from sidecar.models.oracle import library as asking
from sidecar.models.oracle.answers import read
from sidecar.models.oracle.compare import DiffersError
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.torch_pipeline import Source

MakeModel = Callable[..., Path]
FP32 = Precision("none", weight_bits=7, floor=0.9)


def wanted(folder: Path) -> Wanted:
    return Wanted(name=str(folder), task="embed", precision=FP32, reason="a test")


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a host without sentence-transformers."""
    for module in (ask, library):
        monkeypatch.setattr(module, "has_library", lambda: False)


@pytest.mark.parametrize("classifier", [False, True], ids=["embedder", "reranker"])
def test_a_model_is_verified(make_model: MakeModel, tmp_path: Path, classifier: bool) -> None:
    """A folder that is read correctly is verified by its ids and outputs."""
    verified = read_exact(make_model("mpnet", classifier=classifier), tmp_path).verified
    assert verified is not None
    assert verified.texts > 50
    assert verified.outputs >= 24
    assert set(verified.versions) >= {"sentence-transformers", "transformers", "tokenizers"}
    if classifier:
        assert verified.score_error_max is not None
    else:
        assert verified.cosine_min is not None
        assert verified.cosine_min >= 0.99999


@pytest.mark.slow
def test_what_is_read_otherwise_is_not_served(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is pooled here in another way than in the library is refused, naming a text."""
    folder, other = make_model("bert", pooling="cls"), make_model("bert", pooling="mean")
    read = exact.read_encoder  # the same weights with another pooling
    monkeypatch.setattr(exact, "read_encoder", lambda _, description: read(other, description))
    with pytest.raises(DiffersError, match=r"has a vector whose cosine to that of sentence-transf"):
        read_exact(folder, tmp_path)


@pytest.mark.slow
def test_what_the_library_cannot_load_is_not_served(make_model: MakeModel, tmp_path: Path) -> None:
    """A folder that sentence-transformers cannot load is refused: nothing can verify it."""
    folder = make_model("bert")
    config = folder / "config.json"  # a field that does not affect the results
    config.write_text(json.dumps({**json.loads(config.read_text()), "initializer_range": "wide"}))
    with pytest.raises(UnknownArchitectureError, match=r"does not load it .*initializer_range"):
        read_exact(folder, tmp_path)


@pytest.mark.slow
def test_packaged_answers_are_the_librarys(minilm_folder: Path, tmp_path: Path) -> None:
    """The answers in the package are those that the library gives today."""
    asking.ask(Source(minilm_folder, "all-MiniLM-L6-v2", "embed"), tmp_path)
    today, _ = read(tmp_path / "answers.npz")
    about = fingerprint(minilm_folder, Digests())
    packaged, packaged_about = read(Path(ask.__file__).with_name(ask.PACKAGED))
    assert (about, today.ids_of) == (packaged_about, packaged.ids_of), (
        "run `python -m bench answers`"
    )
    for mine, theirs in zip(packaged.ids, today.ids, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(packaged.outputs, today.outputs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("no_library")
def test_the_default_model_is_verified_without_the_library(
    minilm_folder: Path, tmp_path: Path
) -> None:
    """Without the library, the default model is verified by the answers in the package."""
    verified = read_exact(minilm_folder, tmp_path).verified
    assert verified is not None
    assert verified.cosine_min is not None
    assert verified.cosine_min >= 0.99999


@pytest.mark.slow
def test_without_the_library_a_model_says_that_it_is_unverified(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library, a model is served unverified; it is prepared again once it can be.

    Its events and its status report that it is unverified.
    """
    folder, cache = make_model("bert"), tmp_path / "cache"
    with monkeypatch.context() as patch:
        for module in (ask, library):
            patch.setattr(module, "has_library", lambda: False)
        patch.setattr(library, "prepare_in_subprocess", _prepare_here)
        with structlog.testing.capture_logs() as events:
            model = open_model(wanted(folder), cache)
        assert model.describe()["verified"] is None
        (loaded,) = [event for event in events if event["event"] == "model.loaded"]
        assert loaded["verified"] is False
        (unverified,) = [event for event in events if event["event"] == "model.unverified"]
        assert unverified["log_level"] == "warning"
        # The library is installed by now.
        patch.setattr(ask, "has_library", lambda: True)
        patch.setattr(library, "has_library", lambda: True)
        with structlog.testing.capture_logs() as events:
            model = open_model(wanted(folder), cache)
    assert model.describe()["verified"]["texts"] > 50
    names = [event["event"] for event in events]
    assert "model.preparing" in names
    assert "model.unverified" not in names


def _prepare_here(order: PrepareRequest) -> Manifest:
    """Prepare in this process, in which the library is hidden."""
    from sidecar.models.prepare import prepare

    prepare(order)
    return read_manifest(order.output)


@pytest.mark.slow
def test_a_sentencepiece_model_is_converted(make_model: MakeModel, tmp_path: Path) -> None:
    """Without a tokenizer.json, a folder gets the tokenizer that the library makes of its model."""
    import sentencepiece

    folder = make_model("xlm-roberta")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    text = tmp_path / "text"
    text.write_text("the cat sat on a mat in Zürich\nwhile rain fell over 東京\n" * 200)
    model = str(folder / "sentencepiece.bpe")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=model, vocab_size=25, minloglevel=2
    )
    (scratch := tmp_path / "scratch").mkdir()
    found = read_exact(folder, scratch)
    assert found.verified is not None
    (row,) = found.tokenizer.rows(["the cat sat"])
    assert len(set(row.ids.tolist())) > 3


@pytest.mark.slow
def test_a_default_prompt_and_lengths_of_their_own_are_proven(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """Default prompts and unnormalised vectors are compared as they are served."""
    folder = make_model("bert")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))  # no Normalize
    own = {"prompts": {"query": "find: ", "other": "o: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(own))
    verified = read_exact(folder, tmp_path).verified
    assert verified is not None
    assert verified.cosine_min is not None
    assert verified.cosine_min >= 0.99999
