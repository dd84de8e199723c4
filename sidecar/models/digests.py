"""A cache of file digests: gigabytes are hashed once, not at every start.

A file is identified by its device, inode, size and times, including its ctime, which no program can
set. So a remembered digest always matches the file's current contents: an edited or copied file is
hashed again.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sidecar.models.durable import make_folder, replace_text
from sidecar.models.errors import UntrustedError
from sidecar.models.folder.files import model_files, reading
from sidecar.models.trust import Owner, refuse_untrusted

_FILE = "digests.json"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_KEPT = 4096  # entries, those of the files hashed last
# Two changes within one tick of the file system's clock get the same timestamp.
_SETTLED_NS = 2_000_000_000


class Digests:
    """SHA-256 digests of files, remembered in the folder `cache`; with None, nothing is remembered.

    With `since_boot`, they are valid until the next boot only, as needed for files that are served:
    after a power loss, a file may hold other bytes with the same times.
    """

    def __init__(self, cache: Path | None = None, *, since_boot: bool = False) -> None:
        self._path = cache and cache / _FILE
        self._boot = f"{_boot()} " if since_boot else ""
        self._known = _read(self._path)
        self._new: dict[str, str] = {}

    def of(self, path: Path) -> str:
        """Return the hexadecimal SHA-256 of a file. Raises `ModelError` if it cannot be read."""
        with reading(path), path.open("rb") as file:
            facts = os.fstat(file.fileno())
            return self.known_or(
                path, facts, lambda: hashlib.file_digest(file, "sha256").hexdigest()
            )

    def known_or(self, path: Path, facts: os.stat_result, read: Callable[[], str]) -> str:
        """Return the remembered digest of an open file, whose stat is `facts`, or else `read()`."""
        key = self._boot + _key(facts)
        if key in self._known:
            return self._known[key]
        digest = read()
        if time.time_ns() - facts.st_ctime_ns > _SETTLED_NS and _is_as_it_was(path, facts):
            self._new[key] = digest
        return digest

    def remember(self) -> None:
        """Save new digests; if the cache is not writable, the files are hashed again next time."""
        if self._path is None or not self._new:
            return
        known = {**_read(self._path), **self._new}
        kept = dict(list(known.items())[-_KEPT:])
        with suppress(OSError):
            make_folder(self._path.parent)
            replace_text(self._path, json.dumps(kept, indent=0))


def fingerprint(folder: Path, digests: Digests) -> str:
    """Return a SHA-256 over the names and contents of the files that make up the model in `folder`.

    Raises `ModelError` for a file that cannot be read.
    """
    facts = [f"{path.relative_to(folder)}\0{digests.of(path)}" for path in model_files(folder)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _boot() -> str:
    """Return the host's boot id or, if it has none, a random string that will never match."""
    with suppress(OSError):
        return _BOOT.read_text("ascii").strip()
    return secrets.token_hex(8)


def _key(facts: os.stat_result) -> str:
    times = f"{facts.st_mtime_ns} {facts.st_ctime_ns}"
    return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {times}"


def _is_as_it_was(path: Path, facts: os.stat_result) -> bool:
    with suppress(OSError):
        return _key(path.stat()) == _key(facts)
    return False


def _read(path: Path | None) -> dict[str, str]:
    """Return the saved digests; none if the file is unreadable or other users may write to it."""
    if path is None:
        return {}
    with suppress(OSError, ValueError, UntrustedError), path.open(encoding="utf-8") as file:
        refuse_untrusted(path, os.fstat(file.fileno()), owner=Owner.of_this_process())
        known = json.load(file)
        if isinstance(known, dict):
            return {key: digest for key, digest in known.items() if isinstance(digest, str)}
    return {}
