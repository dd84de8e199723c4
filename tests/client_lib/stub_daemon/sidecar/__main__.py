"""A stand-in for `python -m sidecar serve` that starts at once.

It takes effect if its folder comes before the real package in the import path. Each start appends a
line to `starts`, next to the socket's folder. With `--words TEXT` it prints the text to stderr and
fails.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from client_lib.wire.messages import Request, Status
from tests.client_lib.fake_daemon import FakeDaemon, answer

_FAILED = 3


def reply(request: Request) -> Any:
    if isinstance(request, Status):
        return {"status": {"pid": os.getpid(), "flags": sys.argv[1:]}}
    return answer(request)


def main() -> int:
    _, *flags = sys.argv[1:]
    path = Path(flags[flags.index("--socket") + 1])
    with path.parents[1].joinpath("starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if "--words" in flags:
        sys.stderr.write(flags[-1])
        return _FAILED
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    path.unlink(missing_ok=True)  # left by a killed daemon
    with FakeDaemon(path) as daemon:
        daemon.script = reply
        signal.sigwait([signal.SIGTERM])
    return 0


if __name__ == "__main__":
    sys.exit(main())
