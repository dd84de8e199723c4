"""Sockets and folders, and who may use them."""

import grp
import os
import shutil
import socket
from dataclasses import replace
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
    """The finding depends on what is at the socket's path and whether this user may connect."""
    (finding,) = check_place(place, USER)
    assert finding.severity is severity
    assert advice in finding.advice


def test_what_lies_at_the_path_is_told_with_its_mode_and_group() -> None:
    """The finding names the user, and the mode and group of the socket."""
    place = Place(PATH, "socket", 0o640, "sidecar-client", may_connect=True)
    (finding,) = check_place(place, USER)
    said = f"user 1000 may connect: {PATH} has mode 0640, group sidecar-client"
    assert finding.found == said
    (finding,) = check_place(replace(place, may_connect=False), USER)
    assert finding.found == said.replace("may connect", "may not connect")
    # Others may read or execute it, but connecting requires write permission.
    for mode in (0o664, 0o665):
        (finding,) = check_place(replace(place, mode=mode), USER)
        assert finding.severity is Severity.OK


def test_a_path_may_be_as_long_as_the_kernel_takes() -> None:
    """A path is limited to 107 bytes, not characters, whatever is there."""
    for name, severity in (
        ("x" * 106, Severity.OK),
        ("x" * 107, Severity.ERROR),
        ("ü" * 53, Severity.OK),
        ("ü" * 54, Severity.ERROR),
    ):
        place = Place(Path(f"/{name}"), "socket", 0o660, "g", may_connect=True)
        (finding,) = check_place(place, USER)
        assert finding.severity is severity, name
    assert "107 bytes" in finding.found


def test_a_socket_that_a_users_default_hides() -> None:
    """A missing socket at a user's default path is a warning if the host's own socket exists."""
    mine = Place(Path("/run/user/1000/sidecar/sidecar.sock"), "nothing")
    (finding,) = check_place(mine, USER, Place(PATH, "socket"))
    assert finding.severity is Severity.WARNING
    assert f"SIDECAR_SOCKET={PATH}" in finding.advice
    assert finding.found == f"nothing at {mine.path}, but a socket at {PATH}"
    for hidden in ("nothing", "other", "hidden"):
        (finding,) = check_place(mine, USER, Place(PATH, hidden))
        assert finding.severity is Severity.NOTE
    there = Place(mine.path, "socket", 0o660, "g", may_connect=True)
    (finding,) = check_place(there, USER, Place(PATH, "socket"))
    assert finding.severity is Severity.OK


def test_places_are_read_without_connecting(tmp_path: Path) -> None:
    """Reading a place does not connect to it, which would start a daemon under systemd."""
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
    assert place.group == grp.getgrgid(os.getegid()).gr_name
    (tmp_path / "f").touch()
    assert read_place(tmp_path / "f").kind == "other"
    assert read_place(tmp_path / "f" / "in a file").kind == "nothing"


def test_a_place_that_may_not_be_looked_at_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path below a folder that this user may not enter is reported as hidden."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", refuse)
    assert read_place(tmp_path / "s").kind == "hidden"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to a group without name")
def test_a_group_without_a_name_is_told_by_its_number(tmp_path: Path) -> None:
    """A group without a name, as in a container, is shown by its number."""
    (tmp_path / "s").touch()
    os.chown(tmp_path / "s", -1, 54321)
    assert read_place(tmp_path / "s").group == "54321"


