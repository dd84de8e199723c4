"""The exception hierarchy, with one class per error code of the protocol.

SidecarError
├── ProtocolError            the peer violated the protocol
│   └── FrameTooLarge        ... with a frame over the size limit
├── ConnectionLost           no daemon could be reached
├── UntrustedDaemon          the daemon at the socket belongs to another user
├── UntrustedFolder          a private folder, or something in it, belongs to another user
├── ClientClosed             this client was closed
├── CallTimeout              no answer in time, by the caller's clock
└── ReplyError               the daemon answered with an error
    ├── BadRequest           bad_request: the request is invalid
    ├── TooLarge             too_large: over a limit of the daemon
    ├── UnknownModel         unknown_model
    ├── Overloaded           overloaded: retry after `retry_after_ms`
    ├── DeadlineExceeded     deadline_exceeded
    ├── Cancelled            cancelled
    ├── Draining             draining: the daemon is shutting down
    ├── BackendFailed        backend_failed: the model raised
    ├── Forbidden            forbidden
    └── UnsupportedVersion   unsupported_version
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class SidecarError(Exception):
    """Base class of all errors that this library raises deliberately.

    `request_id` is the id of the failed call, or None. Together with the process id it matches
    `request_id` and `peer_pid` in the daemon's events.
    """

    request_id: int | None = None


class ProtocolError(SidecarError):
    """The peer sent bytes that are not this protocol; the connection is unusable."""


class FrameTooLarge(ProtocolError):
    """The peer announced a frame over this side's size limit."""


class ClientClosed(SidecarError):
    """The client was closed before or during the call."""


class ConnectionLost(SidecarError, ConnectionError):
    """No daemon answered at the socket, or it disconnected and did not return in time."""


class UntrustedDaemon(SidecarError, PermissionError):
    """The daemon runs as none of root, the client's own user and the expected user."""


class UntrustedFolder(SidecarError, PermissionError):
    """A folder that must be private to this user is not, or contains another user's files."""


class CallTimeout(SidecarError, TimeoutError):
    """No answer arrived within the call's timeout."""


class ReplyError(SidecarError):
    """The daemon refused or failed a request.

    `index` is the index of the offending input, if any; `retry_after_ms` how many milliseconds to
    wait before a retry.
    """

    code: ClassVar[str] = "backend_failed"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, index: int | None = None, retry_after_ms: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.index = index
        self.retry_after_ms = retry_after_ms

    def to_map(self) -> dict[str, Any]:
        """Return the `error` map of a reply."""
        optional = {"index": self.index, "retry_after_ms": self.retry_after_ms}
        return {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            **{key: value for key, value in optional.items() if value is not None},
        }


class BadRequest(ReplyError):
    """The request is malformed, or asks for something impossible."""

    code = "bad_request"


class TooLarge(ReplyError):
    """The request exceeds one of the daemon's limits, or the capacity of its queue."""

    code = "too_large"


class UnknownModel(ReplyError):
    """The daemon does not serve the requested model."""

    code = "unknown_model"


class Overloaded(ReplyError):
    """The queue is full; no part of the request was accepted."""

    code = "overloaded"
    retryable = True


class DeadlineExceeded(ReplyError, TimeoutError):
    """The request's deadline has passed, or would pass before its completion."""

    code = "deadline_exceeded"


class Cancelled(ReplyError):
    """The request was cancelled over its own connection."""

    code = "cancelled"


class Draining(ReplyError):
    """The daemon is shutting down; its successor will answer the same request."""

    code = "draining"
    retryable = True


class BackendFailed(ReplyError):
    """The model raised an exception while computing the request."""

    code = "backend_failed"


class Forbidden(ReplyError):
    """The peer is not permitted to do this."""

    code = "forbidden"


class UnsupportedVersion(ReplyError):
    """Client and daemon have no protocol version in common."""

    code = "unsupported_version"


_BY_CODE: Mapping[str, type[ReplyError]] = {
    cls.code: cls
    for cls in (
        BadRequest, TooLarge, UnknownModel, Overloaded, DeadlineExceeded,
        Cancelled, Draining, BackendFailed, Forbidden, UnsupportedVersion,
    )
}  # fmt: skip


def error_from_map(error: Mapping[str, Any]) -> ReplyError:
    """Return the exception for the `error` map of a reply.

    An unknown code, as of a newer daemon, becomes a `ReplyError` with the code in its message.
    """
    code = str(error.get("code"))
    message = str(error.get("message", ""))
    cls = _BY_CODE.get(code, ReplyError)
    text = message if cls is not ReplyError else f"{code}: {message}"
    return cls(text, index=error.get("index"), retry_after_ms=error.get("retry_after_ms"))
