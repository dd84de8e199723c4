"""Whose daemon a client talks to: an impostor at the socket's path is sent nothing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from client_lib import ConnectionLost, SidecarError, UntrustedDaemon, trust
from client_lib.dial import connect as dial
from client_lib.node import answers
from client_lib.ray import SidecarEmbedder
from client_lib.trust import Trust
from sidecar.cli import main

from ..others import NOBODY, listener_of, takes_root
from .fake_daemon import FakeDaemon

pytestmark = takes_root
MINE, UNIT = 4242, 4343


class ForeignDaemon(FakeDaemon):
    """A scripted daemon on a listening socket made by another user."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        super().__init__(path)
        self._passed = listener

    def _listen(self) -> socket.socket:
        return self._passed


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp, where every user may create files."""
    with TemporaryDirectory(prefix="sidecar-shared-") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@pytest.fixture
def impostor(shared: Path) -> Iterator[ForeignDaemon]:
    """Another user's daemon, at a path where any user could listen."""
    path = shared / "s"
    with ForeignDaemon(path, listener_of(NOBODY, path)) as daemon:
        yield daemon


def bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(0o666)
    return sock


def test_an_impostor_is_sent_nothing(connect: Any, impostor: ForeignDaemon) -> None:
    """An impostor is refused at once, by user and with advice, and receives no byte."""
    with pytest.raises(UntrustedDaemon) as refused:
        connect(impostor.socket, timeout=None).embed(["a secret"])
    assert str(refused.value) == (
        f"the daemon at {impostor.socket} is run by user 65534 (nobody), not by root or you: "
        "set SIDECAR_DAEMON_USER=nobody if you trust that user"
    )
    assert isinstance(refused.value, SidecarError | PermissionError)
    assert not isinstance(refused.value, ConnectionLost)
    peer = socket.socket(socket.AF_UNIX)
    with peer:  # served after earlier connections
        peer.connect(str(impostor.socket))
    assert (impostor.seen, impostor.received) == ([], 0)


