"""A file that is replaced whole."""

import os
from pathlib import Path

import pytest

from sidecar.files import replace_file


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
