"""What one connection was asked and has not answered; both clients share this, without I/O.

A call outlives its connection: it keeps its request, and whoever waits for it hands that to the
next connection. `Calls` belongs to one connection and is the table id → call.
"""

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Generic, TypeVar

from client_lib.wire.codec import encode
from client_lib.wire.errors import (
    ProtocolError,
    SidecarError,
    TooLarge,
    UnsupportedVersion,
)
from client_lib.wire.frames import HEADER_BYTES
from client_lib.wire.messages import Cancel, Embed, Hello, Request, Rerank, request_to_map
from client_lib.wire.protocol import VERSION, ClientConnection, Limits, Reply

HELLO_ID = 0
# Whoever waits so long waits without a limit, 31 years; clocks and selectors overflow later.
_FOR_EVER = 1e9


def call_ids() -> Iterator[int]:
    """Yield ids for calls: 1, 3, 5, ... The id after each is kept for the call's `cancel`."""
    return itertools.count(1, 2)


def seconds_of(timeout: object) -> float:
    """Return a caller's `timeout` in seconds: infinite for None, which is no limit.

    Raises `TypeError` for what is no number, `ValueError` for one that is not above 0.
    """
    if timeout is None:
        return math.inf
    expected = "timeout must be a number of seconds above 0, or None for no limit"
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"{expected}; not {timeout!r:.80}")
    seconds = float(timeout)
    if not seconds > 0:  # NaN is not, either
        raise ValueError(f"{expected}; not {timeout!r:.80}")
    return seconds if seconds < _FOR_EVER else math.inf


@dataclass(slots=True, eq=False)
class Call:
    """One request on its way. `deadline` is in seconds of the clock that its client uses.

    It is infinite for a call without a limit, as `timeout` is.
    """

    request: Request
    deadline: float
    timeout: float
    failures: int = 0
    outcome: Mapping[str, Any] | SidecarError | None = None

    def result(self) -> Mapping[str, Any]:
        """Return the reply's body, or raise what the call came to."""
        assert self.outcome is not None
        if isinstance(self.outcome, SidecarError):
            raise self.outcome
        return self.outcome

    def sign(self, error: SidecarError) -> None:
        """Have `error`, and its traceback, say which request it was, as the daemon's events do."""
        error.request_id = self.id
        error.add_note(f"sidecar request {self.id} of process {os.getpid()}")

    @property
    def id(self) -> int:
        """The request's id."""
        return self.request.id

    @property
    def cancel_id(self) -> int:
        """The id of the request that cancels this one."""
        return self.id + 1


def request_frame(request: Request, left: float = math.inf) -> bytes:
    """Return `request` as a frame; the daemon is told that there are `left` seconds for it."""
    message = request_to_map(request)
    if isinstance(request, Embed | Rerank) and left < math.inf:
        message["timeout_ms"] = max(1, round(1000 * left))
    return encode(message)


C = TypeVar("C", bound=Call)


@dataclass(slots=True, eq=False)
class Calls(Generic[C]):
    """The calls that wait for one connection, and the limits that its daemon states.

    `limits` are those of the daemon before, until this one has stated its own.
    """

    limits: Limits = field(default_factory=Limits)
    _connection: ClientConnection = field(default_factory=ClientConnection)
    _pending: dict[int, C] = field(default_factory=dict)

    def greeting(self) -> bytes:
        """Return the first frame of the connection; requests may follow without waiting."""
        return request_frame(Hello(id=HELLO_ID, version=VERSION, client="client_lib"))

    def add(self, call: C, left: float) -> bytes:
        """Wait `left` seconds for `call`'s reply; return the frame that asks for it.

        Raises `TooLarge` for a frame that would be refused.
        """
        frame = request_frame(call.request, left)
        size, limit = len(frame) - HEADER_BYTES, self.limits.max_frame_bytes
        if size > limit:
            raise TooLarge(f"a request of {size} bytes; the daemon takes {limit} at most")
        call.outcome = None
        self._pending[call.id] = call
        return frame

    def cancel(self, call: C) -> bytes:
        """Forget `call`; return the frame that tells the daemon so."""
        self._pending.pop(call.id, None)
        return request_frame(Cancel(id=call.cancel_id, target=call.id))

    def receive(self, data: bytes | memoryview) -> Iterator[C]:
        """Yield each call that `data` settles. A reply to what is not pending is ignored.

        Raises a `SidecarError` where the whole connection has failed.
        """
        for reply in self._connection.receive(data):
            if reply.id == HELLO_ID:
                self._greet(reply)
            elif call := self._pending.pop(reply.id, None):
                call.outcome = reply.error or reply.body
                yield call

    def drop_all(self, error: SidecarError) -> list[C]:
        """Settle every call with `error`, a copy each: several threads may raise it."""
        dropped = list(self._pending.values())
        self._pending.clear()
        for call in dropped:
            call.outcome = copy(error)
        return dropped

    def __len__(self) -> int:
        return len(self._pending)

    def _greet(self, reply: Reply) -> None:
        if reply.error is not None:
            raise reply.error
        if (version := reply.body.get("version")) != VERSION:
            raise UnsupportedVersion(f"the daemon speaks version {version!r}, not {VERSION}")
        try:
            self.limits = _limits(reply.body["limits"])
        except (KeyError, TypeError) as error:
            raise ProtocolError("the reply to hello does not state its limits") from error


def _limits(table: Mapping[str, Any]) -> Limits:
    stated = Limits(int(table["max_frame_bytes"]), int(table["max_inputs"]))
    # A daemon from before there was this one does not state it.
    return replace(stated, max_text_bytes=int(table.get("max_text_bytes", stated.max_text_bytes)))
