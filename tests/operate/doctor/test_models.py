"""The configured models: there, whole, prepared, for this host; and whatever else they can be."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.models.description import Task
from sidecar.models.library import Wanted
from sidecar.models.manifest import read, write
from sidecar.models.place import cached_path
from sidecar.models.precision import Precision
from sidecar.models.prepare import Order, prepare
from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.models import Found, check_limit, check_model, probe_lengths, read_model

MakeModel = Callable[..., Path]
PRECISION = Precision("int8", weight_bits=7, floor=0.5)


def wanted(name: Path | str, task: Task = "embed", precision: Precision = PRECISION) -> Wanted:
    return Wanted(name=str(name), task=task, precision=precision, reason="")


def problems(found: Found) -> list[str]:
    return [f.found for f in check_model(found) if f.severity is Severity.ERROR]


@pytest.fixture(scope="module")
def folder(make_model: MakeModel) -> Path:
    return make_model()


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("artifact") / "small"
    prepare(Order(folder=folder, name="small", precision=PRECISION, output=output))
    return output


@pytest.fixture
def artifact(prepared: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "artifact"))


def test_an_artifact_that_is_whole(artifact: Path, tmp_path: Path) -> None:
    """Is fine, and tells its size and on how many tokens its speed was measured."""
    found = read_model(wanted(artifact), tmp_path)
    (finding,) = check_model(found)
    assert finding.severity is Severity.OK
    assert "complete" in finding.found
    assert found.weights("int8") < found.source_bytes
    assert found.manifest is not None
    assert max(probe_lengths(found)) == found.manifest.description.max_tokens


def test_a_cap_on_the_length_is_told(artifact: Path, tmp_path: Path) -> None:
    """With what it costs, or that it does nothing; without one there is nothing to say."""
    found = read_model(wanted(artifact), tmp_path)
    assert found.manifest is not None
    own = found.manifest.description.max_tokens
    assert not list(check_limit(found, 0))
    (cut,) = check_limit(found, own - 1)
    assert f"at {own - 1} tokens; it takes {own}" in cut.found
    (idle,) = check_limit(found, own)
    assert "changes nothing" in idle.found


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_file_that_is_missing(artifact: Path, tmp_path: Path, name: str) -> None:
    """Is named."""
    (artifact / name).unlink()
    assert any(name in text for text in problems(read_model(wanted(artifact), tmp_path)))


def test_weights_that_were_cut_short(artifact: Path, tmp_path: Path) -> None:
    """As by a copy that broke off."""
    weights = artifact / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:1000])
    (text,) = problems(read_model(wanted(artifact), tmp_path))
    assert "model.onnx.data has 1,000 bytes, not" in text


def test_weights_that_were_changed(artifact: Path, tmp_path: Path) -> None:
    """Zeros of the right size, say."""
    weights = artifact / "model.onnx.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    (text,) = problems(read_model(wanted(artifact), tmp_path))
    assert "model.onnx.data has other bytes than were written" in text


def test_damage_in_the_cache_is_mended_by_the_next_start(folder: Path, tmp_path: Path) -> None:
    """It is no error, and tells nothing of closeness or speed; what preparing takes is told."""
    artifact = cached_path(folder, PRECISION, tmp_path)
    prepare(Order(folder=folder, name="small", precision=PRECISION, output=artifact))
    for name in ("tokenizer.json", "manifest.json"):
        (artifact / name).write_text("{}")
        found = read_model(wanted(folder), tmp_path)
        (finding,) = check_model(found)
        assert finding.severity is Severity.WARNING
        assert name in finding.found
        assert "prepares the model again" in finding.advice
        assert found.manifest is None
        assert found.unprepared_bytes


def test_what_others_may_write_to_is_an_error(artifact: Path, tmp_path: Path) -> None:
    """The file, the mode, and the command that mends it."""
    (artifact / "model.onnx").chmod(0o666)
    (text,) = problems(read_model(wanted(artifact), tmp_path))
    assert "model.onnx" in text
    assert "mode 0666" in text
    assert "chmod -R go-w" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_another_users_cache_is_judged_as_that_users(
    artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Root looks at a service's cache: what the service's user owns is as it should be."""
    cache = tmp_path_factory.mktemp("cache")
    for path in (cache, artifact, *artifact.iterdir()):
        os.chown(path, 65534, 65534)
    assert problems(read_model(wanted(artifact), cache)) == []
    assert problems(read_model(wanted(artifact), cache / "of root to be made")) != []