def test_who_may_connect_is_who_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Access is checked for write permission, by the effective user."""
    asked: list[tuple[object, ...]] = []

    def access(path: Path, mode: int, *, effective_ids: bool = False) -> bool:
        asked.append((path, mode, effective_ids))
        return False

    monkeypatch.setattr(os, "access", access)
    assert not read_place(tmp_path).may_connect
    assert not read_folder(tmp_path).writable
    assert asked == [(tmp_path, os.W_OK, True), (tmp_path, os.W_OK | os.X_OK, True)]


def test_a_folder_that_is_not_there_is_judged_by_the_nearest(tmp_path: Path) -> None:
    """A missing folder is judged by its nearest existing parent, where it would be created."""
    folder = read_folder(tmp_path / "a" / "b")
    assert (folder.exists, folder.writable) == (False, True)
    assert folder.path == tmp_path / "a" / "b"
    assert folder.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert read_folder(tmp_path).exists
    (tmp_path / "file").touch()
    assert not read_folder(tmp_path / "file").exists


def test_a_folder_that_may_not_be_entered_is_judged_by_the_nearest_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that this user may not enter counts as missing."""
    is_dir = Path.is_dir

    def refuse(path: Path) -> bool:
        if path == tmp_path / "closed":
            raise PermissionError
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert not read_folder(tmp_path / "closed").exists


def test_a_relative_folder_is_found_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is resolved against the working directory."""
    monkeypatch.chdir(tmp_path)
    assert read_folder(Path("a/b")).writable
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch(0o644)
    assert closed_to_others(Path("file")) == closed_to_others(tmp_path / "file")


def test_a_socket_that_could_not_be_made() -> None:
    """A folder that this user cannot write to is a warning only if there is no socket yet."""
    closed = Folder(PATH.parent, exists=True, writable=False, free=1)
    (finding,) = check_socket_folder(closed, Place(PATH, "nothing"))
    assert finding.severity is Severity.WARNING
    assert finding.found == f"this user cannot create a socket in {PATH.parent}"
    assert "sidecar.socket" in finding.advice
    assert list(check_socket_folder(closed, Place(PATH, "socket"))) == []
    assert list(check_socket_folder(replace(closed, writable=True), Place(PATH, "nothing"))) == []


@pytest.mark.parametrize(
    ("config", "severity"),
    [
        (Config(), Severity.OK),
        (Config(allow_users=frozenset({1000})), Severity.OK),
        (Config(allow_groups=frozenset({27})), Severity.OK),
        (Config(allow_users=frozenset({1000}), allow_groups=frozenset({5})), Severity.OK),
        (Config(allow_users=frozenset({0}), allow_groups=frozenset({1000})), Severity.OK),
        (Config(allow_users=frozenset({27})), Severity.WARNING),
        (Config(allow_groups=frozenset({0})), Severity.WARNING),
        (Config(allow_users=frozenset({0}), allow_groups=frozenset({5})), Severity.WARNING),
    ],
)
def test_allow_lists(config: Config, severity: Severity) -> None:
    """A user is admitted by its uid or any of its groups, and everybody if both lists are empty."""
    (finding,) = check_allowed(config, USER)
    assert finding.severity is severity


def test_allow_lists_are_told() -> None:
    """The finding shows the allow-lists as sorted numbers, and an empty list as none."""
    (finding,) = check_allowed(Config(allow_users=frozenset({9, 7, 1000})), USER)
    assert finding.found == "users 7, 9, 1000 and groups none, which admit user 1000"
    (finding,) = check_allowed(Config(allow_groups=frozenset({5})), USER)
    assert finding.found == "users none and groups 5, which do not admit user 1000"
    assert "SIDECAR_ALLOW_USERS" in finding.advice
    (finding,) = check_allowed(Config(), USER)
    assert "anyone who can open the socket" in finding.found


@pytest.mark.parametrize(
    ("writable", "free", "missing", "severity"),
    [
        (True, 2 * 10**8, 10**8, Severity.OK),
        (True, 2 * 10**8 - 1, 10**8, Severity.ERROR),
        (True, 0, 0, Severity.OK),
        (True, 10**10, 10**8, Severity.OK),
        (False, 10**10, 0, Severity.OK),
        (False, 10**10, 10**8, Severity.ERROR),
        (True, 10**8, 10**8, Severity.ERROR),
    ],
)
def test_the_cache(writable: bool, free: int, missing: int, severity: Severity) -> None:
    """Space and permissions of the cache matter only if a model is still to be prepared."""
    (finding,) = check_cache(Folder(Path("/c"), True, writable, free), missing)
    assert finding.severity is severity
    assert bool(finding.advice) == (severity is Severity.ERROR)


def test_the_cache_is_told_with_what_is_free_and_what_is_the_matter() -> None:
    """The finding on the cache shows its free gigabytes and its problem, if any."""
    roomy = Folder(Path("/c"), exists=False, writable=True, free=12_340_000_000)
    (finding,) = check_cache(roomy, 10**8)
    assert finding.found == "/c, 12.3 GB free; will be created"
    (finding,) = check_cache(replace(roomy, exists=True), 10**8)
    assert finding.found == "/c, 12.3 GB free"
    (finding,) = check_cache(replace(roomy, free=10**8), 10**8)
    assert finding.found == "/c, 0.1 GB free; too little to prepare"
    (finding,) = check_cache(replace(roomy, writable=False), 10**8)
    assert finding.found == "this user cannot write to /c"
    assert "SIDECAR_CACHE_DIR" in finding.advice


def test_a_cache_that_is_not_there_is_no_ones_else(tmp_path: Path) -> None:
    """A missing cache is never refused as untrusted, whatever its parent's permissions."""
    tmp_path.chmod(0o777)
    assert read_cache(tmp_path / "to be made").refusal == ""
    assert read_cache(tmp_path).refusal


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_cache_is_judged_as_that_of_its_owner(tmp_path: Path) -> None:
    """Root judges a service's cache as its owner would, and does not refuse it."""
    os.chown(tmp_path, 65534, 65534)
    assert read_cache(tmp_path).refusal == ""


