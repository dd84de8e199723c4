"""What a caller is told of a failure that is not its own: whose it was, and of what kind.

The cause goes along for the daemon's events, which have its traceback.
"""

from client_lib.wire.errors import BackendFailed


def of_model(error: Exception, index: int) -> BackendFailed:
    """Return what is told of a text, by its index, whose forward raised `error`."""
    told = error.message if isinstance(error, BackendFailed) else f"the model raised {_kind(error)}"
    return _because(BackendFailed(told, index=index), error)


def of_daemon(error: Exception) -> BackendFailed:
    """Return what is told of a request at which the daemon's own code raised `error`."""
    return _because(BackendFailed(f"the daemon failed with {_kind(error)}"), error)


def of_inference(error: BaseException) -> BackendFailed:
    """Return what is told of the request that ended inference with `error`."""
    return _because(BackendFailed(f"inference has stopped: {_kind(error)}"), error)


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _because(failure: BackendFailed, cause: BaseException) -> BackendFailed:
    failure.__cause__ = cause
    return failure
