"""The calls that wait for one connection. Both clients share this; it does no I/O.

A call outlives its connection: it keeps its request, and whoever waits for it passes that to the
next connection. `Calls` belongs to one connection and maps ids to calls.
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
# 31 years, from which a timeout counts as unlimited; clocks and selectors overflow later.
_UNLIMITED = 1e9


def call_ids() -> Iterator[int]:
    """Yield ids for calls: 1, 3, 5, ... The id after each is reserved for the call's `cancel`."""
    return itertools.count(1, 2)


def seconds_of(timeout: object) -> float:
    """Return a caller's `timeout` in seconds: infinity for None, which means no limit.

    Raises `TypeError` for anything but a number, `ValueError` for one that is not above 0.
    """
    if timeout is None:
        return math.inf
    expected = "timeout must be a number of seconds above 0, or None for no limit"
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"{expected}; not {timeout!r:.80}")
    seconds = float(timeout)
    if not seconds > 0:  # rejects NaN, too
        raise ValueError(f"{expected}; not {timeout!r:.80}")
    return seconds if seconds < _UNLIMITED else math.inf


@dataclass(slots=True, eq=False)
class Call:
    """A request in flight. `deadline` is in seconds on its client's clock.

    Without a limit, both `deadline` and `timeout` are infinite.
    """

    request: Request
    deadline: float
    timeout: float
    failures: int = 0
    outcome: Mapping[str, Any] | SidecarError | None = None

    def result(self) -> Mapping[str, Any]:
        """Return the reply's body, or raise the call's error."""
        assert self.outcome is not None
        if isinstance(self.outcome, SidecarError):
            raise self.outcome
        return self.outcome

    def sign(self, error: SidecarError) -> None:
        """Add the request's id to `error` and its traceback, to match it to the daemon's events."""
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
    """Return `request` as a frame; its timeout is the `left` seconds until the deadline."""
    message = request_to_map(request)
    if isinstance(request, Embed | Rerank) and left < math.inf:
        message["timeout_ms"] = max(1, round(1000 * left))
    return encode(message)


C = TypeVar("C", bound=Call)


@dataclass(slots=True, eq=False)
class Calls(Generic[C]):
    """The calls that wait for one connection, and the limits of its daemon.

    Until the daemon has stated them, `limits` are those of the previous daemon.
    """

    limits: Limits = field(default_factory=Limits)
    _connection: ClientConnection = field(default_factory=ClientConnection)
    _pending: dict[int, C] = field(default_factory=dict)

    def greeting(self) -> bytes:
        """Return the connection's first frame; requests may follow without waiting for a reply."""
        return request_frame(Hello(id=HELLO_ID, version=VERSION, client="client_lib"))

    def add(self, call: C, left: float) -> bytes:
        """Register `call` with `left` seconds to go, and return the frame that requests it.

        Raises `TooLarge` for a frame that the daemon would reject.
        """
        frame = request_frame(call.request, left)
        size, limit = len(frame) - HEADER_BYTES, self.limits.max_frame_bytes
        if size > limit:
            raise TooLarge(f"the request has {size} bytes; the daemon accepts at most {limit}")
        call.outcome = None
        self._pending[call.id] = call
        return frame

    def cancel(self, call: C) -> bytes:
        """Forget `call`, and return the frame that cancels it in the daemon."""
        self._pending.pop(call.id, None)
        return request_frame(Cancel(id=call.cancel_id, target=call.id))

    def receive(self, data: bytes | memoryview) -> Iterator[C]:
        """Yield each call that `data` settles. Replies to unknown calls are ignored.

        Raises a `SidecarError` if the connection as a whole has failed.
        """
        for reply in self._connection.receive(data):
            if reply.id == HELLO_ID:
                self._greet(reply)
            elif call := self._pending.pop(reply.id, None):
                call.outcome = reply.error or reply.body
                yield call

    def drop_all(self, error: SidecarError) -> list[C]:
        """Settle every call with its own copy of `error`, since several threads may raise it."""
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
            raise UnsupportedVersion(
                f"the daemon speaks protocol version {version!r}, not {VERSION}"
            )
        try:
            self.limits = _limits(reply.body["limits"])
        except (KeyError, TypeError) as error:
            raise ProtocolError("the reply to hello does not state its limits") from error


def _limits(table: Mapping[str, Any]) -> Limits:
    stated = Limits(int(table["max_frame_bytes"]), int(table["max_inputs"]))
    # Older daemons do not state this limit.
    return replace(stated, max_text_bytes=int(table.get("max_text_bytes", stated.max_text_bytes)))
