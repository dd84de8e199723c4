"""The configured models: complete, prepared and for this host, or anything else they can be."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.models.description import Task
from sidecar.models.library import Wanted
from sidecar.models.manifest import read, write
from sidecar.models.oracle import ask
from sidecar.models.place import cached_path
from sidecar.models.precision import Precision
from sidecar.models.prepare import PrepareRequest, prepare
from sidecar.models.probes import probe_inputs
from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.models import Found, check_limit, check_model, probe_lengths, read_model

from .small import write_small

MB = 10**6
PRECISION = Precision("int8", weight_bits=7, floor=0.5)


def wanted(name: Path | str, task: Task = "embed", precision: Precision = PRECISION) -> Wanted:
    return Wanted(name=str(name), task=task, precision=precision, reason="")


def problems(found: Found) -> list[str]:
    return [f.found for f in check_model(found) if f.severity is Severity.ERROR]


@pytest.fixture(scope="module")
def folder(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("source") / "small", minilm_folder)


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("artifact") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ask, "has_library", lambda: False)  # these tests are not about the proof
        prepare(PrepareRequest(folder=folder, name="small", precision=PRECISION, output=output))
    return output


@pytest.fixture
def source(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def change(file: Path, **fields: object) -> None:
    """Change fields of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.fixture
def artifact(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the artifact that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "artifact"))


@pytest.mark.slow
def test_an_artifact_that_is_whole(artifact: Path, tmp_path: Path) -> None:
    """An intact artifact is OK, and reports its size and the lengths its speed was measured on."""
    found = read_model(wanted(artifact), tmp_path)
    (finding,) = check_model(found)
    assert finding.severity is Severity.OK
    assert found.manifest is not None
    size = found.manifest.bytes_weights / 1e6
    assert finding.found == f"{artifact}: {artifact}, complete, {size:.1f} MB of weights"
    assert found.weights("none") == found.manifest.bytes_weights < found.source_bytes
    assert found.source_bytes == found.manifest.bytes_fp32
    assert found.unprepared_bytes == 0
    assert max(probe_lengths(found)) == found.manifest.description.max_tokens
    assert len(probe_lengths(found)) == len(probe_inputs("embed"))


def test_a_cap_on_the_length_is_told(artifact: Path, tmp_path: Path) -> None:
    """SIDECAR_MAX_TOKENS is a note if it truncates texts, or if it has no effect."""
    found = read_model(wanted(artifact), tmp_path)
    assert found.manifest is not None
    own = found.manifest.description.max_tokens
    assert not list(check_limit(found, 0))
    (cut,) = check_limit(found, own - 1)
    assert cut.severity is Severity.NOTE
    assert f"at {own - 1} tokens; it takes {own}" in cut.found
    assert "unset it if the ends" in cut.advice
    for cap in (own, own + 1):
        (idle,) = check_limit(found, cap)
        assert idle.severity is Severity.NOTE
        assert f"SIDECAR_MAX_TOKENS={cap} has no effect: {artifact} takes {own}" in idle.found
        assert idle.advice == "lower it, or remove it"
    assert not list(check_limit(replace(found, manifest=None), 1))


@pytest.mark.parametrize(
    ("quantization", "left"),
    [("none", 100), ("int8", 27), ("auto", 27), ("int4", 18), ("fp16", 50)],
)
def test_what_a_model_will_take_follows_from_its_source(quantization: str, left: int) -> None:
    """An unprepared model's size is estimated from FP32's, in full if no graph supports it."""
    found = Found(name="m", source_bytes=100 * MB)
    assert found.weights(quantization) == left * MB
    assert replace(found, slow="albert").weights(quantization) == 100 * MB


def test_what_is_to_be_prepared_is_what_can_be() -> None:
    """A model with a problem, or without a graph, has nothing to prepare."""
    found = Found(name="m", source_bytes=7)
    assert found.unprepared_bytes == 7
    assert replace(found, problem="no folder").unprepared_bytes == 0
    assert replace(found, slow="albert").unprepared_bytes == 0


@pytest.mark.parametrize(
    ("found", "severities", "said", "advice"),
    [
        (Found(name="m", problem="no model folder"), [Severity.ERROR], "no model folder", "78"),
        (
            Found(name="m", problem="a: Permission denied", damage=("x",)),
            [Severity.ERROR],
            "a: Permission denied",
            "chmod",
        ),
        (
            Found(name="m", refusals=("a is anybody's", "b")),
            [Severity.ERROR, Severity.ERROR],
            "m: a is anybody's",
            "exits with 78",
        ),
        (
            Found(name="m", damage=("a is missing", "b")),
            [Severity.ERROR, Severity.ERROR],
            "m: a is missing",
            "copy it again",
        ),
        (
            Found(name="m", spoilt=("a is missing", "b")),
            [Severity.WARNING, Severity.WARNING],
            "m: a is missing",
            "sets it aside and prepares",
        ),
        (
            Found(name="m", refusals=("a",), damage=("b",), spoilt=("c",)),
            [Severity.ERROR, Severity.ERROR, Severity.WARNING],
            "m: a",
            "exits with 78",
        ),
        (
            Found(name="m"),
            [Severity.NOTE],
            "m is not prepared yet: the first start will do it",
            "`sidecar prepare`",
        ),
    ],
)
def test_what_is_the_matter_with_a_model(
    found: Found, severities: list[Severity], said: str, advice: str
) -> None:
    """Each problem of a model has its severity and its advice."""
    findings = list(check_model(found))
    assert [finding.severity for finding in findings] == severities
    assert findings[0].found == said
    assert advice in findings[0].advice


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_file_that_is_missing(artifact: Path, tmp_path: Path, name: str) -> None:
    """A missing file of an artifact is named."""
    (artifact / name).unlink()
    assert any(name in text for text in problems(read_model(wanted(artifact), tmp_path)))


