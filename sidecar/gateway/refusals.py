"""Error answers, in the format of OpenAI's API."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
from starlette.responses import Response

from client_lib import (
    BackendFailed,
    BadRequest,
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    Forbidden,
    FrameTooLarge,
    Overloaded,
    ReplyError,
    SidecarError,
    TooLarge,
    UnknownModel,
    UntrustedDaemon,
)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_STATUS: Mapping[type[SidecarError], tuple[int, str]] = {
    BadRequest: (400, BadRequest.code),
    Forbidden: (403, Forbidden.code),
    UnknownModel: (404, UnknownModel.code),
    TooLarge: (413, TooLarge.code),
    FrameTooLarge: (413, TooLarge.code),
    Overloaded: (429, Overloaded.code),
    BackendFailed: (500, BackendFailed.code),
    Draining: (503, Draining.code),
    ConnectionLost: (503, "connection_lost"),
    UntrustedDaemon: (503, "untrusted_daemon"),
    ClientClosed: (503, Draining.code),
    DeadlineExceeded: (504, DeadlineExceeded.code),
    CallTimeout: (504, DeadlineExceeded.code),
}
_OTHER = (500, BackendFailed.code)


class Refusal(Exception):
    """An error answer to a request; `param` names the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers

    def response(self) -> Response:
        """Return the HTTP response: `{"error": {message, type, param, code}}`."""
        other = "invalid_request_error" if self.status < 500 else "server_error"  # noqa: PLR2004
        error = {
            "message": self.message,
            "type": _TYPES.get(self.status, other),
            "param": self.param,
            "code": self.code,
        }
        content = msgspec.json.encode({"error": error})
        return Response(content, self.status, self.headers, "application/json")


@contextmanager
def told(texts: str = "") -> Iterator[None]:
    """Raise any `SidecarError` of the block as a `Refusal`.

    `texts` is the name of the request field that holds the texts.
    """
    try:
        yield
    except SidecarError as error:
        raise refusal_of(error, texts) from error


def refusal_of(error: SidecarError, texts: str = "") -> Refusal:
    """Return the HTTP answer for `error`; `texts` is as for `told`."""
    status, code = _STATUS.get(type(error), _OTHER)
    return Refusal(
        status, str(error), code=code, param=_param(error, texts), headers=_retry_after(error)
    )


def _param(error: SidecarError, texts: str) -> str | None:
    if isinstance(error, UnknownModel):
        return "model"
    if isinstance(error, ReplyError) and error.index is not None:
        return f"{texts}[{error.index}]"
    return None


def _retry_after(error: SidecarError) -> dict[str, str]:
    if not isinstance(error, Overloaded):
        return {}
    # The header takes whole seconds only.
    return {"retry-after": str(max(1, math.ceil((error.retry_after_ms or 0) / 1000)))}
