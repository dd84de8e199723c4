"""Inputs that are kept, one a line in base64: those that lead the fuzzer on, and the tests."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

MOST_BYTES = 250_000
"""Of the file; what is longest is left out."""


def read(file: Path) -> list[bytes]:
    """Return the inputs in `file`; none where there is no file yet."""
    if not file.exists():
        return []
    return [base64.b64decode(line) for line in file.read_bytes().split()]


def write(file: Path, inputs: Iterable[bytes]) -> None:
    """Keep `inputs` in `file`, each once, the shortest first, as far as there is room."""
    lines: list[bytes] = []
    size = 0
    for data in sorted(set(inputs), key=lambda each: (len(each), each)):
        line = base64.b64encode(data) + b"\n"
        size += len(line)
        if size > MOST_BYTES:
            break
        lines.append(line)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(lines))


def unpack(inputs: Sequence[bytes], folder: Path) -> None:
    """Write each of `inputs` to a file of its own, as libFuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(inputs):
        (folder / f"{index:05}").write_bytes(data)


def packed(folder: Path) -> list[bytes]:
    """Return the inputs in the files of `folder`."""
    return [file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()]
