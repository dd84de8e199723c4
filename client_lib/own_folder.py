"""A folder that belongs to this user alone, in a place that others may share.

Whatever another user puts in the way (a link to somebody's file, a FIFO that blocks, a folder of
their own) is refused by name, and never followed, waited for, written to or removed. The folder
and its parent are opened once, and all access goes through these descriptors, so that nobody can
change what a path refers to in between.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from client_lib.trust import is_own, user
from client_lib.wire.errors import UntrustedFolder

_MODE = 0o700
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO without a reader fails instead of blocking. Files are unaffected.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"), (stat.S_ISREG, "a file"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """The folder at `path`, open as `descriptor`, within the one open as `parent`.

    Names are those of files directly in it. An error of the system raises `OSError`, anything that
    is not this user's `UntrustedFolder`.
    """

    path: Path
    descriptor: int
    parent: int

    @classmethod
    @contextmanager
    def hold(cls, path: Path, *, make: bool = True) -> Iterator[Self]:
        """Open the folder; create it with mode 0700 if it is missing, unless `make` is false."""
        with ExitStack() as stack:
            parent = os.open(path.parent, _FOLDER)
            stack.callback(os.close, parent)
            if make:
                with suppress(FileExistsError):
                    os.mkdir(path.name, _MODE, dir_fd=parent)
            folder = _open_folder(path, parent)
            stack.callback(os.close, folder)
            _check_folder(path, os.fstat(folder))
            yield cls(path, folder, parent)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Return a descriptor of a file of this user; with `O_CREAT` it may be created."""
        try:
            file = os.open(name, flags | _FILE, mode, dir_fd=self.descriptor)
        except OSError:
            self.holds(name)  # raises a clearer error if something else is in the way
            raise
        try:
            _check_file(self.path / name, os.fstat(file))
        except BaseException:
            os.close(file)
            raise
        return file

    def create(self, name: str) -> int:
        """Return a read-write descriptor of a new file, replacing this user's file of that name."""
        self.remove(name)
        return self.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)

    def holds(self, name: str) -> bool:
        """Whether the folder has a file of this user with that name."""
        try:
            found = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        _check_file(self.path / name, found)
        return True

    def remove(self, name: str) -> None:
        """Remove a file of this user, if it exists."""
        if self.holds(name):
            os.unlink(name, dir_fd=self.descriptor)

    def rename(self, name: str, to: str) -> None:
        """Rename a file within the folder."""
        os.replace(name, to, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def move_out(self, name: str, to: str) -> None:
        """Move a file next to the folder. A link at the target is replaced, not followed."""
        os.replace(name, to, src_dir_fd=self.descriptor, dst_dir_fd=self.parent)

    def leave(self) -> None:
        """Remove the folder, if it is empty."""
        with suppress(OSError):
            os.rmdir(self.path.name, dir_fd=self.parent)


def _open_folder(path: Path, parent: int) -> int:
    try:
        return os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except OSError:
        found = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        _check_folder(path, found)
        raise


def _check_folder(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode) or not is_own(found.st_uid):
        raise _refusal(path, found, "a directory")
    if found.st_mode & _BY_OTHERS:
        raise UntrustedFolder(
            f"{shown(path)} is writable by others: check what is in it, then run `chmod go-w` on "
            "it or remove it"
        )


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or not is_own(found.st_uid):
        raise _refusal(path, found, "a file")
    if found.st_nlink > 1:  # what is written to it would appear in the other place, too
        raise UntrustedFolder(f"{shown(path)} has another hard link elsewhere: remove it")


def _refusal(path: Path, found: os.stat_result, expected: str) -> UntrustedFolder:
    return UntrustedFolder(
        f"{shown(path)} is {kind_of(found)} owned by {user(found.st_uid)}, not {expected} owned by "
        f"you ({user(os.geteuid())}): move it away or choose another path"
    )


def kind_of(found: os.stat_result) -> str:
    """Return the kind of a file, in words for a message."""
    return next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "a device")


def shown(path: Path) -> str:
    """Return `path` on one line, whatever characters it has."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)
