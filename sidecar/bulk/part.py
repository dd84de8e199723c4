"""The partial result: a folder OUT.part beside the output, with vectors and a note.

The note records what the vectors belong to and how many are complete, and never claims more than is
on disk. So however a process ends, the next one resumes where the note says. The output's folder
may be shared with other users: anything of theirs at OUT.part or in it is refused.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from client_lib import UntrustedFolder
from client_lib.own_folder import OwnFolder, shown
from sidecar.bulk.errors import OutputError, StateError

_SUFFIX = ".part"
_FORMAT = 1
_VECTORS, _TABLE = "vectors.npy", "table.parquet"
_NOTE, _NOTE_TO_BE = "note.json", "note.new"
_NAMES = (_NOTE, _NOTE_TO_BE, _VECTORS, _TABLE)
_ITEM_BYTES = 4


@dataclass(frozen=True, slots=True)
class Note:
    """The progress of a job: `rows` of `total` texts are done.

    `identity` is everything that determines the vectors. `tokens`, `truncated` texts and `seconds`
    are totals over all runs.
    """

    identity: dict[str, Any]
    total: int
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0
    format: int = _FORMAT

    def after(self, rows: int, tokens: int, truncated: int) -> Self:
        """Return the note with the counts of further rows added."""
        return replace(
            self,
            rows=self.rows + rows,
            tokens=self.tokens + tokens,
            truncated=self.truncated + truncated,
        )


class Part:
    """The folder beside `output`, created and locked by `hold`."""

    def __init__(self, output: Path, own: OwnFolder) -> None:
        self.output = output
        self.folder = own.path
        self._own = own

    @classmethod
    @contextmanager
    def hold(cls, output: Path) -> Iterator[Self]:
        """Lock the output against other processes; on exit, remove a folder without a note.

        Raises `StateError` if another process holds it, or if something of another user is in its
        place or in it, and `OutputError` if it cannot be created.
        """
        with ExitStack() as stack:
            with _clear_errors(output):
                own = stack.enter_context(OwnFolder.hold(folder_of(output)))
                _lock(own.descriptor, output)
                for name in _NAMES:
                    own.holds(name)
            part = cls(output, own)
            try:
                yield part
            finally:
                if part.note() is None:
                    part.clear()
                    own.leave()  # unless it holds other files

    def note(self) -> Note | None:
        """Return the progress, or None if there is nothing to resume."""
        try:
            with self._opened(_NOTE, os.O_RDONLY) as file:
                note = Note(**json.load(file))
        except (OSError, ValueError, TypeError):
            return None
        return note if self._own.holds(_VECTORS) and note.format == _FORMAT else None

    def begin(self, total: int, dimensions: int) -> None:
        """Allocate space for all vectors, so that a full disk is reported before the work."""
        header = {"descr": "<f4", "fortran_order": False, "shape": (total, dimensions)}
        with _clear_errors(self.output), self._created(_VECTORS) as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, file.tell() + total * dimensions * _ITEM_BYTES)

    def put(self, start: int, block: NDArray[np.float32]) -> None:
        """Write float32 `block` [n, d] to the rows from `start`.

        The file is mapped again each time, so that the kernel can release the written pages.
        """
        self._mapped("r+")[start : start + len(block)] = block

    def keep(self, note: Note) -> None:
        """Persist `note` durably, after the vectors it describes."""
        with _clear_errors(self.output):
            self._sync(_VECTORS)
            with self._created(_NOTE_TO_BE) as file:
                file.write((json.dumps(asdict(note), indent=2) + "\n").encode())
            self._sync(_NOTE_TO_BE)
            self._own.rename(_NOTE_TO_BE, _NOTE)
            os.fsync(self._own.descriptor)

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors, float32 [total, d], as a read-only memory map."""
        return self._mapped("r")

    def table(self) -> IO[bytes]:
        """Open a new file for a table made from the vectors."""
        return self._created(_TABLE)

    def finish(self) -> None:
        """Move the table, or the vectors if there is none, to the output."""
        with _clear_errors(self.output):
            made = _TABLE if self._own.holds(_TABLE) else _VECTORS
            self._sync(made)
            self._own.move_out(made, self.output.name)
            os.fsync(self._own.parent)
            self._own.remove(_NOTE)

    def clear(self) -> None:
        """Remove our files from the folder."""
        for name in _NAMES:
            self._own.remove(name)

    def _mapped(self, mode: Literal["r", "r+"]) -> NDArray[np.float32]:
        with self._opened(_VECTORS, os.O_RDONLY if mode == "r" else os.O_RDWR) as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            return np.memmap(file, dtype, mode, file.tell(), shape)

    def _opened(self, name: str, flags: int) -> IO[bytes]:
        return os.fdopen(self._own.open(name, flags), "rb" if flags == os.O_RDONLY else "r+b")

    def _created(self, name: str) -> IO[bytes]:
        return os.fdopen(self._own.create(name), "w+b")

    def _sync(self, name: str) -> None:
        with self._opened(name, os.O_RDONLY) as file:
            os.fsync(file.fileno())


def folder_of(output: Path) -> Path:
    """Return the folder for the partial result of `output`."""
    return output.with_name(output.name + _SUFFIX)


def begun(output: Path) -> Note | None:
    """Return the progress of the job for `output`, or None if there is nothing of ours."""
    try:
        with OwnFolder.hold(folder_of(output), make=False) as own:
            return Part(output, own).note()
    except OSError:
        return None


def _lock(folder: int, output: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(f"another process is writing {shown(output)}") from None


@contextmanager
def _clear_errors(output: Path) -> Iterator[None]:
    """Convert `OSError` and `UntrustedFolder` into a `BulkError` with a clear message."""
    try:
        yield
    except UntrustedFolder as error:
        raise StateError(str(error)) from error
    except OSError as error:
        raise OutputError(f"{shown(output)} cannot be written: {error.strerror}") from error
