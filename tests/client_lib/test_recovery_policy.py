"""What a client decides after a failure, without a daemon and without delays."""

import errno
import math

import pytest

from client_lib import ConnectionLost, Draining, Overloaded, UntrustedDaemon
from client_lib.calls import Call
from client_lib.recovery import Recovery
from client_lib.wire.messages import Ping

TRANSIENT = [
    FileNotFoundError(errno.ENOENT, "No such file"),
    ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
]


@pytest.fixture
def call() -> Call:
    return Call(Ping(id=1), math.inf, math.inf)


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_a_transient_failure_to_connect_is_tried_again(call: Call, error: OSError) -> None:
    """A transient failure to connect is counted, kept as the cause, and retried after a pause."""
    recovery = Recovery("/s", retries=True)
    assert recovery.seconds_before_dial(call) == 0
    recovery.dial_failed(call, error)
    assert call.failures == 1
    assert recovery.cause is error
    assert recovery.seconds_before_dial(call) > 0
    assert str(error) in str(recovery.unreachable())


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_without_retries_a_transient_failure_is_raised(call: Call, error: OSError) -> None:
    """Without retries, a transient failure raises `ConnectionLost` with its cause."""
    with pytest.raises(ConnectionLost, match="no daemon answers at /s") as caught:
        Recovery("/s", retries=False).dial_failed(call, error)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("retries", [True, False])
def test_a_permanent_failure_to_connect_is_raised(call: Call, retries: bool) -> None:
    """A permanent failure to connect is raised without being counted."""
    recovery = Recovery("/s", retries)
    with pytest.raises(ConnectionLost, match="may not connect"):
        recovery.dial_failed(call, PermissionError(errno.EACCES, "Permission denied"))
    stranger = UntrustedDaemon("another user's")
    with pytest.raises(UntrustedDaemon) as caught:
        recovery.dial_failed(call, stranger)
    assert caught.value is stranger
    assert (call.failures, recovery.cause) == (0, None)


@pytest.mark.parametrize(
    ("cause", "raised"), [(Draining("going"), Draining), (ConnectionLost("gone"), ConnectionLost)]
)
def test_a_lost_connection_is_made_again_only_with_retries(
    call: Call, cause: Exception, raised: type[Exception]
) -> None:
    """Without retries, a lost connection raises `ConnectionLost`, or the daemon's `Draining`."""
    Recovery("/s", retries=True).connection_failed(call, cause)
    assert call.failures == 1
    with pytest.raises(raised) as caught:
        Recovery("/s", retries=False).connection_failed(call, cause)
    assert (caught.value is cause) == (raised is Draining)


def test_a_refused_call_waits_for_as_long_as_it_is_asked_to() -> None:
    """A refused call waits one to two times `retry_after_ms`, or fails without time or retries."""
    refusal = Overloaded("full", retry_after_ms=100)
    assert 0.1 <= Recovery("/s", retries=True).seconds_after_refusal(refusal, math.inf) <= 0.2
    for retries, left in ((True, 0.1), (False, math.inf)):
        with pytest.raises(Overloaded) as caught:
            Recovery("/s", retries).seconds_after_refusal(refusal, left)
        assert caught.value is refusal
