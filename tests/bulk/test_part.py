"""The partial result on disk, and the order in which it is written."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sidecar.bulk import part as parts
from sidecar.bulk.errors import OutputError
from sidecar.bulk.part import Note, Part, begun, folder_of

NOTE = Note({"field": "text"}, total=5)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.npy"


@pytest.fixture
def part(output: Path) -> Iterator[Part]:
    """Yield a part with space for five vectors of three numbers."""
    with Part.hold(output) as held:
        held.begin(total=5, dimensions=3)
        yield held


def test_a_note_counts_on() -> None:
    """`Note.after` adds to the counts and changes nothing else."""
    note = replace(NOTE, rows=1, tokens=20, truncated=3, seconds=4.0)
    assert note.after(100, 2_000, 30) == replace(note, rows=101, tokens=2_020, truncated=33)


def test_there_is_room_for_all_vectors_from_the_beginning(part: Part) -> None:
    """Space for all vectors is allocated at the start, and unwritten rows are zeros."""
    size = (part.folder / "vectors.npy").stat()
    assert size.st_size >= 5 * 3 * 4 + 64
    assert size.st_blocks * 512 >= 5 * 3 * 4
    block = np.arange(6, dtype=np.float32).reshape(2, 3)
    part.put(2, block)
    found = part.vectors()
    assert (found.dtype, found.shape) == (np.dtype("<f4"), (5, 3))
    assert found.tolist() == [[0.0] * 3, [0.0] * 3, [0, 1, 2], [3, 4, 5], [0.0] * 3]
    assert not found.flags.writeable
    loaded = np.load(part.folder / "vectors.npy")
    assert (loaded == found).all()


def test_the_room_is_for_float32_of_that_width(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the header plus four bytes per number are allocated."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _, *room: asked.append(room))
    part.begin(total=1_000, dimensions=384)
    header = (part.folder / "vectors.npy").stat().st_size
    assert asked == [(0, header + 1_000 * 384 * 4)]


def test_what_is_kept_is_gone_on_from(output: Path, part: Part) -> None:
    """A kept note is returned to later readers, unless it is damaged or of another format."""
    note = NOTE.after(2, 30, 1)
    assert part.note() is None
    assert begun(output) is None
    part.keep(note)
    assert part.note() == begun(output) == note
    later = note.after(1, 1, 0)
    part.keep(later)
    assert part.note() == later
    assert sorted(path.name for path in part.folder.iterdir()) == ["note.json", "vectors.npy"]
    file = part.folder / "note.json"
    for wrong in ({"format": 2}, {"other": 5}):
        fields = {**json.loads(file.read_text()), **wrong}
        file.write_text(json.dumps(fields))
        assert part.note() is None
    file.write_text("[")
    assert part.note() is None


def test_a_note_never_says_more_than_the_disk_holds(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors are synced before the note is written, and the note before it is renamed."""
    done: list[str] = []
    replaced, fsync = os.replace, os.fsync

    def synced(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(*names: str, **folders: int) -> None:
        done.append("renamed")
        replaced(*names, **folders)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    part.keep(NOTE)
    assert done == ["vectors.npy", "note.new", "renamed", "out.npy.part"]


def test_what_is_finished_is_in_the_outputs_place(output: Path, tmp_path: Path) -> None:
    """Finishing moves the table, or else the vectors, to the output and leaves nothing else."""
    for made in ("vectors", "table"):
        with Part.hold(output) as held:
            held.begin(total=1, dimensions=1)
            held.put(0, np.ones((1, 1), np.float32))
            held.keep(NOTE)
            if made == "table":
                with held.table() as file:
                    file.write(b"a table")
            held.finish()
        if made == "vectors":
            assert np.load(output).tolist() == [[1.0]]
        assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    assert output.read_bytes() == b"a table"


def test_what_was_begun_stays_and_what_was_not_goes(output: Path) -> None:
    """After a failure, a part with a note is kept and one without is removed."""

    def work(*, keep: bool) -> None:
        with Part.hold(output) as held:
            held.begin(total=5, dimensions=3)
            if keep:
                held.keep(NOTE)
            raise KeyError

    with pytest.raises(KeyError):
        work(keep=False)
    assert not folder_of(output).exists()
    with pytest.raises(KeyError):
        work(keep=True)
    assert begun(output) == NOTE
    with Part.hold(output) as held:
        held.clear()
    assert not folder_of(output).exists()


def test_a_full_disk_is_told(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk raises `OutputError` with the output's name."""

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"out\.npy cannot be written: No space left on device"):
        part.begin(total=5, dimensions=3)


def test_a_part_lies_beside_its_output() -> None:
    """The partial result's folder is the output's full name plus `.part`."""
    assert folder_of(Path("/a/out.npy")) == Path("/a/out.npy.part")
    assert parts.folder_of(Path("out")) == Path("out.part")
