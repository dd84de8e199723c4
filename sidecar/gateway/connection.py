"""A caller's connection: uvicorn's HTTP protocol with a timeout on every wait.

uvicorn only bounds idle time. An unfinished header, the rest of a refused body or an unread answer
would hold a connection for ever.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.gateway.door import Door
from sidecar.gateway.incoming import HEADER_BYTES
from sidecar.gateway.notices import Notices
from sidecar.gateway.refusals import Refusal
from sidecar.gateway.sending import TAKE_SECONDS

IDLE_SECONDS = 60
"""Keep-alive time of a connection: longer than that of most clients' pools."""

_CAN_ANSWER = (h11.IDLE, h11.SEND_RESPONSE)


class Connection(H11Protocol):
    """One connection, counted by `door`; a request's header must arrive in `header_seconds`."""

    def __init__(
        self, door: Door, notices: Notices, header_seconds: float, **by_uvicorn: Any
    ) -> None:
        super().__init__(**by_uvicorn)
        self._door = door
        self._notices = notices
        self._header_seconds = header_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False

    @property
    def address(self) -> str | None:
        """The peer's IP address; None over a Unix socket."""
        return self.client[0] if self.client else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, if the door admits the connection."""
        super().connection_made(transport)
        leaving = self._door.enter(self)
        if isinstance(leaving, Connection):
            leaving.turn_away()
        if leaving is not self:
            self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place."""
        self._stop_waiting()
        self._door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and update the timers if a request has begun."""
        super().data_received(data)
        if self._is_busy:
            self._mark_busy()
        elif self._idle:
            self._idle = False
            self._expect_header()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one's body."""
        self._idle = True
        self._door.mark_idle(self)
        # uvicorn closes an idle connection a little earlier; this catches those that it does not.
        self._wait(IDLE_SECONDS + self._header_seconds, None)
        super().on_response_complete()
        if self._is_busy:  # the next request had already arrived
            self._mark_busy()

    def pause_writing(self) -> None:
        """Give the caller `TAKE_SECONDS` to read what was written."""
        super().pause_writing()
        self._wait(TAKE_SECONDS, "an answer was not read in time")

    def resume_writing(self) -> None:
        """Stop the timer that `pause_writing` started."""
        super().resume_writing()
        if self._is_busy:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        """Refuse unparsable input in the format of all refusals."""
        self._idle = False  # something has arrived
        message = f"not an HTTP request, or its header is longer than {HEADER_BYTES} bytes"
        self._refuse(Refusal(400, message, code="bad_request"))

    def turn_away(self) -> None:
        """Close the connection because the door is full or gave its place to another."""
        self._notices.turned_away("too many connections")
        message = "too many open connections: try again later, or raise --max-connections"
        self._refuse(Refusal(503, message, code="overloaded"))

    @property
    def _is_busy(self) -> bool:
        """Whether a request is being read or answered."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete

    def _mark_busy(self) -> None:
        self._idle = False
        self._door.mark_busy(self)
        if not self.flow.write_paused:
            self._stop_waiting()

    def _expect_header(self) -> None:
        self._door.expect(self)
        self._wait(self._header_seconds, "a request's header did not arrive in time")

    def _wait(self, seconds: float, reason: str | None) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up, reason)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, reason: str | None) -> None:
        if reason is not None:
            self._notices.turned_away(reason)
        message = f"the request's header was incomplete after {self._header_seconds:g} s"
        self._refuse(Refusal(408, message, code="request_timeout"))
        self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Close the connection, sending `refusal` first if an answer is still possible."""
        if self.conn.our_state in _CAN_ANSWER and not self._idle:
            self._send(refusal)
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.close()
        self._wait(TAKE_SECONDS, None)

    def _send(self, refusal: Refusal) -> None:
        response = refusal.response()
        headers = [*response.raw_headers, (b"connection", b"close")]
        events = (
            h11.Response(status_code=response.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
