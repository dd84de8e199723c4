"""mosec: batches for a worker that the user writes; here it is sentence-transformers."""

from collections.abc import Sequence
from pathlib import Path

from bench.peers.peer import BATCH, INSIDE, TORCH, Peer, Service, Setting

_TIMEOUT_MS = 120_000  # its own, 3 s, fails half of what 64 clients ask


def _command(python: Path, port: int, setting: Setting) -> Sequence[str]:
    place = ("--address", "127.0.0.1", "--port", str(port), "--timeout", str(_TIMEOUT_MS))
    return (str(python), str(INSIDE / "mosec_server.py"), str(setting.folder), str(BATCH), *place)


PEER = Peer(
    "mosec",
    ("mosec==0.9.8", TORCH, "sentence-transformers==6.2.0", "transformers==5.24.0"),
    (Service("mosec, sentence-transformers FP32", _command),),
)
