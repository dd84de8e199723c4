"""Atomic file replacement, safe in folders shared with other users. A leaf module.

The new content is written to a temporary file with an unpredictable name, which is then renamed
over the old one. The folder is opened once and used through its descriptor, so nobody can swap
what its path leads to in between.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from client_lib.own_folder import kind_of
from client_lib.trust import is_own, user

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(path: Path, text: str, mode: int | None = None) -> None:
    """Write `text` to `path` atomically: readers see the whole old file or the whole new one.

    The file gets `mode` regardless of the umask. By default it keeps the mode of the file it
    replaces, if that belongs to this user, and otherwise gets the usual one. Raises `OSError` if
    the folder is missing or not writable, and if `path` is anything but a regular file: links and
    devices are neither followed nor replaced.
    """
    with _folder_of(path) as folder:
        existing = _file_at(path, folder)
        with _draft(path, folder) as (name, descriptor):
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                if mode := mode or _kept_mode(existing):
                    os.fchmod(descriptor, mode)
                file.write(text)
            os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def check_replaceable(path: Path) -> None:
    """Raise the `OSError` that `replace_file` would raise, without changing anything."""
    with _folder_of(path) as folder:
        _file_at(path, folder)
        with _draft(path, folder) as (_, descriptor):
            os.close(descriptor)


@contextmanager
def _folder_of(path: Path) -> Iterator[int]:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _draft(path: Path, folder: int) -> Iterator[tuple[str, int]]:
    """Open a temporary file with a random name in `folder`; it is removed on exit."""
    # Drop the suffix of `path`: a collector that reads *.prom would pick this one up, too.
    name = f".{path.stem}-{secrets.token_hex(8)}"
    descriptor = os.open(name, _NEW, 0o666, dir_fd=folder)
    try:
        yield name, descriptor
    finally:
        with suppress(FileNotFoundError):  # already renamed
            os.unlink(name, dir_fd=folder)


def _file_at(path: Path, folder: int) -> os.stat_result | None:
    """Return the status of the file to replace, if any. Raises `FileExistsError` for a non-file."""
    try:
        found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        what = f"{kind_of(found)} of {user(found.st_uid)}"
        raise FileExistsError(errno.EEXIST, f"it is {what}, not a file; choose another path")
    return found


def _kept_mode(existing: os.stat_result | None) -> int | None:
    return existing.st_mode & 0o777 if existing is not None and is_own(existing.st_uid) else None
