"""`sidecar verify`: its output and its exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.models import manifest as manifests
from sidecar.models.oracle import ask
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest

MakeModel = Callable[..., Path]


@pytest.mark.slow
def test_the_default_model_is_proven(
    minilm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model whose output equals the library's exits with 0, and names the library's version."""
    assert main(["verify", str(minilm_folder)]) == 0
    printed = capsys.readouterr().out
    assert "equal to sentence-transformers" in printed
    assert "token ids of" in printed


@pytest.mark.slow
def test_a_model_that_no_graph_computes_is_proven_on_its_own_path(
    make_model: MakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that sentence-transformers serves itself is compared as it is served."""
    assert main(["verify", "--json", str(make_model("albert"))]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["computed_by"] == "library"
    assert "albert" in outcome["reason"]
    assert outcome["verified"]["texts"] > 50


def test_without_the_library_nothing_is_proven(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the library, `verify` exits with 69 and names the extra to install."""
    monkeypatch.setattr(ask, "has_library", lambda: False)
    assert main(["verify", str(make_model())]) == 69
    assert "not verified: install the extra `server`" in capsys.readouterr().out


def test_an_artifact_tells_its_proof(
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`verify` prints the proof in an undamaged artifact, or how to get one if it has none."""
    precision = Precision("none", weight_bits=7, floor=0.9)
    order = PrepareRequest(
        folder=make_model(), name="m", precision=precision, output=tmp_path / "proven"
    )
    assert prepare(order).verified is not None
    monkeypatch.setattr(ask, "has_library", lambda: False)
    assert main(["verify", str(tmp_path / "proven")]) == 0
    assert "equal to sentence-transformers" in capsys.readouterr().out
    unproven = PrepareRequest(
        folder=order.folder, name="m", precision=precision, output=tmp_path / "not"
    )
    assert prepare(unproven).verified is None
    assert manifests.read(tmp_path / "not").verified is None
    assert main(["verify", str(tmp_path / "not")]) == 69
    assert "prepare it again from its source" in capsys.readouterr().out
    (tmp_path / "proven" / "tokenizer.json").write_text("{}")
    assert main(["verify", str(tmp_path / "proven")]) == 78
    assert "tokenizer.json has 2 bytes, not" in capsys.readouterr().err


def test_a_folder_that_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not a model is reported in one line, with exit code 78."""
    assert main(["verify", str(tmp_path)]) == 78
    assert len(capsys.readouterr().err.splitlines()) == 1
