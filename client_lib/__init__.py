"""The client of a Sidecar daemon: texts in, vectors and rankings out, over a Unix socket."""

from client_lib.aio import AsyncClient
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
    UntrustedDaemon,
    UntrustedFolder,
)
from client_lib.wire.replies import (
    EmbedReply,
    MetricsReply,
    RerankReply,
    RerankResult,
    Timings,
    Usage,
)

__version__ = "0.1.0"

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
    "UntrustedDaemon",
    "UntrustedFolder",
    "Usage",
]
