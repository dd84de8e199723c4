"""What is written beside its place, and renamed into it once it is whole and on the disk.

Whoever writes a draft holds a lock on it, which the kernel lets go of when the process ends,
however that happens and in whatever container. So what one that was killed has left can be told
from what another still writes, and two that make the same thing do not meet. Network file
systems may keep the locks of each host to itself.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.models.durable import FOLDER, opened, settle, sync_folder

_ATTEMPTS = 8
# A link in a draft's place is not followed, and a file is not opened.
_DRAFT = FOLDER | os.O_NOFOLLOW
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a new folder in which to write what is to become `path`; see `put`.

    What is still there at the end is removed. Raises `OSError` where it cannot be made.
    """
    draft, lock = _begun(path)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)


def put(draft: Path, path: Path) -> None:
    """Put what is whole in its place; what was there is replaced. Raises `OSError`."""
    settle(draft)
    replaced: list[Path] = []
    while not _renamed(draft, path):
        replaced.append(_beside(path))
        with suppress(FileNotFoundError):  # whoever puts the same there replaces it, too
            path.rename(replaced[-1])
    sync_folder(path.parent)
    for old in replaced:
        shutil.rmtree(old, ignore_errors=True)


def put_first(draft: Path, path: Path) -> None:
    """Put what is whole in its place, unless another process has done so by now."""
    settle(draft)
    if _renamed(draft, path):
        sync_folder(path.parent)


def clear(path: Path) -> None:
    """Remove a folder of our own; nobody sees a part of it. Raises `OSError`."""
    gone = _beside(path)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove the drafts of `path` whose writers are gone: this user's own, and no others."""
    with suppress(OSError), opened(path.parent, FOLDER) as parent:
        names = [entry.name for entry in os.scandir(parent)]
        for name in filter(_named(path).fullmatch, names):
            with suppress(OSError):  # not a folder, or locked by who writes it
                _sweep(name, parent)


def _sweep(name: str, parent: int) -> None:
    with opened(name, _DRAFT, at=parent) as draft:
        if os.fstat(draft).st_uid == os.geteuid():
            fcntl.flock(draft, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while it is removed
            shutil.rmtree(name, ignore_errors=True, dir_fd=parent)


def _begun(path: Path) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        draft = _beside(path)
        draft.mkdir(0o755)
        with suppress(FileNotFoundError):  # somebody swept it before it was opened
            lock = os.open(draft, _DRAFT)
            if _is_held(lock) and _is_at(draft, lock):
                return draft, lock
            os.close(lock)  # or before it was locked
    raise BlockingIOError(errno.EAGAIN, "every draft was locked by another process", str(path))


def _is_held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nobody can take it for abandoned
        return True
    return True


def _is_at(draft: Path, lock: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(draft.lstat(), os.fstat(lock))
    return False


def _renamed(draft: Path, path: Path) -> bool:
    try:
        draft.rename(path)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft-{secrets.token_hex(8)}")


def _named(path: Path) -> re.Pattern[str]:
    """Return what the whole names of `path`'s drafts match."""
    return re.compile(rf"\.{re.escape(path.name)}\.draft-[0-9a-f]{{16}}")
