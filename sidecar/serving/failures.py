"""Errors for failures that are not the caller's: what failed, and the type of the exception.

The exception itself is attached as the cause, so that the daemon's events have its traceback.
"""

from client_lib.wire.errors import BackendFailed


def of_model(error: Exception, index: int) -> BackendFailed:
    """Return the error for the text at `index`, whose forward raised `error`."""
    message = (
        error.message if isinstance(error, BackendFailed) else f"the model raised {_kind(error)}"
    )
    return _because(BackendFailed(message, index=index), error)


def of_daemon(error: Exception) -> BackendFailed:
    """Return the error for a request during which the daemon's own code raised `error`."""
    return _because(BackendFailed(f"the daemon failed with {_kind(error)}"), error)


def of_inference(error: BaseException) -> BackendFailed:
    """Return the error for the request whose `error` ended inference."""
    return _because(BackendFailed(f"inference has stopped: {_kind(error)}"), error)


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _because(failure: BackendFailed, cause: BaseException) -> BackendFailed:
    failure.__cause__ = cause
    return failure
