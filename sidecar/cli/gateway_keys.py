"""The key file of `sidecar gateway --api-key-file`."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sidecar.config import ConfigError
from sidecar.lines import BOM

_LEAST_LENGTH = 16
"""Minimum length of a key: 64 bits in hexadecimal, too many to guess over HTTP."""

_PRINTABLE = frozenset(range(0x21, 0x7F))
_HOW = "generate one with `openssl rand -hex 32`"


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Return the file's keys: one per line, ignoring blank lines and comments that start with #.

    Raises `ConfigError`, which gives the line number but never the content of a line.
    """
    try:
        with path.open("rb") as file:
            _refuse_if_public(file, path)
            keys = tuple(_keys(file, path))
    except OSError as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {error.strerror}") from None
    if not keys:
        raise ConfigError(f"--api-key-file {path} contains no key: {_HOW}")
    return keys


def _refuse_if_public(file: BinaryIO, path: Path) -> None:
    """Raise `ConfigError` if other users may read the keys or write new ones.

    Group permissions are not checked: systemd may grant access to credentials through the group.
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
                f"{where}: a key is printable ASCII without spaces; write one per line, and "
                "start comments with #"
            )
        if len(key) < _LEAST_LENGTH:
            raise ConfigError(
                f"{where}: a key needs at least {_LEAST_LENGTH} characters to be hard to "
                f"guess: {_HOW}"
            )
        yield key
