"""With the daemon's client: `python -m bench.apps.client SOCKET`."""

import sys

from bench.apps import serve
from client_lib import Client


def main(socket: str) -> None:
    with Client(socket, timeout=120) as client:
        serve(client.encode)


if __name__ == "__main__":
    main(sys.argv[1])