def test_what_a_service_could_not_read(tmp_path: Path) -> None:
    """A path that a service's user cannot read, above or inside a folder, is a warning."""
    assert list(check_open("model", None)) == []
    (finding,) = check_open("model", Path("/root"))
    assert finding.severity is Severity.WARNING
    assert "cannot read /root" in finding.found
    assert "chmod -R a+rX" in finding.advice
    tmp_path.chmod(0o700)
    closed = closed_to_others(tmp_path / "artifact")
    assert closed is not None
    assert tmp_path.is_relative_to(closed)
    assert closed_to_others(Path("/etc/passwd")) is None


def test_what_is_closed_to_others_is_the_first_that_stops_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first closed path is found, from the root down and then inside the folder."""
    real = Path.stat

    def entered(path: Path, **options: bool) -> os.stat_result:
        facts = real(path, **options)
        # The folders above a test's are closed to others: here everybody may enter them.
        return os.stat_result((facts.st_mode | 1, *facts[1:])) if above(path) else facts

    def above(path: Path) -> bool:
        return tmp_path.is_relative_to(path)

    monkeypatch.setattr(Path, "stat", entered)
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    artifact, file = inner / "artifact", inner / "artifact" / "file"
    artifact.mkdir(parents=True)
    file.touch()
    for mode, path, closed in (
        (0o711, outer, None),
        (0o640, file, file),
        (0o604, file, None),
        (0o750, artifact, artifact),
        (0o754, artifact, None),
        (0o754, inner, inner),
        (0o710, outer, outer),
        (0o710, inner, outer),
    ):
        path.chmod(mode)
        assert closed_to_others(artifact) == closed, (oct(mode), path)


def test_this_user_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is the effective one, with its primary and all supplementary groups."""
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setattr(os, "getegid", lambda: 8)
    monkeypatch.setattr(os, "getgroups", lambda: [9, 10])
    assert read_user() == User(7, frozenset({8, 9, 10}))


def test_a_cache_that_others_may_write_to(tmp_path: Path) -> None:
    """A cache that others may write to is an error with the fix, unless the sticky bit is set."""
    for mode, refused in ((0o755, False), (0o777, True), (0o1777, False)):
        tmp_path.chmod(mode)
        findings = list(check_cache(read_cache(tmp_path), 0))
        said = [finding.found for finding in findings if finding.severity is Severity.ERROR]
        assert bool(said) == refused
        assert all("chmod -R go-w" in text for text in said)
