"""Comparing files with what was recorded when they were written: bytes, sizes and owners."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.models import intact
from sidecar.models.damage import check_artifact, set_aside
from sidecar.models.digests import Digests
from sidecar.models.errors import DamagedError, ModelError, UntrustedError
from sidecar.models.intact import Stored, check, check_sizes, checked_meanwhile, record
from sidecar.models.trust import Owner

OTHER = 61_235
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def test_a_record_is_of_sizes_and_sha256(tmp_path: Path) -> None:
    """A record holds the size and SHA-256 of each whole file, however many reads it takes."""
    piece = intact._PIECE_BYTES
    for size in (0, 1, piece - 1, piece, piece + 1, 2 * piece + 3):
        (tmp_path / f"{size:09}").write_bytes(os.urandom(size))
    expected = {
        path.name: Stored(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in tmp_path.iterdir()
    }
    assert record(tmp_path) == expected
    assert list(record(tmp_path)) == sorted(expected)


@pytest.mark.parametrize("look", [check, check_sizes])
def test_every_file_is_looked_at(
    tmp_path: Path, look: Callable[[Path, dict[str, Stored]], None]
) -> None:
    """Every file is checked, the last one included, for being too long and too short."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"abc")
    files = record(tmp_path)
    look(tmp_path, files)
    for name in files:
        for content, message in ((b"abcd", "has 4 bytes, not 3"), (b"", "has 0 bytes, not 3")):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DamagedError, match=message) as caught:
                look(tmp_path, files)
            assert caught.value.path == tmp_path / name
        (tmp_path / name).write_bytes(b"abc")


def test_a_link_to_itself_is_damage(tmp_path: Path) -> None:
    """A symbolic link to itself is damage, as is one to a missing file."""
    (tmp_path / "file").symlink_to(tmp_path / "file")
    with pytest.raises(DamagedError, match="a symbolic link to itself"):
        check_sizes(tmp_path, {"file": Stored(3, "")})
    (tmp_path / "file").unlink()
    (tmp_path / "file").symlink_to(tmp_path / "nothing")
    with pytest.raises(DamagedError, match="is missing"):
        check_sizes(tmp_path, {"file": Stored(3, "")})


def test_no_file_stays_open(tmp_path: Path) -> None:
    """No file stays open after a check, whether it passes or fails."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"abc")
    files = record(tmp_path)
    before = set(Path("/proc/self/fd").iterdir())
    check(tmp_path, files)
    check_sizes(tmp_path, files)
    (tmp_path / "b").write_bytes(b"abd")
    with pytest.raises(DamagedError):
        check(tmp_path, files)
    (tmp_path / "b").write_bytes(b"abcd")
    for look in (check, check_sizes):
        with pytest.raises(DamagedError):
            look(tmp_path, files)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_what_is_remembered_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose digest is remembered is not read again if digests are given, otherwise it is."""
    (tmp_path / "file").write_bytes(b"abc")
    files = record(tmp_path)
    facts = (tmp_path / "file").stat()
    monkeypatch.setattr(intact, "_sha256", lambda _: "read")
    known = Digests()
    known._known = {f"{facts.st_dev} {facts.st_ino} {facts.st_size} "
                    f"{facts.st_mtime_ns} {facts.st_ctime_ns}": files["file"].sha256}  # fmt: skip
    with checked_meanwhile((tmp_path, files), digests=known):
        pass
    with pytest.raises(DamagedError, match="does not match its recorded SHA-256"):
        check(tmp_path, files)


@as_root
def test_files_are_judged_on_behalf_of_whom_it_is_asked_for(tiny_artifact: Path) -> None:
    """Root can check an artifact on behalf of another user: each file and the folder count."""
    check_artifact(tiny_artifact)
    check_artifact(tiny_artifact, owner=Owner(OTHER, frozenset({OTHER})))
    paths = sorted(tiny_artifact.iterdir())
    assert len(paths) == 4
    for path in [*paths, tiny_artifact]:
        facts = path.stat()
        os.chown(path, OTHER, OTHER)
        try:
            check_artifact(tiny_artifact, owner=Owner(OTHER, frozenset({OTHER})))
            with pytest.raises(UntrustedError, match="belongs to") as caught:
                check_artifact(tiny_artifact)
            assert caught.value.path == path
        finally:
            os.chown(path, facts.st_uid, facts.st_gid)


@as_root
def test_what_another_user_set_aside_stays(tmp_path: Path) -> None:
    """An artifact that another user set aside is left in place, and the error names it."""
    artifact, aside = tmp_path / "artifact", tmp_path / "artifact.damaged"
    for folder in (artifact, aside):
        folder.mkdir()
        (folder / "file").write_text("")
    os.chown(aside, OTHER, OTHER)
    with pytest.raises(ModelError, match=r"cannot be renamed to artifact\.damaged"):
        set_aside(artifact)
    assert (aside / "file").exists()
    assert (artifact / "file").exists()


def test_what_was_set_aside_is_so_behind_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting an artifact aside syncs the parent folder, so that it survives a power loss."""
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    synced: list[list[str]] = []

    def fsync(file: int) -> None:
        assert Path(f"/proc/self/fd/{file}").readlink() == tmp_path
        synced.append([path.name for path in tmp_path.iterdir()])

    monkeypatch.setattr(os, "fsync", fsync)
    assert set_aside(artifact) == tmp_path / "artifact.damaged"
    assert synced == [["artifact.damaged"]]
