"""The errors with which the queue rejects a job. Pure."""

from client_lib.wire.errors import DeadlineExceeded, Overloaded, TooLarge
from sidecar.serving.scheduler.job import Usage
from sidecar.serving.scheduler.limits import LaneUsage


def refuse_too_large(load: Usage, most: Usage) -> None:
    """Raise `TooLarge` if `load` is more than a process may ever have waiting."""
    if load.rows > most.rows or load.tokens > most.tokens or load.bytes > most.bytes:
        raise TooLarge(
            f"the request has {load.rows} texts, {load.tokens} tokens and {load.bytes} bytes; one "
            f"process may queue {most.rows}, {most.tokens} and {most.bytes}: split the request"
        )


def refuse_over(most: float, seconds: float) -> None:
    """Raise `DeadlineExceeded` if a wait of `seconds` exceeds `most`."""
    if seconds > most:
        raise DeadlineExceeded(
            f"the estimated wait of {seconds:.3g} s exceeds the {most:.3g} s that the deadline "
            "allows"
        )


def overloaded(waiting: LaneUsage, seconds: float) -> Overloaded:
    """Return the error for a process that may retry in `seconds`."""
    wait_ms = max(1, round(1000 * seconds))
    held, of_user, own = waiting.in_all, waiting.of_user, waiting.of_process
    message = (
        f"no room in the queue: {held.rows} texts ({held.tokens} tokens) are waiting, "
        f"{of_user.rows} ({of_user.tokens}) from your user, "
        f"{own.rows} ({own.tokens}) from your process; retry in {wait_ms} ms"
    )
    return Overloaded(message, retry_after_ms=wait_ms)
