"""What `python -m sidecar serve` is where this folder goes before the real one: in no time there.

Each start is a line of `starts`, beside the folder of the socket. With the flag `--words` it says
these on standard error, and fails.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from client_lib.wire.messages import Request, Status
from tests.client_lib.fake_daemon import FakeDaemon, answer

_FAILED = 3


def say(request: Request) -> Any:
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
    path.unlink(missing_ok=True)  # of one that was killed
    with FakeDaemon(path) as daemon:
        daemon.script = say
        signal.sigwait([signal.SIGTERM])
    return 0


if __name__ == "__main__":
    sys.exit(main())
