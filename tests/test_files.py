"""Atomic replacement of files."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.files import check_replaceable, replace_file

from .others import KINDS, contents, no_hang, plant, shared, takes_root


def test_a_file_is_replaced_and_readable_by_all(tmp_path: Path) -> None:
    """A replaced file has the given mode, whatever the umask, and no other file is left behind."""
    before = os.umask(0o077)
    try:
        for text in ("one\n", "two\n"):
            replace_file(tmp_path / "sidecar.prom", text, 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "sidecar.prom").read_text() == "two\n"
    assert (tmp_path / "sidecar.prom").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["sidecar.prom"]


def test_a_reader_keeps_what_it_has_opened(tmp_path: Path) -> None:
    """An open file keeps its old content, as the new one is another inode."""
    replace_file(tmp_path / "m", "old" * 1000)
    with (tmp_path / "m").open() as reader:
        replace_file(tmp_path / "m", "new")
        assert reader.read() == "old" * 1000


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """If a directory is in the way, `OSError` is raised and nothing changes."""
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "m", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), mode=st.sampled_from([None, 0o644]))
def test_only_a_file_is_replaced(kind: str, mode: int | None) -> None:
    """Only regular files are replaced; links, pipes and the like are left untouched."""
    with shared() as (folder, outside):
        plant(kind, folder / "page", outside)
        before, planted = contents(outside), (folder / "page").lstat()
        is_file = kind.removeprefix("another's ") in {"file", "hard link"}
        with no_hang():
            if is_file:
                check_replaceable(folder / "page")
                replace_file(folder / "page", "text", mode)
            else:
                with pytest.raises(FileExistsError, match="not a file; choose another path"):
                    check_replaceable(folder / "page")
                with pytest.raises(FileExistsError, match="not a file; choose another path"):
                    replace_file(folder / "page", "text", mode)
                assert (folder / "page").lstat().st_ino == planted.st_ino
        if is_file:
            assert (folder / "page").read_text() == "text"
            assert (folder / "page").stat().st_uid == os.geteuid()
        # A hard link to the replaced file loses one link, but keeps its content.
        assert [held[-1] for held in contents(outside).values()] == [
            held[-1] for held in before.values()
        ]
        assert [path.name for path in folder.iterdir()] == ["page"]


def test_a_device_is_not_replaced() -> None:
    """A device is never replaced, even by root, as it would be gone for everybody."""
    for path in ("/dev/null", "/dev/stdout"):
        before = os.lstat(path)
        with pytest.raises(FileExistsError, match=r"a (device|link) of user"):
            replace_file(Path(path), "text")
        assert os.lstat(path).st_ino == before.st_ino


def test_a_file_stays_as_closed_as_it_was(tmp_path: Path) -> None:
    """A replaced file keeps its mode, unless another is given."""
    (tmp_path / "page").touch(0o600)
    replace_file(tmp_path / "page", "text")
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600
    replace_file(tmp_path / "page", "text", 0o644)
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o644


@takes_root
def test_the_mode_of_somebody_elses_file_is_not_kept() -> None:
    """The mode of another user's file is not kept, or that user could write to the new file."""
    with shared() as (folder, outside):
        plant("another's file", folder / "page", outside)
        (folder / "page").chmod(0o666)
        before = os.umask(0o022)
        try:
            replace_file(folder / "page", "text")
        finally:
            os.umask(before)
        assert (folder / "page").stat().st_mode & 0o777 == 0o644


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    """If writing fails half-way, the old file stays, and no temporary file is left."""
    (tmp_path / "page").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(tmp_path / "page", "half \ud800")
    assert (tmp_path / "page").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_what_is_not_complete_has_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary file has a hidden, random name without the suffix that collectors match."""
    seen: list[str] = []
    replaced = os.replace

    def look(*names: str, **folders: int) -> None:
        seen.extend(path.name for path in tmp_path.iterdir() if path.name != "m.prom")
        replaced(*names, **folders)

    monkeypatch.setattr(os, "replace", look)
    for text in ("one", "two"):
        replace_file(tmp_path / "m.prom", text)
    assert len(set(seen)) == 2
    assert all(name.startswith(".m-") and "." not in name[1:] for name in seen)


def test_asking_changes_nothing(tmp_path: Path) -> None:
    """`check_replaceable` changes nothing, and raises an error if the folder is missing."""
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        check_replaceable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"
    for failing in (check_replaceable, lambda path: replace_file(path, "text")):
        with pytest.raises(FileNotFoundError):
            failing(tmp_path / "none" / "page")


def test_a_new_file_is_as_the_umask_has_it(tmp_path: Path) -> None:
    """Without a mode, a new file's permissions follow the umask."""
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "page", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o640
