"""What the queue says to whom it refuses. Pure."""

from client_lib.wire.errors import DeadlineExceeded, Overloaded, TooLarge
from sidecar.serving.scheduler.job import Usage
from sidecar.serving.scheduler.limits import LaneUsage


def refuse_too_large(load: Usage, most: Usage) -> None:
    """Raise `TooLarge` where `load` is more than a process may ever have waiting."""
    if load.rows > most.rows or load.tokens > most.tokens or load.bytes > most.bytes:
        raise TooLarge(
            f"{load.rows} texts of {load.tokens} tokens and {load.bytes} bytes in one request; "
            f"the queue holds {most.rows}, {most.tokens} and {most.bytes} of a process: split it"
        )


def refuse_over(most: float, seconds: float) -> None:
    """Raise `DeadlineExceeded` where something takes `seconds`, and `most` is less."""
    if seconds > most:
        raise DeadlineExceeded(f"it would take {seconds:.3g} s; there are {most:.3g} s for it")


def overloaded(waiting: LaneUsage, seconds: float) -> Overloaded:
    """Return the refusal of a process that may come back in `seconds`."""
    wait_ms = max(1, round(1000 * seconds))
    held, of_user, own = waiting.in_all, waiting.of_user, waiting.of_process
    message = (
        f"{held.rows} texts of {held.tokens} tokens are waiting, "
        f"{of_user.rows} of {of_user.tokens} of them your user's, "
        f"{own.rows} of {own.tokens} of them yours; retry in {wait_ms} ms"
    )
    return Overloaded(message, retry_after_ms=wait_ms)
