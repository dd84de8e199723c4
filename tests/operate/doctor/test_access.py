"""Sockets and folders: who may do what with them."""

import os
import socket
from pathlib import Path

import pytest

from sidecar.config import Config
from sidecar.operate.doctor.access import (
    Folder,
    Place,
    User,
    check_allowed,
    check_cache,
    check_open,
    check_place,
    check_socket_folder,
    closed_to_others,
    read_cache,
    read_folder,
    read_place,
    read_user,
)
from sidecar.operate.doctor.finding import Severity

PATH = Path("/run/sidecar/sidecar.sock")
USER = User(1000, frozenset({1000, 27}))


@pytest.mark.parametrize(
    ("place", "severity", "advice"),
    [
        (Place(PATH, "socket", 0o660, "sidecar-client", may_connect=True), Severity.OK, ""),
        (Place(PATH, "socket", 0o666, "root", may_connect=True), Severity.NOTE, "0660"),
        (Place(PATH, "socket", 0o660, "sidecar-client"), Severity.ERROR, "-aG sidecar-client"),
        (Place(PATH, "nothing"), Severity.NOTE, "start"),
        (Place(PATH, "other"), Severity.ERROR, "move it away"),
        (Place(PATH, "hidden"), Severity.ERROR, "0755"),
        (Place(Path("/" + "x" * 120), "nothing"), Severity.ERROR, "shorter"),
    ],
)
def test_what_lies_at_the_path(place: Place, severity: Severity, advice: str) -> None:
    """And whether this user may connect to it."""
    (finding,) = check_place(place, USER)
    assert finding.severity is severity
    assert advice in finding.advice


def test_a_socket_that_a_users_default_hides() -> None:
    """Where a login has a runtime directory, that is looked into, and the host's is not."""
    mine = Place(Path("/run/user/1000/sidecar/sidecar.sock"), "nothing")
    (finding,) = check_place(mine, USER, Place(PATH, "socket"))
    assert finding.severity is Severity.WARNING
    assert f"SIDECAR_SOCKET={PATH}" in finding.advice
    (finding,) = check_place(mine, USER, Place(PATH, "nothing"))
    assert finding.severity is Severity.NOTE


def test_places_are_read_without_connecting(tmp_path: Path) -> None:
    """Connecting to a socket of systemd's would start a daemon."""
    path = tmp_path / "s"
    assert read_place(path).kind == "nothing"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o640)
        listener.listen()
        place = read_place(path)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (place.kind, place.mode, place.may_connect) == ("socket", 0o640, True)
    (tmp_path / "f").touch()
    assert read_place(tmp_path / "f").kind == "other"


def test_a_folder_that_is_not_there_is_judged_by_the_nearest(tmp_path: Path) -> None:
    """It would be made there."""
    folder = read_folder(tmp_path / "a" / "b")
    assert (folder.exists, folder.writable) == (False, True)
    assert folder.free > 0
    assert read_folder(tmp_path).exists


def test_a_socket_that_could_not_be_made() -> None:
    """Only while there is none: one that is there is systemd's, or a daemon's."""
    closed = Folder(PATH.parent, exists=True, writable=False, free=1)
    (finding,) = check_socket_folder(closed, Place(PATH, "nothing"))
    assert finding.severity is Severity.WARNING
    assert list(check_socket_folder(closed, Place(PATH, "socket"))) == []


@pytest.mark.parametrize(
    ("config", "severity"),
    [
        (Config(), Severity.OK),
        (Config(allow_users=frozenset({1000})), Severity.OK),
        (Config(allow_groups=frozenset({27})), Severity.OK),
        (Config(allow_users=frozenset({0}), allow_groups=frozenset({5})), Severity.WARNING),
    ],
)
def test_allow_lists(config: Config, severity: Severity) -> None:
    """By the user, or by any of its groups; without a list everybody."""
    (finding,) = check_allowed(config, USER)
    assert finding.severity is severity


@pytest.mark.parametrize(
    ("writable", "free", "missing", "severity"),
    [
        (True, 10**10, 10**8, Severity.OK),
        (False, 10**10, 0, Severity.OK),
        (False, 10**10, 10**8, Severity.ERROR),
        (True, 10**8, 10**8, Severity.ERROR),
    ],
)
def test_the_cache(writable: bool, free: int, missing: int, severity: Severity) -> None:
    """It matters as long as something is to be prepared."""
    (finding,) = check_cache(Folder(Path("/c"), True, writable, free), missing)
    assert finding.severity is severity


def test_what_a_service_could_not_read(tmp_path: Path) -> None:
    """It has a user of its own: what is closed to others is named, above or inside."""
    assert list(check_open("model", None)) == []
    (finding,) = check_open("model", Path("/root"))
    assert finding.severity is Severity.WARNING
    assert "cannot read /root" in finding.found
    tmp_path.chmod(0o700)
    closed = closed_to_others(tmp_path / "artifact")
    assert closed is not None
    assert tmp_path.is_relative_to(closed)
    assert closed_to_others(Path("/etc/passwd")) is None


def test_this_user_is_read() -> None:
    """With all groups."""
    assert read_user().uid == os.geteuid()


def test_a_cache_that_others_may_write_to(tmp_path: Path) -> None:
    """Is an error with the command that mends it; the sticky bit will do."""
    for mode, refused in ((0o755, False), (0o777, True), (0o1777, False)):
        tmp_path.chmod(mode)
        findings = list(check_cache(read_cache(tmp_path), 0))
        said = [finding.found for finding in findings if finding.severity is Severity.ERROR]
        assert bool(said) == refused
        assert all("chmod -R go-w" in text for text in said)
