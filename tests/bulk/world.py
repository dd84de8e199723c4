"""A scripted daemon that reports its model in `status`."""

from collections.abc import Mapping
from typing import Any

from client_lib.wire.messages import Request, Status

from ..client_lib.fake_daemon import (
    DIMENSIONS,
    Act,
    FakeDaemon,
    answer,
    embed_body,
    vector,
)

__all__ = ["DIMENSIONS", "MODEL", "FakeDaemon", "embed_body", "told", "vector"]

MODEL = {"name": "fake", "task": "embed", "quantization": "int8", "dimensions": DIMENSIONS}


def told(request: Request) -> Mapping[str, Any] | Act:
    """Answer like the scripted daemon, and `status` like a real one."""
    return {"status": {"models": [MODEL]}} if isinstance(request, Status) else answer(request)
