import fcntl
import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest

from sidecar.serving.transport import listener
from sidecar.serving.transport.listener import (
    PassedSocket,
    SocketFile,
    SocketUnavailable,
    refuse_if_unusable,
)


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
    """The socket has mode 0660 and created directories 0755, whatever the umask."""
    path = tmp_path / "a" / "b" / "s.sock"
    before = os.umask(umask)
    try:
        bind(path)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (0o660, 0o755, 0o755)


def test_nothing_else_is_left_in_the_directory(path, bind):
    """Binding leaves no temporary file in the directory."""
    bind(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["s.sock"]


def test_the_queue_is_as_long_as_was_asked_for(path, bind):
    """Hundreds of clients can connect before any is accepted, and none is refused."""
    bind(path)
    with ExitStack() as clients:
        for _ in range(400):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(path))


def test_a_lock_on_the_directory_keeps_no_daemon_from_starting(path, bind):
    """A lock on the directory, which any reader can take, does not prevent binding."""
    directory = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_SH)
    try:
        bind(path)
    finally:
        os.close(directory)
    assert path.is_socket()


def test_two_that_start_at_once_do_not_both_come_to_listen(path, bind):
    """Of two daemons that start at once, one fails with an error and may try again."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(SocketUnavailable, match="another daemon is just starting"):
        bind(path)
    os.close(lock)
    bind(path)


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_but_the_socket_stays_open(path, bind):
    """Binding leaves only the socket open, and a failed attempt leaves nothing open."""
    before = open_files()
    file = bind(path)
    assert open_files() == before + 1
    with pytest.raises(SocketUnavailable):
        SocketFile.bind(path)
    refuse_if_unusable(path.with_name("other"))
    assert open_files() == before + 1
    file.socket.close()
    assert open_files() == before


def test_a_lock_that_its_owner_has_removed_is_none(path, bind, monkeypatch):
    """A lock file that its owner removed before it could be locked is opened again."""
    lock, flock, listen = path.with_name(f".{path.name}.lock"), fcntl.flock, listener._listen
    locked = []

    def remove_first(descriptor, how):
        if not locked:
            lock.unlink()
            locked.append("removed")
        flock(descriptor, how)

    def look(*arguments):
        with lock.open() as file, pytest.raises(BlockingIOError):
            flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append("locked")
        return listen(*arguments)

    monkeypatch.setattr(listener.fcntl, "flock", remove_first)
    monkeypatch.setattr(listener, "_listen", look)
    before = open_files()
    bind(path)
    assert locked == ["removed", "locked"]
    assert open_files() == before + 1
    assert [entry.name for entry in path.parent.iterdir()] == ["s.sock"]


@pytest.mark.parametrize("step", ["chmod", "rename"])
def test_a_start_that_fails_leaves_nothing(path, monkeypatch, step):
    """A failed start leaves no file and no descriptor, and reports the path and the cause."""
    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(Path, step, Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(SocketUnavailable, match=f"{path}: No space left on device"):
            SocketFile.bind(path)
    assert list(path.parent.iterdir()) == []
    assert open_files() == before


def test_a_passed_socket_is_where_the_manager_made_it(path):
    """A passed socket has its own path, and `unlink` leaves its file."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        passed = PassedSocket(sock)
        assert (passed.path, passed.socket) == (path, sock)
        passed.unlink()
        assert path.is_socket()


def test_the_lock_can_be_had_by_nobody_else(path, bind, monkeypatch):
    """The lock file has mode 0600 and is removed, even if another daemon is listening."""
    seen = []
    listen = listener._listen

    def look(*arguments):
        seen.append(mode(path.with_name(f".{path.name}.lock")))
        return listen(*arguments)

    monkeypatch.setattr(listener, "_listen", look)
    bind(path)
    assert seen == [0o600]
    with pytest.raises(SocketUnavailable):
        bind(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["s.sock"]


@pytest.mark.parametrize("plant", [Path.mkdir, lambda lock: lock.symlink_to("elsewhere")])
def test_what_lies_where_the_lock_should_is_named(path, bind, plant):
    """Anything else in the lock file's place is reported, and not followed or removed."""
    plant(lock := path.with_name(f".{path.name}.lock"))
    with pytest.raises(
        SocketUnavailable, match=rf"the lock file {lock} is not a regular file owned"
    ):
        bind(path)
    assert not path.with_name("elsewhere").exists()
    assert lock.is_symlink() or lock.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_the_lock_of_another_user_is_not_waited_for(path, bind):
    """A lock file of another user, who could hold it forever, is an error at once."""
    lock = path.with_name(f".{path.name}.lock")
    lock.touch()
    os.chown(lock, 65_534, 65_534)
    with pytest.raises(SocketUnavailable, match="choose a directory that others cannot write to"):
        bind(path)


def test_a_name_that_is_taken_is_left_to_whom_it_belongs(path, bind, monkeypatch):
    """A file that already has the temporary name is not removed."""
    monkeypatch.setattr(listener.secrets, "token_hex", lambda _: "same")
    (taken := path.with_name(".same.s.sock")).write_text("precious")
    with pytest.raises(SocketUnavailable, match="in use"):
        bind(path)
    assert taken.read_text() == "precious"


def test_a_stale_socket_is_replaced(path, bind):
    """A socket at which nobody listens any more is replaced."""
    bind(path).socket.close()
    bind(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_socket_is_refused(path, bind):
    """A socket at which a daemon listens is left alone, and the error names it."""
    bind(path)
    inode = path.stat().st_ino
    with pytest.raises(SocketUnavailable, match=f"another daemon is listening at {path}"):
        bind(path)
    assert path.stat().st_ino == inode


def test_a_daemon_too_busy_to_accept_is_alive(path):
    """A daemon with a full backlog counts as listening."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        with pytest.raises(SocketUnavailable, match="another daemon"):
            SocketFile.bind(path)


def test_what_is_not_a_socket_is_refused(path):
    """A file that is not a socket is never replaced."""
    path.write_text("precious")
    with pytest.raises(SocketUnavailable, match="is not a socket"):
        SocketFile.bind(path)
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused_by_name(tmp_path):
    """A path longer than the kernel's 107 bytes is an error, and nothing is created."""
    path = tmp_path / ("x" * 120)
    for refuse in (SocketFile.bind, refuse_if_unusable):
        with pytest.raises(SocketUnavailable, match=r"xxx: its path has \d+ bytes, .* most 107"):
            refuse(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["s", "s" * 30])
def test_a_path_that_just_fits_is_taken(tmp_path, bind, name):
    """A path of exactly 107 bytes works, even if the temporary name beside it is too long."""
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
    """An unusable directory is detected before binding; missing ones are only created then."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketUnavailable, match=r"(?i)not a directory"):
        refuse_if_unusable(tmp_path / "file" / "s")
    with pytest.raises(SocketUnavailable, match="may not write to /proc/self"):
        refuse_if_unusable(Path("/proc/self/none/s"))
    refuse_if_unusable(tmp_path / "a" / "b" / "s")
    assert not (tmp_path / "a").exists()


def test_unlink_removes_the_file(path, bind):
    """`unlink` removes the file, and may be called again."""
    file = bind(path)
    file.unlink()
    assert not path.exists()
    file.unlink()


def test_unlink_leaves_a_later_daemons_socket_alone(path, bind):
    """`unlink` leaves a later daemon's socket at the same path."""
    first = bind(path)
    path.unlink()
    bind(path)
    first.unlink()
    assert path.exists()
