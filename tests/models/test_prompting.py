"""Prompts of real folders and artifacts: read, overridden, refused, and the library's own."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from client_lib.wire.messages import Embed
from client_lib.wire.roles import ROLES
from sidecar.models import manifest as manifests
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, open_model
from sidecar.models.precision import Precision
from sidecar.models.prepare import PrepareRequest, prepare
from sidecar.models.prompting import prompts_of
from sidecar.serving.engine.work import WorkItem

MakeModel = Callable[..., Path]
FP32 = Precision("none", weight_bits=7, floor=0.0)
OWN = "config_sentence_transformers.json"


def state(folder: Path, **facts: Any) -> Path:
    """Have a folder state these facts about its prompts, and return it."""
    (folder / OWN).write_text(json.dumps(facts))
    return folder


def wanted(folder: Path, task: str = "embed", **changes: Any) -> Wanted:
    return Wanted(name=str(folder), task=task, precision=FP32, reason="a test", **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    """A model that our graph computes, in a folder named like a known one."""
    return Path(shutil.copytree(make_model(), tmp_path / "e5-small-v2"))


@pytest.fixture(params=["graph", "slow"])
def either(request: pytest.FixtureRequest, make_model: MakeModel, tmp_path: Path) -> Path:
    """A model that our graph computes, and one that only sentence-transformers can compute."""
    made = make_model() if request.param == "graph" else make_model("electra")
    return Path(shutil.copytree(made, tmp_path / "e5-small-v2"))


def test_the_folder_s_own_and_nothing_else(folder: Path) -> None:
    """A folder's prompts are its own and the library's two; null states none."""
    found = prompts_of(folder, str(folder), "embed", {})
    assert found.by_name == {"query": "", "document": ""}
    state(folder, prompts={"query": None, "title": "t: "}, default_prompt_name="title")
    found = prompts_of(folder, str(folder), "embed", {})
    assert found.by_name == {"query": "", "document": "", "title": "t: "}
    assert (found.default_name, found.source) == ("title", "folder")


@pytest.mark.parametrize("wrong", [["query"], "query: ", {"query": 1}, {"query": ["q"]}])
def test_prompts_that_are_none_are_refused_by_file(folder: Path, wrong: object) -> None:
    """Malformed prompts are refused by their file before anything is loaded."""
    state(folder, prompts=wrong)
    with pytest.raises(ModelError, match=f"{OWN}: prompts must map names to strings"):
        prompts_of(folder, str(folder), "embed", {})
    state(folder, default_prompt_name=["query"])
    with pytest.raises(ModelError, match=f"{OWN}: default_prompt_name must be the name"):
        prompts_of(folder, str(folder), "embed", {})


def test_a_default_prompt_that_does_not_exist_ends_the_start(either: Path, tmp_path: Path) -> None:
    """A missing default prompt is refused before preparing, unless the setting provides it."""
    state(either, prompts={"query": "q: "}, default_prompt_name="passage")
    with structlog.testing.capture_logs() as events, pytest.raises(ModelError) as caught:
        open_model(wanted(either), tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith(f"{either / OWN}: default_prompt_name 'passage' is not one of its")
    assert "SIDECAR_PROMPTS" in message
    assert "\n" not in message
    assert [event["event"] for event in events] == ["model.loading"]
    model = open_model(wanted(either, prompts={"passage": "p: "}), tmp_path / "cache")
    assert model.default_prompt_name == "passage"
    assert model.prompts["passage"] == "p: "


def test_a_reranker_s_default_prompt_has_to_exist_too(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """A reranker's default prompt must exist, too, and no setting can provide it."""
    folder = make_model(classifier=True)
    only = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps([only]))
    task = {"transformer_task": "sequence-classification"}
    (folder / "sentence_bert_config.json").write_text(json.dumps(task))
    state(folder, prompts={"rank": "r: "}, default_prompt_name="query", model_type="CrossEncoder")
    asked = wanted(folder, "rerank", prompts={"query": "q: "})
    with pytest.raises(ModelError, match=r"default_prompt_name 'query'.*\(rank\): add it there$"):
        open_model(asked, tmp_path)
    state(folder, model_type="CrossEncoder")
    model = open_model(wanted(folder, "rerank", prompts="auto"), tmp_path)
    assert (model.prompts, model.default_prompt_name) == ({}, None)
    assert model.describe()["prompts_missing"] == []


