"""Durable writes: data is synced before it becomes visible, and only its owner may write to it."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FILE = os.O_RDONLY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, writable only by their owner.

    Others may read it, as far as the umask allows: root may prepare models for a service's user.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(0o755, exist_ok=True)


def settle(folder: Path) -> None:
    """Sync a folder's entries and files to disk, and make them writable only by their owner."""
    for path in folder.iterdir():
        _settle(path, _FILE)
    _settle(folder, FOLDER)


def replace_text(path: Path, text: str) -> None:
    """Replace the contents of `path` with `text` atomically, and never through a symbolic link."""
    draft = path.with_name(f".{path.name}.draft-{secrets.token_hex(8)}")
    try:
        with opened(draft, _NEW, mode=0o644) as file, os.fdopen(file, "w", closefd=False) as out:
            out.write(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, so that a rename in it survives a power loss."""
    with opened(folder, FOLDER) as file:
        os.fsync(file)


@contextmanager
def opened(path: Path | str, flags: int, *, at: int | None = None, mode: int = 0) -> Iterator[int]:
    """Yield a file descriptor; `path` may be relative to the folder open as `at`.

    A file that is created has `mode`, subject to the umask.
    """
    file = os.open(path, flags, mode, dir_fd=at)
    try:
        yield file
    finally:
        os.close(file)


def _settle(path: Path, flags: int) -> None:
    with opened(path, flags) as file:
        os.fchmod(file, stat.S_IMODE(os.fstat(file).st_mode) & ~_OTHERS)
        os.fsync(file)
