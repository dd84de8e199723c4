"""Drafts: written beside their destination, and renamed to it once complete and synced.

The writer of a draft holds a lock on it, which the kernel releases when the process ends, however
it ends and in whatever container. So a draft left by a killed process can be told from one that is
still being written, and two writers of the same path do not collide. Network file systems may keep
the locks of each host separate.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sidecar.models.durable import FOLDER, opened, settle, sync_folder

_ATTEMPTS = 8
# Refuses anything but a folder in a draft's place: symbolic links and files.
_DRAFT = FOLDER | os.O_NOFOLLOW
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a new folder in which to write the contents of `path`; see `put`.

    It is removed at the end if it is still there. Raises `OSError` if it cannot be created.
    """
    with ExitStack() as stack:
        yield _begin(path, stack)


def put(draft: Path, path: Path) -> None:
    """Move a complete draft to `path`, replacing what was there. Raises `OSError`."""
    settle(draft)
    replaced: list[Path] = []
    while not _renamed(draft, path):
        replaced.append(_beside(path))
        with suppress(FileNotFoundError):  # another writer of `path` has just moved it
            path.rename(replaced[-1])
    sync_folder(path.parent)
    for old in replaced:
        shutil.rmtree(old, ignore_errors=True)


def put_first(draft: Path, path: Path) -> None:
    """Move a complete draft to `path`, unless another process has put one there first."""
    settle(draft)
    if _renamed(draft, path):
        sync_folder(path.parent)


def clear(path: Path) -> None:
    """Remove a folder of our own, renaming it first so none of it is seen. Raises `OSError`."""
    gone = _beside(path)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove this user's drafts of `path` whose writers are gone."""
    with suppress(OSError), opened(path.parent, FOLDER) as parent:
        names = [entry.name for entry in os.scandir(parent)]
        for name in filter(_named(path).fullmatch, names):
            with suppress(OSError):  # not a folder, or still locked by its writer
                _sweep(name, parent)


def _sweep(name: str, parent: int) -> None:
    with opened(name, _DRAFT, at=parent) as draft:
        if os.fstat(draft).st_uid == os.geteuid():
            fcntl.flock(draft, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held during the removal
            shutil.rmtree(name, ignore_errors=True, dir_fd=parent)


def _begin(path: Path, stack: ExitStack) -> Path:
    """Return a new draft, locked; `stack` removes it, even if a signal ends this in between."""
    for _ in range(_ATTEMPTS):
        draft = _beside(path)
        stack.callback(shutil.rmtree, draft, ignore_errors=True)
        draft.mkdir(0o755)
        with suppress(FileNotFoundError):  # swept by another process before it was opened
            lock = os.open(draft, _DRAFT)
            stack.callback(os.close, lock)
            if _is_held(lock) and _is_at(draft, lock):
                return draft  # otherwise it was swept before it was locked
    raise BlockingIOError(errno.EAGAIN, "every draft was locked by another process", str(path))


def _is_held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks: no sweep removes it either
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
    """Return a pattern that the full names of `path`'s drafts match."""
    return re.compile(rf"\.{re.escape(path.name)}\.draft-[0-9a-f]{{16}}")
