"""A file that is replaced whole."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.files import check_replaceable, replace_file

from .others import KINDS, contents, no_hang, plant, shared, takes_root


def test_a_file_is_replaced_and_readable_by_all(tmp_path: Path) -> None:
    """Whatever the umask; nothing else is left in the folder."""
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
    """It is another file that takes the name."""
    replace_file(tmp_path / "m", "old" * 1000)
    with (tmp_path / "m").open() as reader:
        replace_file(tmp_path / "m", "new")
        assert reader.read() == "old" * 1000


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The error is the operating system's; what was there stays."""
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "m", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), mode=st.sampled_from([None, 0o644]))
def test_only_a_file_is_replaced(kind: str, mode: int | None) -> None:
    """Links and all else are neither followed, written to, waited for nor removed."""
    with shared() as (folder, outside):
        plant(kind, folder / "page", outside)
        before, planted = contents(outside), (folder / "page").lstat()
        is_file = kind.removeprefix("another's ") in {"file", "hard link"}
        with no_hang():
            if is_file:
                check_replaceable(folder / "page")
                replace_file(folder / "page", "text", mode)
            else:
                with pytest.raises(FileExistsError, match="is there, not a file: name another"):
                    check_replaceable(folder / "page")
                with pytest.raises(FileExistsError, match="is there, not a file: name another"):
                    replace_file(folder / "page", "text", mode)
                assert (folder / "page").lstat().st_ino == planted.st_ino
        if is_file:
            assert (folder / "page").read_text() == "text"
            assert (folder / "page").stat().st_uid == os.geteuid()
        # A second name of the file that was replaced is one less; its bytes are the same.
        assert [held[-1] for held in contents(outside).values()] == [
            held[-1] for held in before.values()
        ]
        assert [path.name for path in folder.iterdir()] == ["page"]


def test_a_device_is_not_replaced() -> None:
    """Though root could: a command told to write there would take it away from all."""
    for path in ("/dev/null", "/dev/stdout"):
        before = os.lstat(path)
        with pytest.raises(FileExistsError, match=r"a (device|link) of user"):
            replace_file(Path(path), "text")
        assert os.lstat(path).st_ino == before.st_ino


def test_a_file_stays_as_closed_as_it_was(tmp_path: Path) -> None:
    """A new one is as the umask has it, or as it is asked for."""
    (tmp_path / "page").touch(0o600)
    replace_file(tmp_path / "page", "text")
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600
    replace_file(tmp_path / "page", "text", 0o644)
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o644


@takes_root
def test_the_mode_of_somebody_elses_file_is_not_kept() -> None:
    """He would have made it so that he can write to ours."""
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
    """And nothing beside it."""
    (tmp_path / "page").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(tmp_path / "page", "half \ud800")
    assert (tmp_path / "page").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_what_is_not_complete_has_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden, without the suffix by which a collector takes files, and never the same."""
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
    """Whether a file could be replaced, or made; a folder that is not there is an error."""
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        check_replaceable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"
    for failing in (check_replaceable, lambda path: replace_file(path, "text")):
        with pytest.raises(FileNotFoundError):
            failing(tmp_path / "none" / "page")


def test_a_new_file_is_as_the_umask_has_it(tmp_path: Path) -> None:
    """Where no mode is asked for."""
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "page", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o640
