"""The file of keys that `sidecar gateway --api-key-file` asks callers for."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sidecar.config import ConfigError
from sidecar.lines import BOM

_LEAST_LENGTH = 16
"""Characters of a key: 64 bits where they are hexadecimal, which nobody guesses over HTTP."""

_PRINTABLE = frozenset(range(0x21, 0x7F))
_HOW = "make one with `openssl rand -hex 32`"


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Return the file's keys: one a line, beside blank lines and comments, which begin with #.

    Raises `ConfigError`, which names a line by its number and never shows what stands there.
    """
    try:
        with path.open("rb") as file:
            _refuse_if_public(file, path)
            keys = tuple(_keys(file, path))
    except OSError as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {error.strerror}") from None
    if not keys:
        raise ConfigError(f"--api-key-file {path} holds no key: {_HOW}")
    return keys


def _refuse_if_public(file: BinaryIO, path: Path) -> None:
    """Raise `ConfigError` where every user of the host may read the keys, or write others.

    The group is left to whoever set it: systemd hands credentials over with it.
    """
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode) and mode & stat.S_IRWXO:
        raise ConfigError(
            f"--api-key-file {path} is open to every user (mode {stat.S_IMODE(mode):04o}): "
            f"chmod o= {path}, and replace keys that others may have read"
        )


def _keys(file: BinaryIO, path: Path) -> Iterator[bytes]:
    for number, line in enumerate(file, start=1):
        key = (line.removeprefix(BOM) if number == 1 else line).strip()
        if not key or key.startswith(b"#"):
            continue
        where = f"--api-key-file {path}, line {number}"
        if not _PRINTABLE.issuperset(key):
            raise ConfigError(
                f"{where}: a key is printable ASCII without spaces; write one a line, and # "
                "before a comment"
            )
        if len(key) < _LEAST_LENGTH:
            raise ConfigError(
                f"{where}: a key has at least {_LEAST_LENGTH} characters, so that nobody "
                f"guesses it: {_HOW}"
            )
        yield key
