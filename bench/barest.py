"""The least that any server of this kind can cost: one blocking thread, one peer, no protocol.

Reads a text, tokenizes it, runs the forward, writes the vector: `python -m bench.barest ARTIFACT
SOCKET`. It has no batching, no error handling and no second client; what it adds to the bare
forward is what the host charges for two wake-ups and the tokenizer. An echo is the same without
either: as many bytes there and back, and nothing computed.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.host import read_host
from sidecar.models.layout import layout_of
from sidecar.models.model import load

_LONGEST = 65_536
_ECHO = b"\0"


@contextmanager
def running(artifact: Path, path: Path) -> Iterator[socket.socket]:
    """Run it in a process of its own and yield a connection to it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "bench.barest", str(artifact), str(path)]
        process = subprocess.Popen(command)
        connection, _ = listener.accept()
    with connection:
        yield connection
    process.wait(10)


def ask(connection: socket.socket, text: str) -> bytes:
    connection.sendall(text.encode())
    return connection.recv(_LONGEST)


def echo(connection: socket.socket, text: str) -> bytes:
    connection.sendall(_ECHO + text.encode())
    return connection.recv(_LONGEST)


def main(artifact: str, path: str) -> None:
    folder = Path(artifact)
    model = load(folder, layout_of(folder, folder.parent, read_host().cores))
    zeros = bytes(4 * model.dimensions)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        while text := connection.recv(_LONGEST):
            if text.startswith(_ECHO):
                connection.sendall(zeros)
                continue
            (row,) = model.tokenize([text.decode()])
            connection.sendall(model.forward_parallel(row).tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
