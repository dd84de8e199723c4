"""A folder private to one user, and a daemon in such a folder."""

import os
import stat
from pathlib import Path

import pytest

from client_lib import UntrustedFolder
from client_lib.node import NodeDaemon
from client_lib.own_folder import OwnFolder

from ..others import KINDS, contents, no_hang, plant, shared


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    """The folder has mode 0700 and its files 0600 despite the umask; it is made on request only."""
    with pytest.raises(FileNotFoundError), OwnFolder.hold(tmp_path / "own", make=False):
        pass
    before = os.umask(0)
    try:
        with OwnFolder.hold(tmp_path / "own") as own:
            os.close(own.open("file", os.O_RDWR | os.O_CREAT))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "own" / "file").stat().st_mode) == 0o600


def test_it_stays_the_same_folder(tmp_path: Path) -> None:
    """Files stay in the folder that was opened, even if its path is replaced by a link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("precious")
    with OwnFolder.hold(tmp_path / "own") as own:
        (tmp_path / "own").rename(tmp_path / "moved")
        (tmp_path / "own").symlink_to(elsewhere)
        os.close(own.create("file"))
        own.remove("file")
        os.close(own.create("other"))
        own.move_out("other", "out")
        own.leave()
    assert (elsewhere / "file").read_text() == "precious"
    assert (tmp_path / "out").exists()


WAYS = [
    flags | create
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND)
    for create in (0, os.O_CREAT)
]


def test_a_file_of_ours_is_opened_renewed_and_removed() -> None:
    """The user's own file can be opened in any mode, re-created and removed."""
    for flags in WAYS:
        with shared() as (folder, outside), OwnFolder.hold(folder / "own") as own:
            plant("file", own.path / "name", outside)
            os.close(own.open("name", flags))
            os.close(own.create("name"))
            own.remove("name")
            assert not own.holds("name")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "file"])
def test_what_is_no_file_of_ours_is_refused(kind: str) -> None:
    """Anything but the user's own file is refused without blocking or changing it."""
    for flags in WAYS:
        with shared() as (folder, outside), OwnFolder.hold(folder / "own") as own:
            plant(kind, own.path / "name", outside)
            before, planted = contents(outside), contents(own.path)
            with no_hang(10):
                for work in (
                    lambda own=own, flags=flags: own.open("name", flags),
                    lambda own=own: own.create("name"),
                    lambda own=own: own.remove("name"),
                    lambda own=own: own.holds("name"),
                ):
                    with pytest.raises(UntrustedFolder, match="name"):
                        work()
            assert contents(outside) == before
            assert contents(own.path) == planted


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
def test_a_nodes_folder_that_is_not_ours_is_refused(kind: str) -> None:
    """A node's folder that belongs to another user is refused before a daemon is started."""
    with shared() as (folder, outside):
        plant(kind, folder / "node", outside)
        before = contents(folder), contents(outside)
        with pytest.raises(UntrustedFolder, match="node is "):
            NodeDaemon(folder / "node")
        assert (contents(folder), contents(outside)) == before


@pytest.mark.parametrize("name", ["users", "starting"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "file"])
def test_what_is_in_a_nodes_folder_is_ours_or_refused(name: str, kind: str) -> None:
    """A node's lock files must be the user's own; links are not followed, FIFOs not waited for."""
    with shared() as (folder, outside):
        (folder / "node").mkdir(mode=0o700)
        plant(kind, folder / "node" / name, outside)
        before = contents(outside)
        with no_hang(), pytest.raises(UntrustedFolder, match=f"node/{name} "):
            NodeDaemon(folder / "node")
        assert contents(outside) == before


@pytest.mark.parametrize("mode", [0o775, 0o720, 0o757, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """A folder writable by its group or others is refused, and one only readable is accepted."""
    (tmp_path / "node").mkdir()
    (tmp_path / "node").chmod(mode)
    with pytest.raises(UntrustedFolder, match="is writable by others: check"):
        NodeDaemon(tmp_path / "node")
    (tmp_path / "node").chmod(0o755)
    with OwnFolder.hold(tmp_path / "node"):
        pass


def test_a_new_file_takes_an_old_ones_place(tmp_path: Path) -> None:
    """A re-created file is empty, readable and writable, with the mode that the umask leaves."""
    before = os.umask(0o027)
    try:
        with OwnFolder.hold(tmp_path / "own") as own:
            (own.path / "file").write_text("old")
            (own.path / "file").chmod(0o600)
            with os.fdopen(own.create("file"), "r+") as file:
                assert file.read() == ""
                file.write("new")
    finally:
        os.umask(before)
    made = tmp_path / "own" / "file"
    assert (made.read_text(), stat.S_IMODE(made.stat().st_mode)) == ("new", 0o640)


def test_files_are_renamed_in_the_folder_and_moved_out_of_it(tmp_path: Path) -> None:
    """Renaming and moving out replace an existing file; `leave` removes the folder once empty."""
    (tmp_path / "out").write_text("old")
    with OwnFolder.hold(tmp_path / "own") as own:
        for name in ("a", "b"):
            (own.path / name).write_text(name)
        own.rename("a", "b")
        assert (own.path / "b").read_text() == "a"
        assert not own.holds("a")
        own.leave()
        assert own.holds("b")
        own.move_out("b", "out")
        assert (tmp_path / "out").read_text() == "a"
        own.leave()
        assert not own.path.exists()


def test_what_is_in_the_way_is_told_by_its_kind(tmp_path: Path) -> None:
    """The error names an obstacle's kind and owner on one line, whatever its name."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    user = f"user {os.geteuid()}"
    for kind, words in (("link", "a link"), ("folder", "a directory"), ("fifo", "a FIFO")):
        plant(kind, folder / f"{kind}\n", tmp_path)
        with OwnFolder.hold(folder) as own, pytest.raises(UntrustedFolder) as refused:
            own.remove(f"{kind}\n")
        message = str(refused.value)
        assert f"{kind}\\n' is {words} owned by {user}" in message
        assert "not a file owned by you" in message
        assert "\n" not in message
