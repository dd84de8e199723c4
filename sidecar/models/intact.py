"""Check that the files of an artifact, or of a layout, are the ones that were written.

The manifest records sizes and SHA-256 digests; of the collision-resistant digests, SHA-256 is the
one that processors compute fastest. Large files are read on separate threads while onnxruntime maps
the same pages of memory. A file that was read since the host booted is not read again if the kernel
reports it as unchanged (see `digests`).

Not covered: a disk that silently returns other bytes than before, until the next boot; and a file
that is written to in place after it was read here, which changes the mapped weights, as it would at
any later time. `trust` restricts who could do so to this user and root.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from sidecar.models.digests import Digests
from sidecar.models.durable import opened
from sidecar.models.errors import DamagedError
from sidecar.models.folder.files import reading
from sidecar.models.trust import Owner, refuse_untrusted

# Bytes per read: with less, a thread that waits for the interpreter each time reads slower.
_PIECE_BYTES = 4 << 20
_THREADS = 2
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # does not wait on a pipe in place of a file

_LOST: Mapping[int | None, str] = {
    errno.ENOENT: "is missing", errno.ENOTDIR: "is missing",
    errno.ELOOP: "is a symbolic link to itself",
    errno.EIO: "cannot be read from disk (Input/output error)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """The size of a file in bytes, and its hexadecimal SHA-256."""

    bytes: int
    sha256: str


Files: TypeAlias = Mapping[str, Stored]
"""The files of a folder, by name."""


def record(folder: Path) -> dict[str, Stored]:
    """Return the sizes and digests of the files in `folder`."""
    return {path.name: _stored(path) for path in sorted(folder.iterdir())}


def read_bytes(path: Path) -> bytes:
    """Return the contents of a small file. Raises `DamagedError` if it is lost or not a file."""
    with loss_told(path), opened(path, _READ) as file:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise DamagedError(path, "is not a regular file")
        return b"".join(iter(partial(os.read, file, _PIECE_BYTES), b""))


def check(folder: Path, files: Files, *, owner: Owner | None = None) -> None:
    """Read all of `files` and compare them with what was written.

    Raises `DamagedError` if one differs, `UntrustedError` if a user other than `owner` (by default
    this process's) and root may write to it or to `folder`, and `ModelError` if this user may not
    read it.
    """
    with checked_meanwhile((folder, files), owner=owner):
        pass


def check_sizes(folder: Path, files: Files) -> None:
    """Do what `check` does, except for the contents: no file is read."""
    for name, stored in files.items():
        os.close(_open(folder / name, stored, Owner.of_this_process()))


@contextmanager
def loss_told(path: Path) -> Iterator[None]:
    """Raise `DamagedError` if the file is lost, and `ModelError` for any other error reading it."""
    try:
        yield
    except OSError as error:
        if error.errno in _LOST:
            raise DamagedError(path, _LOST[error.errno]) from None
        with reading(path):
            raise


@contextmanager
def checked_meanwhile(
    *parts: tuple[Path, Files], owner: Owner | None = None, digests: Digests | None = None
) -> Iterator[None]:
    """Do what `check` does with each part, while the block loads the same files.

    Owners, sizes and the contents of small files, the graph above all, are checked before the block
    begins; large files only by its end. What the checks raise replaces any error that the damage
    caused in the block. `digests` may remember files that need not be read again.
    """
    digests = digests or Digests()
    owner = owner or Owner.of_this_process()
    with ExitStack() as stack, ThreadPoolExecutor(_THREADS) as pool:
        pending = []
        for folder, files in parts:
            with loss_told(folder / next(iter(files), "")):  # report a lost folder as a lost file
                refuse_untrusted(folder, owner=owner)
            for name, stored in files.items():
                path = folder / name
                file = _open(path, stored, owner)
                stack.callback(os.close, file)
                pending.append(pool.submit(_compare, path, file, stored, digests))
                if stored.bytes <= _PIECE_BYTES:
                    pending[-1].result()
        try:
            yield
        finally:
            for compared in pending:
                compared.result()
            digests.remember()


def _open(path: Path, stored: Stored, owner: Owner) -> int:
    """Return the open file, so that the owner and size checked are those of what is read later."""
    with loss_told(path):
        file = os.open(path, _READ)
        try:
            _judge(path, os.fstat(file), stored, owner)
        except BaseException:
            os.close(file)
            raise
    return file


def _judge(path: Path, facts: os.stat_result, stored: Stored, owner: Owner) -> None:
    refuse_untrusted(path, facts, owner=owner)
    if not stat.S_ISREG(facts.st_mode):
        raise DamagedError(path, "is not a regular file")
    if facts.st_size != stored.bytes:
        raise DamagedError(path, f"has {facts.st_size:,} bytes, not {stored.bytes:,}")


def _compare(path: Path, file: int, stored: Stored, digests: Digests) -> None:
    with loss_told(path):
        found = digests.known_or(path, os.fstat(file), lambda: _sha256(file))
    if found != stored.sha256:
        raise DamagedError(path, f"does not match its recorded SHA-256 (found {found})")


def _stored(path: Path) -> Stored:
    with opened(path, _READ) as file:
        return Stored(os.fstat(file).st_size, _sha256(file))


def _sha256(file: int) -> str:
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    while count := os.readv(file, [piece]):
        digest.update(piece[:count])
    return digest.hexdigest()