def test_weights_that_were_cut_short(artifact: Path, tmp_path: Path) -> None:
    """Truncated weights, as from an interrupted copy, are reported with their size."""
    weights = artifact / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:1000])
    (text,) = problems(read_model(wanted(artifact), tmp_path))
    assert "model.onnx.data has 1,000 bytes, not" in text


def test_weights_that_were_changed(artifact: Path, tmp_path: Path) -> None:
    """Weights of the right size but with other bytes are reported as changed."""
    weights = artifact / "model.onnx.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    (text,) = problems(read_model(wanted(artifact), tmp_path))
    assert "model.onnx.data does not match its recorded SHA-256" in text


def test_a_model_that_is_prepared_in_the_cache(
    folder: Path, prepared: Path, tmp_path: Path
) -> None:
    """A model prepared in the cache is reported with its artifact and its source's size."""
    cached = cached_path(folder, PRECISION, tmp_path, remember=False)
    shutil.copytree(prepared, cached)
    found = read_model(wanted(folder), tmp_path)
    (finding,) = check_model(found)
    assert finding.severity is Severity.OK
    assert f"{folder}: {cached}, complete" in finding.found
    assert found.manifest == read(cached)
    assert found.source_bytes == (folder / "model.safetensors").stat().st_size
    assert (found.folder, found.artifact) == (folder, cached)
    other = replace(PRECISION, floor=0.6)
    assert read_model(wanted(folder, precision=other), tmp_path).manifest is None
    (cached / "model.onnx").chmod(0o666)
    found = read_model(wanted(folder), tmp_path)
    (finding,) = check_model(found)
    assert finding.severity is Severity.ERROR
    assert "mode 0666" in finding.found
    assert found.manifest == read(cached)


def test_damage_in_the_cache_is_mended_by_the_next_start(
    folder: Path, prepared: Path, tmp_path: Path
) -> None:
    """Damage in the cache is a warning, as the next start prepares the model again."""
    artifact = cached_path(folder, PRECISION, tmp_path)
    shutil.copytree(prepared, artifact)
    for name in ("tokenizer.json", "manifest.json"):
        (artifact / name).write_text("{}")
        found = read_model(wanted(folder), tmp_path)
        (finding,) = check_model(found)
        assert finding.severity is Severity.WARNING
        assert name in finding.found
        assert "prepares the model again" in finding.advice
        assert found.manifest is None
        assert found.unprepared_bytes == (folder / "model.safetensors").stat().st_size


