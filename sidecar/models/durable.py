"""What is written lies on the disk before it is seen, and nobody else can write to it."""

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
    """Make a folder, and those above it that are missing, which only their owner may write to.

    Others may read it, as far as the umask lets them: root may prepare for a service's user.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(0o755, exist_ok=True)


def settle(folder: Path) -> None:
    """Have all files of a folder on the disk, and its entries; only their owner may write them."""
    for path in folder.iterdir():
        _settle(path, _FILE)
    _settle(folder, FOLDER)


def replace_text(path: Path, text: str) -> None:
    """Have `path` hold `text`, or what it held before: never a part, and never through a link."""
    draft = path.with_name(f".{path.name}.draft-{secrets.token_hex(8)}")
    try:
        with opened(draft, _NEW, mode=0o644) as file, os.fdopen(file, "w", closefd=False) as out:
            out.write(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the entries of a folder on the disk: what was renamed there is found there."""
    with opened(folder, FOLDER) as file:
        os.fsync(file)


@contextmanager
def opened(path: Path | str, flags: int, *, at: int | None = None, mode: int = 0) -> Iterator[int]:
    """Yield a file's descriptor; `path` may be relative to the folder that is open as `at`.

    A file that is made has `mode`, as far as the umask lets it.
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
