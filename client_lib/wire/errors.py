"""What can go wrong, as exceptions; one class a code on the wire.

SidecarError
├── ProtocolError            the other side broke the protocol
│   └── FrameTooLarge        ... by a frame that is over the limit
├── ConnectionLost           no daemon could be reached
├── UntrustedDaemon          the daemon at the socket is another user's
├── UntrustedFolder          so is a folder, or what lies in it
├── ClientClosed             this client was closed
├── CallTimeout              no answer in time (seen by the caller's clock)
└── ReplyError               the daemon answered with an error
    ├── BadRequest           bad_request: the request itself is wrong
    ├── TooLarge             too_large: over a limit that the daemon states
    ├── UnknownModel         unknown_model
    ├── Overloaded           overloaded: come back after `retry_after_ms`
    ├── DeadlineExceeded     deadline_exceeded
    ├── Cancelled            cancelled
    ├── Draining             draining: the daemon is going away
    ├── BackendFailed        backend_failed: the model raised
    ├── Forbidden            forbidden
    └── UnsupportedVersion   unsupported_version
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class SidecarError(Exception):
    """Base of everything that this library raises on purpose.

    `request_id` is that of the call which raised it; with the process's id it is the
    `request_id` and `peer_pid` of the daemon's events.
    """

    request_id: int | None = None


class ProtocolError(SidecarError):
    """The other side sent bytes that are not this protocol; the connection is of no more use."""


class FrameTooLarge(ProtocolError):
    """The other side announced a frame that is longer than this side takes."""


class ClientClosed(SidecarError):
    """The client was closed, before the call or during it."""


class ConnectionLost(SidecarError, ConnectionError):
    """No daemon answered at the socket, or it went away and did not come back in time."""


class UntrustedDaemon(SidecarError, PermissionError):
    """The daemon is neither root's nor the client's own user's, nor that of the one named."""


class UntrustedFolder(SidecarError, PermissionError):
    """A folder that has to be this user's alone is not, or holds what another has put there."""


class CallTimeout(SidecarError, TimeoutError):
    """No answer arrived within the call's timeout."""


class ReplyError(SidecarError):
    """The daemon refused or failed a request.

    `index` names the offending input where there is one; `retry_after_ms` (milliseconds)
    says when to come back.
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
    """The request is malformed, or asks for what cannot be."""

    code = "bad_request"


class TooLarge(ReplyError):
    """The request is over a limit that the daemon states, or more than may ever wait."""

    code = "too_large"


class UnknownModel(ReplyError):
    """The daemon does not serve the model that was asked for."""

    code = "unknown_model"


class Overloaded(ReplyError):
    """The queue is full; nothing of the request was accepted."""

    code = "overloaded"
    retryable = True


class DeadlineExceeded(ReplyError, TimeoutError):
    """The request's time has passed, or would before it could be done."""

    code = "deadline_exceeded"


class Cancelled(ReplyError):
    """The request was cancelled by its own connection."""

    code = "cancelled"


class Draining(ReplyError):
    """The daemon is shutting down; the same request will be answered by the next one."""

    code = "draining"
    retryable = True


class BackendFailed(ReplyError):
    """The model raised while it computed this request."""

    code = "backend_failed"


class Forbidden(ReplyError):
    """This peer may not do that."""

    code = "forbidden"


class UnsupportedVersion(ReplyError):
    """The two sides share no version of the protocol."""

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

    A code from a newer daemon becomes a plain `ReplyError` that keeps what it says.
    """
    code = str(error.get("code"))
    message = str(error.get("message", ""))
    cls = _BY_CODE.get(code, ReplyError)
    text = message if cls is not ReplyError else f"{code}: {message}"
    return cls(text, index=error.get("index"), retry_after_ms=error.get("retry_after_ms"))
