import os
import socket
import stat
from pathlib import Path

import pytest

from sidecar.serving.socket_file import SocketFile, SocketUnavailable, refuse_if_unusable


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.sock"


@pytest.fixture
def bind():
    bound = []

    def at(path):
        bound.append(SocketFile.bind(path))
        return bound[-1]

    yield at
    for file in bound:
        file.socket.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_modes_do_not_depend_on_the_umask(tmp_path, bind, umask):
    """The socket is for user and group; directories that were missing are for all to enter."""
    path = tmp_path / "a" / "b" / "s.sock"
    before = os.umask(umask)
    try:
        bind(path)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (0o660, 0o755, 0o755)


def test_nothing_else_is_left_in_the_directory(path, bind):
    """The temporary name is gone."""
    bind(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["s.sock"]


def test_a_stale_socket_is_replaced(path, bind):
    """One at which nobody listens any more."""
    bind(path).socket.close()
    bind(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_socket_is_refused(path, bind):
    """It stays, and the message names it."""
    bind(path)
    inode = path.stat().st_ino
    with pytest.raises(SocketUnavailable, match=f"another daemon is listening at {path}"):
        bind(path)
    assert path.stat().st_ino == inode


def test_a_daemon_too_busy_to_accept_is_alive(path):
    """A full backlog is no reason to take its place."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        with pytest.raises(SocketUnavailable, match="another daemon"):
            SocketFile.bind(path)


def test_what_is_not_a_socket_is_refused(path):
    """Nobody's file is replaced."""
    path.write_text("precious")
    with pytest.raises(SocketUnavailable, match="is not a socket"):
        SocketFile.bind(path)
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused_by_name(tmp_path):
    """The kernel takes 107 bytes; nothing is made for one that has more."""
    path = tmp_path / ("x" * 120)
    for refuse in (SocketFile.bind, refuse_if_unusable):
        with pytest.raises(SocketUnavailable, match=r"xxx: its path has \d+ bytes, .* most 107"):
            refuse(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["s", "s" * 30])
def test_a_path_that_just_fits_is_taken(tmp_path, bind, name):
    """Also where the temporary name beside it would be too long."""
    folder = tmp_path / ("d" * (107 - len(os.fsencode(tmp_path)) - len(name) - 2))
    folder.mkdir()
    path = folder / name
    assert len(os.fsencode(path)) == 107
    refuse_if_unusable(path)
    bind(path)
    assert [entry.name for entry in folder.iterdir()] == [name]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_where_no_socket_can_be_is_known_before_it_is_made(tmp_path):
    """In a folder that cannot be made, or written; missing ones are made when it is bound."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketUnavailable, match=r"(?i)not a directory"):
        refuse_if_unusable(tmp_path / "file" / "s")
    with pytest.raises(SocketUnavailable, match="may not write /proc/self"):
        refuse_if_unusable(Path("/proc/self/none/s"))
    refuse_if_unusable(tmp_path / "a" / "b" / "s")
    assert not (tmp_path / "a").exists()


def test_unlink_removes_the_file(path, bind):
    """And may be called again."""
    file = bind(path)
    file.unlink()
    assert not path.exists()
    file.unlink()


def test_unlink_leaves_a_later_daemons_socket_alone(path, bind):
    """Its inode is another."""
    first = bind(path)
    path.unlink()
    bind(path)
    first.unlink()
    assert path.exists()