@pytest.mark.parametrize("manifest", ["", "{}", '{"format": 1}'])
def test_a_manifest_that_cannot_be_read(artifact: Path, tmp_path: Path, manifest: str) -> None:
    """Damaged, or of an older format."""
    (artifact / "manifest.json").write_text(manifest)
    (text,) = problems(read_model(wanted(artifact), tmp_path))
    assert "prepare the model again" in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precision": Precision("int4", 7, 0.5)}, "but int4 is configured"),
        ({"precision": Precision("int8", 6, 0.5)}, "multiply wrongly"),
        ({"task": "rerank"}, "is a model to embed"),
    ],
)
def test_an_artifact_for_something_else(
    artifact: Path, tmp_path: Path, asked: dict, said: str
) -> None:
    """Another quantization, another processor, another task: as the daemon would refuse it."""
    (text,) = problems(read_model(wanted(artifact, **asked), tmp_path))
    assert said in text


def test_a_model_that_is_not_prepared_yet(folder: Path, tmp_path: Path) -> None:
    """Works; what the first start will need is told."""
    found = read_model(wanted(folder), tmp_path)
    (finding,) = check_model(found)
    assert finding.severity is Severity.NOTE
    assert found.unprepared_bytes == (folder / "model.safetensors").stat().st_size
    assert list(tmp_path.iterdir()) == []


def test_what_is_closed_to_others_is_found(artifact: Path, tmp_path: Path) -> None:
    """The folder that nobody else may enter."""
    artifact.chmod(0o700)
    closed = read_model(wanted(artifact), tmp_path).closed
    assert closed is not None
    assert artifact.is_relative_to(closed)


def test_a_source_that_was_cut_short(folder: Path, tmp_path: Path) -> None:
    """Its header says how long it should be."""
    source = Path(shutil.copytree(folder, tmp_path / "model"))
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    (text,) = problems(read_model(wanted(source), tmp_path))
    assert "not a whole safetensors file" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [("/no/such/model", "no model folder"), ("some/hub-id", "to be had from the hub")],
)
def test_a_model_that_is_not_there(tmp_path: Path, name: str, said: str) -> None:
    """Neither a folder, nor downloaded before; the hub is not asked."""
    (text,) = problems(read_model(wanted(name), tmp_path))
    assert said in text


def test_prompts_that_a_model_needs(make_model: MakeModel, tmp_path: Path) -> None:
    """Of a source or an artifact, on every path, as the setting leaves them."""
    for number, made in enumerate((make_model(), make_model("electra"))):
        source = shutil.copytree(made, tmp_path / f"{number}" / "e5-base-v2")
        asked = wanted(source)
        assert read_model(asked, tmp_path).missing == ("query", "document")
        assert read_model(replace(asked, device="cuda"), tmp_path).missing == ("query", "document")
        assert read_model(replace(asked, prompts="auto"), tmp_path).missing == ()
    wrong = '{"default_prompt_name": "passage"}'
    (source / "config_sentence_transformers.json").write_text(wrong)
    (text,) = problems(read_model(asked, tmp_path))
    assert "default_prompt_name 'passage' is none of its prompts" in text
    assert problems(read_model(replace(asked, prompts={"passage": ""}), tmp_path)) == []


def test_prompts_that_an_artifact_needs(artifact: Path, tmp_path: Path) -> None:
    """By the name in its manifest."""
    assert read_model(wanted(artifact), tmp_path).missing == ()
    write(artifact, replace(read(artifact), name="BAAI/bge-base-en-v1.5"))
    assert read_model(wanted(artifact), tmp_path).missing == ("query",)


def test_a_family_that_no_graph_computes(make_model: MakeModel, tmp_path: Path) -> None:
    """Is no problem of files; torch is asked for elsewhere."""
    found = read_model(wanted(make_model("albert")), tmp_path)
    assert "albert" in found.slow
    assert list(check_model(found)) == []
