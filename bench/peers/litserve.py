"""LitServe: batches for a worker that the user writes; here it is sentence-transformers."""

from collections.abc import Sequence
from pathlib import Path

from bench.peers.peer import BATCH, INSIDE, TORCH, Peer, Service, Setting


def _command(python: Path, port: int, setting: Setting) -> Sequence[str]:
    numbers = (str(BATCH), str(port))
    return (str(python), str(INSIDE / "litserve_server.py"), str(setting.folder), *numbers)


PEER = Peer(
    "litserve",
    ("litserve==0.2.19", TORCH, "sentence-transformers==6.2.0", "transformers==5.24.0"),
    (Service("LitServe, sentence-transformers FP32", _command),),
)
