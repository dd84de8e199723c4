"""The client of a Sidecar daemon: texts in, vectors and rankings out, over a Unix socket."""

from client_lib.aio import AsyncClient
from client_lib.results import EmbedReply, MetricsReply, RerankReply, RerankResult, Timings, Usage
from client_lib.sync import Client
from client_lib.wire.errors import (
    BackendFailed,
    BadRequest,
    CallTimeout,
    Cancelled,
    ClientClosed,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    Forbidden,
    FrameTooLarge,
    Overloaded,
    ProtocolError,
    ReplyError,
    SidecarError,
    TooLarge,
    UnknownModel,
    UnsupportedVersion,
)

__all__ = [
    "AsyncClient",
    "BackendFailed",
    "BadRequest",
    "CallTimeout",
    "Cancelled",
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "DeadlineExceeded",
    "Draining",
    "EmbedReply",
    "Forbidden",
    "FrameTooLarge",
    "MetricsReply",
    "Overloaded",
    "ProtocolError",
    "ReplyError",
    "RerankReply",
    "RerankResult",
    "SidecarError",
    "Timings",
    "TooLarge",
    "UnknownModel",
    "UnsupportedVersion",
    "Usage",
]