def test_what_is_served_tells_its_prompts_and_their_source(either: Path, tmp_path: Path) -> None:
    """Status reports prompts and their source; an event warns if a known model lacks some."""
    for setting, source, roles in (
        ({}, "folder", ["query", "document"]),
        ({"query": "Q: "}, "setting", ["document"]),
        ("auto", "known models", []),
    ):
        with structlog.testing.capture_logs() as events:
            model = open_model(wanted(either, prompts=setting), tmp_path / "cache")
        status = model.describe()
        assert (status["prompts_source"], status["prompts_missing"]) == (source, roles)
        assert status["prompts"] == dict(model.prompts)
        warned = [event for event in events if event["event"] == "model.prompts_missing"]
        assert [event["roles"] for event in warned] == ([roles] if roles else [])
        for event in warned:
            assert event["log_level"] == "warning"
            assert (event["model"], event["task"]) == ("e5-small-v2", "embed")
            assert event["message"].endswith("set SIDECAR_PROMPTS=auto")
    assert model.prompts == {"query": "query: ", "document": "passage: "}


def test_an_artifact_keeps_what_its_folder_states(folder: Path, tmp_path: Path) -> None:
    """An artifact keeps the folder's prompts; the setting applies when it is opened.

    Known models are recognised by the name in the manifest, too.
    """
    state(folder, prompts={"title": "t: "}, default_prompt_name="none of them")
    artifact = tmp_path / "artifact"
    prepare(PrepareRequest(folder=folder, name="intfloat/e5-base", precision=FP32, output=artifact))
    manifest = manifests.read(artifact)
    stated = {"query": "", "document": "", "title": "t: "}
    assert manifest.description.prompts == stated
    with pytest.raises(ModelError, match=r"manifest\.json: default_prompt_name 'none of them'"):
        open_model(wanted(artifact), tmp_path)
    model = open_model(wanted(artifact, prompts={"none of them": ""}), tmp_path)
    assert model.prompts == {**stated, "none of them": ""}
    assert model.describe()["prompts_missing"] == ["query", "document"]
    without = replace(manifest.description, default_prompt_name=None)
    manifests.write(artifact, replace(manifest, description=without))
    model = open_model(wanted(artifact, prompts="auto"), tmp_path)
    assert model.prompts == {"query": "query: ", "document": "passage: ", "title": "t: "}
    renamed = artifact.rename(tmp_path / "mxbai-embed-large-v1")
    manifests.write(renamed, replace(manifest, description=without, name="mine"))
    found = prompts_of(renamed, str(renamed), "embed", "auto")
    assert found.by_name["query"].startswith("Represent this sentence")
    # The name that it is opened by takes precedence over the one in the manifest.
    manifests.write(renamed, replace(manifest, description=without))
    found = prompts_of(renamed, str(renamed), "embed", "auto")
    assert found.by_name["query"].startswith("Represent this sentence")


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [{}, {"query": "find: "}, {"passage": "p: ", "corpus": "c: "}])
@pytest.mark.parametrize("default", [None, "query", "passage"])
def test_roles_are_the_library_s_own(
    make_model: MakeModel, tmp_path: Path, prompts: dict[str, str], default: str | None
) -> None:
    """A text with a role gets the prompt that `encode_query` or `encode_document` would use."""
    library = pytest.importorskip("sentence_transformers").SentenceTransformer
    if default not in {None, "query", *prompts}:
        prompts = {**prompts, "passage": "p: "}
    folder = state(make_model(), default_prompt_name=default)
    theirs = library(str(folder), device="cpu", prompts=dict(prompts))
    model = open_model(wanted(folder, prompts=prompts), tmp_path)
    calls = {"query": theirs.encode_query, "document": theirs.encode_document, None: theirs.encode}
    for role in (*ROLES, None):
        request = Embed(id=1, input=("a text",), role=role)
        for name in (None, "query"):
            (part,) = WorkItem.texts_of(model, replace(request, prompt_name=name)).parts
            expected = calls[role]("a text", **({"prompt_name": name} if name else {}))
            ours = theirs.encode(part.prompt + part.texts[0], prompt="")
            np.testing.assert_allclose(ours, expected, atol=1e-6)
