"""Files that are replaced whole, in folders that others may share. A leaf.

What is written has a name that nobody can have taken before, until it is complete; then it takes
the place of what was there. The folder is opened once and all goes by its descriptor, so that
nobody can change what its path leads to in between.
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
    """Write `text` to `path`; whoever reads it sees the old or the new, whole.

    The file has `mode`, whatever the umask; by default that of this user's file that it replaces,
    else the usual one. Raises `OSError` where the folder is missing or may not be written to, and
    where something else than a file is at `path`: no link and no device is followed or replaced.
    """
    with _folder_of(path) as folder:
        there = _file_at(path, folder)
        with _draft(path, folder) as (name, descriptor):
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                if mode := mode or _kept_mode(there):
                    os.fchmod(descriptor, mode)
                file.write(text)
            os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def check_replaceable(path: Path) -> None:
    """Raise the `OSError` that `replace_file` would raise; nothing is changed and nothing left."""
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
    """Open a new file in `folder`, by a name that nobody knows; it is gone at the end."""
    # Without the suffix of `path`: a collector that takes all *.prom would take this one, too.
    name = f".{path.stem}-{secrets.token_hex(8)}"
    descriptor = os.open(name, _NEW, 0o666, dir_fd=folder)
    try:
        yield name, descriptor
    finally:
        with suppress(FileNotFoundError):  # it has the other name by now
            os.unlink(name, dir_fd=folder)


def _file_at(path: Path, folder: int) -> os.stat_result | None:
    """Return the facts of the file that is to be replaced, if there is one."""
    try:
        found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        what = f"{kind_of(found)} of {user(found.st_uid)}"
        raise FileExistsError(errno.EEXIST, f"{what} is there, not a file: name another")
    return found


def _kept_mode(there: os.stat_result | None) -> int | None:
    return there.st_mode & 0o777 if there is not None and is_own(there.st_uid) else None
