"""The two distributions: their names, and that nothing tells users to install another project's."""

import re
import tomllib
from pathlib import Path

import embedding_sidecar
import pytest

import client_lib
import sidecar
from client_lib.distribution import CLIENT, DAEMON, install_command

ROOT = Path(__file__).parents[1]
_PAGES = [
    path
    for pattern in (
        "*.md",
        "*.toml",
        "client_lib",
        "sidecar",
        "systemd",
        "docs",
        "bench",
        ".github",
    )
    for found in ROOT.glob(pattern)
    for path in ([found] if found.is_file() else found.rglob("*"))
    if path.suffix in {".md", ".py", ".toml", ".yml", ".env", ".service", ".html"}
]
# `sidecar[extra]`, `pip install sidecar`: on the package index that name is another project's.
_OTHER_PROJECT = re.compile(r"(?<![\w-])sidecar\[|pip install (?:-\S+ )*'?sidecar\b")


def test_the_old_name_is_looked_for_in_many_files() -> None:
    """The next test reads the README, the code and the documentation."""
    assert {"README.md", "pyproject.toml", "operations.md"} <= {path.name for path in _PAGES}
    assert len(_PAGES) > 200


def test_nobody_is_told_to_install_another_projects_package() -> None:
    """No file names the distribution `sidecar`, which is not ours."""
    wrong = {
        str(path.relative_to(ROOT)): found.group()
        for path in _PAGES
        if (found := _OTHER_PROJECT.search(path.read_text("utf-8")))
    }
    assert not wrong


@pytest.mark.parametrize("text", ["pip install 'sidecar[edge]'", "pip install -U sidecar"])
def test_the_other_projects_name_is_found(text: str) -> None:
    """The pattern matches what a page used to say."""
    assert _OTHER_PROJECT.search(text)
    assert not _OTHER_PROJECT.search(text.replace("sidecar", DAEMON))


@pytest.mark.parametrize(("folder", "name"), [(ROOT, DAEMON), (ROOT / "client_lib", CLIENT)])
def test_the_constants_name_the_distributions(folder: Path, name: str) -> None:
    """Messages name what the two pyproject.toml files build."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == name
    assert "version" in project["dynamic"]


def test_the_daemon_offers_the_clients_extras_under_the_same_names() -> None:
    """An application may install them from either distribution."""
    daemon, client = (
        tomllib.loads(path.read_text("utf-8"))["project"]["optional-dependencies"]
        for path in (ROOT / "pyproject.toml", ROOT / "client_lib" / "pyproject.toml")
    )
    assert {extra: daemon[extra] for extra in client} == {
        extra: [f"{CLIENT}[{extra}]"] for extra in client
    }


def test_both_have_one_version() -> None:
    """The version stands in the client only."""
    assert sidecar.__version__ is client_lib.__version__


def test_the_client_can_be_imported_under_its_distributions_name() -> None:
    """`embedding_sidecar` has what `client_lib` exports, the same objects."""
    assert set(client_lib.__all__) <= set(dir(embedding_sidecar))
    assert embedding_sidecar.Client is client_lib.Client


def test_a_command_to_install_lists_its_extras() -> None:
    """Several extras are separated by commas."""
    assert install_command(DAEMON, "edge", "plots") == "pip install 'embedding-sidecar[edge,plots]'"
