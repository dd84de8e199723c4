"""systemd's native journal protocol: each entry is one datagram of fields.

A field is `NAME=value` and a newline. If the value contains a newline: `NAME`, a newline, the
value's length as a little-endian uint64, the value, a newline. An entry too long for a datagram
is written to a sealed memfd, whose descriptor is sent instead. The protocol is stable:
systemd.io/JOURNAL_NATIVE_PROTOCOL.
"""

import errno
import fcntl
import json
import os
import socket
import stat
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOCKET = Path("/run/systemd/journal/socket")

# Priorities as in syslog(3).
_PRIORITIES = {"critical": "2", "error": "3", "warning": "4", "info": "6", "debug": "7"}
_TOO_LONG = {errno.EMSGSIZE, errno.ENOBUFS}
_FLAGS = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_LENGTH = struct.Struct("<Q")
_NOT_IN_A_LINE = {"ts", "level", "event", "traceback"}
_to_json = json.JSONEncoder(default=str, separators=(",", ":"), ensure_ascii=False).encode


def is_standard_output(environ: Mapping[str, str], stdout: int = 1, stderr: int = 2) -> bool:
    """Return whether `stdout` is connected to the journal, according to `$JOURNAL_STREAM`.

    The variable holds the device and inode of one stream: standard error's, if the two differ.
    """
    try:
        streams = os.fstat(stdout), os.fstat(stderr)
    except OSError:
        return False
    named = environ.get("JOURNAL_STREAM")
    known = {f"{stream.st_dev}:{stream.st_ino}" for stream in streams}
    return named in known and stat.S_ISSOCK(streams[0].st_mode)


class Journal:
    """Writes records as journal entries, with field names in upper case.

    Adds MESSAGE (the event on one line, or its own `message` field), PRIORITY (the syslog level)
    and SYSLOG_IDENTIFIER. Lists and maps are encoded as JSON.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Return `record` as a journal entry."""
        texts = {name: _text(value) for name, value in record.items()}
        fields = {
            "MESSAGE": _line(texts),
            "PRIORITY": _PRIORITIES[record["level"]],
            "SYSLOG_IDENTIFIER": "sidecar",
            **{name.upper(): text for name, text in texts.items()},
        }
        short = [f"{name}={text}\n" for name, text in fields.items() if "\n" not in text]
        long = [_long(name, text) for name, text in fields.items() if "\n" in text]
        return b"".join([_bytes("".join(short)), *long])

    def write(self, entries: Sequence[bytes]) -> int:
        """Send the entries, blocking while the journal is busy; return how many were lost."""
        return sum(not self._send(entry) for entry in entries)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, entry: bytes) -> bool:
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            return error.errno in _TOO_LONG and self._send_by_memfd(entry)
        return True

    def _send_by_memfd(self, entry: bytes) -> bool:
        try:
            with os.fdopen(os.memfd_create("sidecar-event", _FLAGS), "wb", buffering=0) as file:
                file.write(entry)
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file.fileno()]))
                self._socket.sendmsg([], [rights], 0, self._path)
        except OSError:
            return False
        return True


def _line(texts: Mapping[str, str]) -> str:
    fields = [f" {name}={text}" for name, text in texts.items() if name not in _NOT_IN_A_LINE]
    return texts["event"] + "".join(fields)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(value) if is_number else _to_json(value)


def _long(name: str, text: str) -> bytes:
    value = _bytes(text)
    return b"%s\n%s%s\n" % (name.encode(), _LENGTH.pack(len(value)), value)


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # paths need not be valid UTF-8