def test_one_that_takes_over_is_sent_nothing(
    connect: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every new connection is checked, since an impostor may take over the path."""
    path = shared / "s"
    with FakeDaemon(path) as ours:
        client = connect(path)
        client.ping()
        ours.stop()
        with ForeignDaemon(path, listener_of(NOBODY, path)) as impostor:
            with pytest.raises(UntrustedDaemon):
                client.embed(["a secret"])
            assert impostor.received == 0
        ours.start()
        client.ping()


@pytest.mark.parametrize("user", ["nobody", NOBODY, str(NOBODY)])
def test_a_user_who_is_named_is_talked_to(
    connect: Any, impostor: ForeignDaemon, user: str | int
) -> None:
    """`expect_user` allows another user's daemon, by name or by number."""
    assert connect(impostor.socket, expect_user=user).ping() > 0


def test_the_environment_names_a_user(
    connect: Any, impostor: ForeignDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIDECAR_DAEMON_USER allows another user's daemon, unless `expect_user` overrides it."""
    monkeypatch.setenv("SIDECAR_DAEMON_USER", "nobody")
    assert connect(impostor.socket).ping() > 0
    with pytest.raises(UntrustedDaemon, match="not by root, you or 'daemon': set SIDECAR"):
        connect(impostor.socket, expect_user="daemon").ping()


def test_root_may_be_named_by_its_number(
    connect: Any, impostor: ForeignDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `expect_user` of 0 or an empty string overrides SIDECAR_DAEMON_USER."""
    monkeypatch.setenv("SIDECAR_DAEMON_USER", "nobody")
    for user in (0, ""):
        with pytest.raises(UntrustedDaemon):
            connect(impostor.socket, expect_user=user).ping()


def test_an_unknown_name_is_told(connect: Any, impostor: ForeignDaemon) -> None:
    """An `expect_user` unknown to this host is reported and allows nobody."""
    with pytest.raises(UntrustedDaemon, match=r"'nobdy' \(unknown to this host\): set"):
        connect(impostor.socket, expect_user="nobdy").ping()


def test_a_socket_of_roots_may_be_passed_on(connect: Any, shared: Path) -> None:
    """A daemon of another user may listen on a socket that root created, as with systemd."""
    path = shared / "s"
    with ForeignDaemon(path, listener_of(NOBODY, path, bound(path))) as daemon:
        with dial(str(path), Trust()):
            pass
        assert connect(path).ping() > 0
        assert daemon.seen


def test_a_socket_that_root_listens_at_may_have_another_owner(connect: Any, shared: Path) -> None:
    """A socket file owned by another user is accepted if root listens on it."""
    path = shared / "s"
    listener = bound(path)
    listener.listen()
    os.chown(path, NOBODY, NOBODY)
    with ForeignDaemon(path, listener):
        assert connect(path).ping() > 0


def test_the_file_that_was_looked_at_is_the_one_connected_to(three: tuple[Path, ...]) -> None:
    """The socket file that was checked is the one connected to, even if it is replaced."""
    _, unit, impostor = three

    class Swapped(Trust):
        def accepts(self, uid: int) -> bool:
            if uid == 0 and impostor.exists():  # the file is reported as root's
                impostor.replace(unit)
            return uid == 0

    with dial(str(unit), Swapped()) as sock:
        assert trust.listener_of(sock) == UNIT
    assert unit.stat().st_uid == NOBODY


def test_a_link_to_roots_socket_is_another_path_to_it(connect: Any, shared: Path) -> None:
    """A link to root's socket is accepted whoever made it, since its target counts."""
    path, link = shared / "s", shared / "link"
    link.symlink_to(path)
    os.lchown(link, NOBODY, NOBODY)
    with ForeignDaemon(path, listener_of(NOBODY, path, bound(path))):
        assert connect(link).ping() > 0


_AS = """
import ctypes, json, os, sys
uid, maps, paths = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
if maps != "host":  # before numpy starts threads
    assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
    print(flush=True); input()
from client_lib.dial import connect
from client_lib.trust import Trust
if maps != "none":
    os.setgroups([]) if maps == "host" else None
    os.setresuid(uid, uid, uid)
outcomes = {}
for path in paths:
    try:
        connect(path, Trust.of(None)).close()
        outcomes[path] = "ok"
    except PermissionError as error:
        outcomes[path] = str(error)
print(json.dumps(outcomes))
"""


def asked_as(uid: int, maps: str, *paths: Path) -> dict[str, str]:
    """Connect to `paths` as `uid` and return the outcomes by name.

    It runs in a user namespace of its own unless `maps` is "host".
    """
    words = [sys.executable, "-c", _AS, str(uid), maps, *map(str, paths)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if maps != "host":
            if process.stdout.readline() == "":
                pytest.skip("user namespaces are not available")
            if maps != "none":
                Path(f"/proc/{process.pid}/uid_map").write_text(maps)
        out, err = process.communicate("\n")
    assert process.returncode == 0, err
    outcomes = json.loads(out)
    return {Path(path).name: outcome for path, outcome in outcomes.items()}


@pytest.fixture
def three(shared: Path) -> Iterator[tuple[Path, ...]]:
    """The sockets of root's daemon, of a unit's behind root's socket, and of an impostor."""
    root, unit, impostor = (shared / name for name in ("root", "unit", "impostor"))
    first = bound(root)
    first.listen()
    second = listener_of(UNIT, unit, bound(unit))
    third = listener_of(NOBODY, impostor)
    with first, second, third:
        yield root, unit, impostor


@pytest.mark.parametrize(
    ("uid", "maps"),
    [
        (MINE, "host"),
        (MINE, f"0 0 1\n{MINE} {MINE} 1\n"),  # PrivateUsers=yes, as in the gateway's unit
        (0, "0 0 1\n"),  # the same with root as the unit's user, as for metrics
    ],
    ids=["user", "private-users", "private-users-of-root"],
)
def test_units_clients_find_the_units_daemon(three: tuple[Path, ...], uid: int, maps: str) -> None:
    """Clients accept the unit's daemon even in a user namespace that does not map its user."""
    outcomes = asked_as(uid, maps, *three)
    assert (outcomes["root"], outcomes["unit"]) == ("ok", "ok")
    assert "run by " in outcomes["impostor"]


def test_a_user_outside_the_namespace_is_not_ones_own(three: tuple[Path, ...]) -> None:
    """A process without a user in its namespace does not take other unmapped users for its own."""
    outcomes = asked_as(NOBODY, "none", *three)
    assert "ok" not in outcomes.values()
    assert "a user outside this user namespace" in outcomes["impostor"]


def test_the_command_refuses_an_impostor(
    impostor: ForeignDaemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every command refuses an impostor in one line with advice, unless its user is allowed."""
    (tmp_path / "corpus.txt").write_text("a secret\n")
    flags = ["--socket", str(impostor.socket)]
    embed = ["embed", str(tmp_path / "corpus.txt"), "-o", str(tmp_path / "out.npy")]
    for words, code in ((["status"], 69), (["metrics"], 69), (embed, 78)):
        assert main([*words, *flags]) == code
        err = capsys.readouterr().err
        assert err.startswith(f"sidecar: the daemon at {impostor.socket} is run by user 65534")
        assert err.count("\n") == 1
    assert impostor.received == 0
    monkeypatch.setenv("SIDECAR_DAEMON_USER", "nobody")
    assert main(["metrics", *flags]) == 0


def test_a_cluster_does_not_start_one_beside_an_impostor(
    impostor: ForeignDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an impostor at the socket, the Ray actor raises rather than starting a daemon."""
    with pytest.raises(UntrustedDaemon):
        answers(impostor.socket)
    monkeypatch.setenv("SIDECAR_SOCKET", str(impostor.socket))
    with pytest.raises(UntrustedDaemon):
        SidecarEmbedder()


@pytest.mark.parametrize("all_users", [True, False])
def test_the_user_nobody_is_oneself_where_all_users_are_seen(
    monkeypatch: pytest.MonkeyPatch, all_users: bool
) -> None:
    """User 65534 counts as oneself only if the namespace maps all users."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setattr(trust, "_sees_all_users", lambda: all_users)
    assert trust.is_own(NOBODY) is all_users