def test_what_others_may_write_to_is_an_error(artifact: Path, tmp_path: Path) -> None:
    """A file that others may write to is an error that names its mode and the fix."""
    (artifact / "model.onnx").chmod(0o666)
    (text,) = problems(read_model(wanted(artifact), tmp_path))
    assert "model.onnx" in text
    assert "mode 0666" in text
    assert "chmod -R go-w" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_another_users_cache_is_judged_as_that_users(
    artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Root judges a service's cache as its owner would: files of that owner are fine."""
    cache = tmp_path_factory.mktemp("cache")
    for path in (cache, artifact, *artifact.iterdir()):
        os.chown(path, 65534, 65534)
    assert problems(read_model(wanted(artifact), cache)) == []
    mine = tmp_path_factory.mktemp("of root")
    found = read_model(wanted(artifact), mine)
    texts = problems(found)
    assert len(texts) == len(set(texts)) > 1
    assert problems(read_model(wanted(artifact), cache / "of root to be made")) != []


@pytest.mark.parametrize("manifest", ["", "{}", '{"format": 1}'])
def test_a_manifest_that_cannot_be_read(artifact: Path, tmp_path: Path, manifest: str) -> None:
    """A damaged manifest, or one of an older format, asks to prepare the model again."""
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
    """An artifact for another quantization, processor or task is refused, as by the daemon."""
    (text,) = problems(read_model(wanted(artifact, **asked), tmp_path))
    assert said in text


def test_a_model_that_is_not_prepared_yet(folder: Path, tmp_path: Path) -> None:
    """An unprepared model is a note, and the size of the weights to prepare is known."""
    found = read_model(wanted(folder), tmp_path)
    (finding,) = check_model(found)
    assert finding.severity is Severity.NOTE
    assert found.unprepared_bytes == (folder / "model.safetensors").stat().st_size
    assert found.folder == folder
    assert found.artifact == cached_path(folder, PRECISION, tmp_path, remember=False)
    assert list(tmp_path.iterdir()) == []


def test_of_two_formats_the_one_that_is_read_counts(source: Path, tmp_path: Path) -> None:
    """Of two weight formats safetensors count, and torch's only in their absence."""
    weights = source / "model.safetensors"
    size = weights.stat().st_size
    (source / "pytorch_model.bin").write_bytes(bytes(1000))
    assert read_model(wanted(source), tmp_path).source_bytes == size
    weights.unlink()
    assert read_model(wanted(source), tmp_path).source_bytes == 1000


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_source_of_another_task(source: Path, tmp_path: Path, device: str) -> None:
    """A model of another task cannot be served on any device."""
    asked = replace(wanted(source, "rerank"), device=device)
    (text,) = problems(read_model(asked, tmp_path))
    assert "is a model to embed, not to rerank" in text


def test_on_a_cuda_device_nothing_is_prepared(source: Path, tmp_path: Path) -> None:
    """On a CUDA device a model is neither prepared nor are its weights examined."""
    (source / "model.safetensors").write_bytes(b"")
    found = read_model(replace(wanted(source), device="cuda"), tmp_path)
    assert (found.problem, found.damage, found.artifact) == ("", (), None)


def test_what_is_closed_to_others_is_found(artifact: Path, tmp_path: Path) -> None:
    """A folder of a model that other users may not enter is found."""
    artifact.chmod(0o700)
    closed = read_model(wanted(artifact), tmp_path).closed
    assert closed is not None
    assert artifact.is_relative_to(closed)


def test_a_source_that_was_cut_short(source: Path, tmp_path: Path) -> None:
    """A truncated safetensors file is detected by the length in its header."""
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    (text,) = problems(read_model(wanted(source), tmp_path))
    assert "not a complete safetensors file" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [("/no/such/model", "no model folder"), ("some/hub-id", "available from the hub")],
)
def test_a_model_that_is_not_there(tmp_path: Path, name: str, said: str) -> None:
    """A missing model is an error; the hub is not asked."""
    (text,) = problems(read_model(wanted(name), tmp_path))
    assert said in text


def test_prompts_that_a_model_needs(folder: Path, tmp_path: Path) -> None:
    """Missing prompts are found for every kind of model, under the configured prompts."""
    for family in ("bert", "albert"):  # there is no graph for the second
        source = Path(shutil.copytree(folder, tmp_path / family / "e5-base-v2"))
        change(source / "config.json", model_type=family)
        asked = wanted(source)
        assert read_model(asked, tmp_path).missing == ("query", "document")
        assert read_model(replace(asked, device="cuda"), tmp_path).missing == ("query", "document")
        assert read_model(replace(asked, prompts="auto"), tmp_path).missing == ()
    wrong = '{"default_prompt_name": "passage"}'
    (source / "config_sentence_transformers.json").write_text(wrong)
    (text,) = problems(read_model(asked, tmp_path))
    assert "default_prompt_name 'passage' is not one of its prompts" in text
    assert problems(read_model(replace(asked, prompts={"passage": ""}), tmp_path)) == []


def test_prompts_that_an_artifact_needs(artifact: Path, tmp_path: Path) -> None:
    """An artifact's missing prompts are found by the model's name in its manifest."""
    assert read_model(wanted(artifact), tmp_path).missing == ()
    write(artifact, replace(read(artifact), name="BAAI/bge-base-en-v1.5"))
    assert read_model(wanted(artifact), tmp_path).missing == ("query",)


def test_a_family_that_no_graph_computes(source: Path, tmp_path: Path) -> None:
    """A model without a graph has no finding of its own; torch is checked elsewhere."""
    change(source / "config.json", model_type="albert")
    found = read_model(wanted(source), tmp_path)
    assert "albert" in found.slow
    assert list(check_model(found)) == []
    assert found.unprepared_bytes == 0
    assert found.weights("int8") == (source / "model.safetensors").stat().st_size


def test_damage_in_the_cache_hides_no_refusal(folder: Path, prepared: Path, tmp_path: Path) -> None:
    """Damage in the cache does not hide a file that others may write to."""
    artifact = cached_path(folder, PRECISION, tmp_path, remember=False)
    shutil.copytree(prepared, artifact)
    (artifact / "tokenizer.json").write_text("{}")
    (artifact / "model.onnx").chmod(0o666)
    refused, spoilt = check_model(read_model(wanted(folder), tmp_path))
    assert (refused.severity, spoilt.severity) == (Severity.ERROR, Severity.WARNING)
    assert "model.onnx" in refused.found
    assert "tokenizer.json" in spoilt.found
