"""Runs steps so that none can end the examination, neither by an error nor by hanging."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from sidecar.operate.doctor.finding import Finding, error

T = TypeVar("T")


class Guard:
    """Runs each step with a timeout; one that fails becomes a finding in `failures`."""

    def __init__(self, seconds: float) -> None:
        self.failures: list[Finding] = []
        self._seconds = seconds

    def judge(self, check: str, step: Callable[[], Iterable[Finding]]) -> list[Finding]:
        """Return what `step` finds, or one finding that says how it failed."""
        earlier = len(self.failures)
        found = self.read(check, lambda: list(step()))
        return self.failures[earlier:] if found is None else found

    def read(self, check: str, step: Callable[..., T], *args: Any) -> T | None:
        """Return what `step` returns, or None if it fails or takes too long."""
        outcome: Future[T] = Future()
        # A daemon thread: a step that hangs, on a dead disk say, does not keep the process alive.
        threading.Thread(target=_settle, args=(outcome, step, *args), daemon=True).start()
        wait([outcome], self._seconds)
        if not outcome.done():
            found = f"not finished within {self._seconds:g} s"
            advice = "check whether a disk or a process hangs (`ps`: state D)"
            self.failures.append(error(check, found, advice))
            return None
        if failure := outcome.exception():
            what = " ".join(str(failure).split()) or "no message"
            found = f"the check failed: {type(failure).__name__}: {what}"
            self.failures.append(error(check, found, "the message says what prevented it"))
            return None
        return outcome.result()


def _settle(outcome: "Future[T]", step: Callable[..., T], *args: Any) -> None:
    try:
        outcome.set_result(step(*args))
    except BaseException as failure:  # noqa: BLE001 - a finding, whatever it is
        outcome.set_exception(failure)
