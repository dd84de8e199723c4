"""What there is of a result: the folder OUT.part beside it, with vectors and a note.

The note says of what the vectors are and how many are there; it never says more than the disk
holds. So whatever ends the process, the next one goes on where the note stands.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sidecar.bulk.errors import OutputError, StateError

_SUFFIX = ".part"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Note:
    """How far the work is: `rows` of `total` texts.

    `identity` is everything that decides the vectors. `tokens`, `truncated` texts and `seconds`
    are those of all runs together.
    """

    identity: dict[str, Any]
    total: int
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0
    format: int = _FORMAT

    def after(self, rows: int, tokens: int, truncated: int) -> Self:
        """Return the note once that many more rows are there."""
        return replace(
            self,
            rows=self.rows + rows,
            tokens=self.tokens + tokens,
            truncated=self.truncated + truncated,
        )


class Part:
    """The folder beside `output`, which `hold` has made and locked.

    `table` is where a result that is made of the vectors may be written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(output.name + _SUFFIX)
        self._vectors = self.folder / "vectors.npy"
        self._note = self.folder / "note.json"
        self._note_to_be = self.folder / "note.new"
        self.table = self.folder / "table.parquet"

    @classmethod
    @contextmanager
    def hold(cls, output: Path) -> Iterator[Self]:
        """Keep other processes from this output; leave no folder in which nothing was begun.

        Raises `StateError` where another process works on it, `OutputError` where none can.
        """
        part = cls(output)
        with _told(output):
            part.folder.mkdir(exist_ok=True)
            folder = os.open(part.folder, os.O_RDONLY)
        try:
            _lock(folder, output)
            try:
                yield part
            finally:
                if part.note() is None:
                    part.clear()
                    with suppress(OSError):  # somebody else's file is in it
                        part.folder.rmdir()
        finally:
            os.close(folder)

    def note(self) -> Note | None:
        """Return how far the work is; None where nothing is there to go on from."""
        try:
            note = Note(**json.loads(self._note.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return note if self._vectors.exists() and note.format == _FORMAT else None

    def begin(self, total: int, dimensions: int) -> None:
        """Make room for the vectors: all of it now, for a full disk is told before the work."""
        shape = (total, dimensions)
        with _told(self.output):
            np.lib.format.open_memmap(self._vectors, "w+", np.float32, shape)
            with self._vectors.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self._vectors.stat().st_size)

    def put(self, start: int, block: NDArray[np.float32]) -> None:
        """Put float32 `block` [n, d] into the rows from `start`.

        Mapped anew each time, so that what is written is the kernel's to let go of.
        """
        np.lib.format.open_memmap(self._vectors, "r+")[start : start + len(block)] = block

    def keep(self, note: Note) -> None:
        """Have `note` on disk, and before it the vectors that it tells of."""
        new = self._note_to_be
        with _told(self.output):
            _sync(self._vectors)
            new.write_text(json.dumps(asdict(note), indent=2) + "\n")
            _sync(new)
            new.replace(self._note)
            _sync(self.folder)

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors, float32 [total, d], mapped and not to be written to."""
        return np.lib.format.open_memmap(self._vectors, "r")

    def finish(self) -> None:
        """Put the table, or where there is none the vectors, in the output's place."""
        made = self.table if self.table.exists() else self._vectors
        with _told(self.output):
            _sync(made)
            made.replace(self.output)
            _sync(self.output.parent)
            self._note.unlink()

    def clear(self) -> None:
        """Remove from the folder what is ours."""
        for path in (self._note, self._note_to_be, self._vectors, self.table):
            path.unlink(missing_ok=True)


def _lock(folder: int, output: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(f"another process is writing {output}") from None


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _told(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}") from error
