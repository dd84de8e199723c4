"""A model has one name, however it was loaded."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.models.library import Wanted, open_model
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name

MakeModel = Callable[..., Path]

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
PRECISIONS = [Precision(name, 7, 0.5) for name in ("none", "int8", "int4")]


def in_the_hubs_cache(hub: Path, repository: str, folder: Path) -> Path:
    """Put a model where the hub's client would cache it, and return that folder."""
    place = hub / f"models--{repository.replace('/', '--')}"
    snapshot = shutil.copytree(folder, place / "snapshots" / _COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(_COMMIT)
    return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def opened(name: str | Path, cache: Path, precision: Precision) -> str:
    """Return the model's name, which is the same in replies and in its status."""
    wanted = Wanted(name=str(name), task="embed", precision=precision, reason="a test")
    model = open_model(wanted, cache)
    assert model.describe()["name"] == model.name
    return model.name


def test_every_way_to_load_a_model_gives_it_one_name(
    make_model: MakeModel, hub: Path, tmp_path: Path
) -> None:
    """A model has one name by hub id, folder, link, cache and artifact, in each precision."""
    snapshot = in_the_hubs_cache(hub, "org/tiny", make_model())
    (tmp_path / "link").symlink_to(snapshot)
    cache = tmp_path / "cache"
    for precision in PRECISIONS:
        ways: list[str | Path] = ["org/tiny", snapshot, tmp_path / "link"]
        assert {opened(way, cache, precision) for way in ways} == {"org/tiny"}
        (artifact,) = cache.glob(f"*-{precision.quantization}-????????????????")
        assert opened(artifact, cache, precision) == "org/tiny"


def test_the_slow_path_has_the_same_names(make_model: MakeModel, hub: Path, tmp_path: Path) -> None:
    """A model that no graph here computes has one name by hub id and by folder."""
    pytest.importorskip("sentence_transformers")
    snapshot = in_the_hubs_cache(hub, "org/other", make_model("electra"))
    assert opened("org/other", tmp_path / "cache", PRECISIONS[0]) == "org/other"
    assert opened(snapshot, tmp_path / "cache", PRECISIONS[0]) == "org/other"


@pytest.mark.slow
def test_the_packaged_model_has_its_own_name(minilm_folder: Path, tmp_path: Path) -> None:
    """The packaged model has its own name, even if it was first loaded by its folder."""
    for way in (minilm_folder, DEFAULT_EMBEDDING_MODEL):
        assert opened(way, tmp_path, PRECISIONS[0]) == DEFAULT_EMBEDDING_MODEL
    assert len(list(tmp_path.glob("*-none-????????????????"))) == 1


def test_a_folder_of_ones_own_is_called_as_it_is(make_model: MakeModel, tmp_path: Path) -> None:
    """A user's model is named after its folder; if that is renamed, so is the model."""
    first = shutil.copytree(make_model(), tmp_path / "first")
    cache = tmp_path / "cache"
    assert opened(first, cache, PRECISIONS[0]) == "first"
    second = first.rename(tmp_path / "second")
    assert opened(second, cache, PRECISIONS[0]) == "second"


def test_an_artifact_keeps_the_name_of_its_model(make_model: MakeModel, tmp_path: Path) -> None:
    """An artifact keeps its model's name, whatever its own folder is called."""
    folder = shutil.copytree(make_model(), tmp_path / "mine")
    order = PrepareRequest(
        folder=folder, name=display_name(str(folder)), precision=PRECISIONS[0],
        output=tmp_path / "prepared",
    )  # fmt: skip
    prepare(order)
    assert opened(tmp_path / "prepared", tmp_path / "cache", PRECISIONS[0]) == "mine"
