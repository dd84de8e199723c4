"""Lines of files that people bring: UTF-8, with or without a byte order mark.

Only a newline ends a line, with a carriage return before it or without. `str.splitlines` would
end one at a form feed, at U+0085 and at U+2028 as well, in the middle of a text.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

BOM = b"\xef\xbb\xbf"


def numbered_lines(path: Path, refuse: Callable[[str], Exception]) -> Iterator[tuple[int, str]]:
    """Yield each line of the file with its end, and its number, from 1; one is held at a time.

    Raises `refuse` of one line of text where the file, or a line of it, cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, _decoded(line, number, path, refuse)
    except OSError as error:
        raise refuse(f"{path} cannot be read: {error.strerror or error}") from None


def without_end(line: str) -> str:
    """Return `line` without what ends it."""
    return line.removesuffix("\n").removesuffix("\r")


def _decoded(line: bytes, number: int, path: Path, refuse: Callable[[str], Exception]) -> str:
    try:
        return (line.removeprefix(BOM) if number == 1 else line).decode()
    except UnicodeDecodeError as error:
        raise refuse(f"{path}:{number} is not UTF-8: {error.reason}") from None
