"""Read the lines of user-supplied files: UTF-8, with or without a byte order mark.

Only LF or CRLF ends a line. `str.splitlines` would also split at form feeds, U+0085 and U+2028,
in the middle of a text.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

BOM = b"\xef\xbb\xbf"


def numbered_lines(path: Path, refuse: Callable[[str], Exception]) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, from 1, and its line ending; holds one line at a time.

    If the file or a line cannot be read, raises `refuse(message)`, with a one-line message.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, _decoded(line, number, path, refuse)
    except OSError as error:
        raise refuse(f"{path} cannot be read: {error.strerror or error}") from None


def without_end(line: str) -> str:
    """Return `line` without its line ending."""
    return line.removesuffix("\n").removesuffix("\r")


def _decoded(line: bytes, number: int, path: Path, refuse: Callable[[str], Exception]) -> str:
    try:
        return (line.removeprefix(BOM) if number == 1 else line).decode()
    except UnicodeDecodeError as error:
        raise refuse(f"{path}:{number} is not UTF-8: {error.reason}") from None
