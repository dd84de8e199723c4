"""The protocol without I/O: bytes in, requests out; replies in, bytes out.

One small state machine per side. Neither touches a socket or a clock, so that asyncio, threads and
tests share the code.

    daemon    EXPECT_HELLO ── hello ──▶ OPEN ── fatal error ──▶ CLOSED
    client    replies are matched by id; an error without an id is fatal
"""

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

from client_lib.wire.codec import FrameDecoder, encode
from client_lib.wire.errors import (
    BadRequest,
    FrameTooLarge,
    ProtocolError,
    ReplyError,
    TooLarge,
    UnsupportedVersion,
    error_from_map,
)
from client_lib.wire.incoming import RequestDecoder
from client_lib.wire.messages import Hello, Request, is_id, parse_request, request_to_map
from client_lib.wire.walk import Shape

VERSION = 1
# A request is a map of a dozen fields, one of them a list; this leaves room for fields of newer
# clients.
_KEYS = 1_024
_CONTAINERS = 16
_LISTS_READ = 8
# A client that sends only invalid requests does not stop on its own.
_REFUSED_IN_A_ROW = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on one request; the daemon announces them in its reply to `hello`.

    `max_text_bytes` limits each text, in bytes of UTF-8.
    """

    max_frame_bytes: int = 16 * 2**20
    max_inputs: int = 2_048
    max_text_bytes: int = 2**20

    def shape(self) -> Shape:
        """Return the decoder's limits, loose enough that oversized lists get a precise error."""
        longest = _LISTS_READ * self.max_inputs
        values = longest + 4 * _KEYS
        return Shape(_KEYS, _CONTAINERS, values, longest, self.max_text_bytes)


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused frame. `id` is None if it had no valid one; `fatal` ends the connection."""

    id: int | None
    error: ReplyError
    fatal: bool


Received: TypeAlias = Request | Refused


class _State(Enum):
    EXPECT_HELLO = auto()
    OPEN = auto()
    CLOSED = auto()


class ServerConnection:
    """The daemon's end of one connection."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._decoder = RequestDecoder(limits.max_frame_bytes, limits.shape())
        self._state = _State.EXPECT_HELLO
        self._open_ids: set[int] = set()
        self._refused = 0  # in a row

    def feed(self, data: bytes | memoryview) -> None:
        """Buffer `data`, for `take` to decode once a frame is `whole`."""
        self._decoder.feed(data)

    def take(self) -> Iterator[Received | None]:
        """Decode the next complete frame: yield None after each step, and finally the result.

        A step takes at most a millisecond or two, for any frame. After a fatal `Refused`, close the
        connection.
        """
        try:
            # Bind no name to the message: it would stay alive while the consumer is busy.
            yield self._judge((yield from self._decoder.take()))
        except FrameTooLarge as error:
            refusal: ReplyError = TooLarge(str(error))
        except ProtocolError as error:
            refusal = BadRequest(str(error))
        else:
            return
        # Outside the handler: the traceback keeps the frame alive.
        yield self._fatal(None, refusal)

    def receive(self, data: bytes | memoryview) -> Iterator[Received]:
        """Yield the requests that `data` completes, decoding each in one go."""
        self.feed(data)
        while self.whole is not None:
            yield next(received for received in self.take() if received is not None)

    @property
    def whole(self) -> int | None:
        """Length of the next complete body; None if it is incomplete or the connection closed.

        0 if it is too long; it will be refused.
        """
        return None if self.is_closed else self._decoder.whole

    @property
    def is_closed(self) -> bool:
        """Whether a fatal `Refused` has ended the connection."""
        return self._state is _State.CLOSED

    @property
    def awaited(self) -> str | None:
        """What the peer must send soon, for messages; None if it may stay idle."""
        if self._state is _State.EXPECT_HELLO:
            return "hello"
        return "the rest of a frame" if self._decoder.buffered else None

    @property
    def buffered(self) -> int:
        """Bytes buffered of frames that have not been taken."""
        return self._decoder.buffered

    @property
    def missing(self) -> int:
        """Bytes of the current frame that have not arrived; 0 if its length is unknown."""
        return self._decoder.missing

    def most_decoding(self, length: int) -> int:
        """Return an upper bound in bytes on the memory that decoding `length` bytes takes."""
        return self._decoder.most_decoding(length)

    def reply(self, request_id: int, **body: Any) -> bytes:
        """Return the frame that answers `request_id`."""
        self._open_ids.discard(request_id)
        return encode({"id": request_id, "ok": True, **body})

    def fail(self, request_id: int | None, error: ReplyError) -> bytes:
        """Return the frame that fails `request_id`, or the whole connection if it is None."""
        if request_id is not None:
            self._open_ids.discard(request_id)
        return failure(request_id, error)

    def _judge(self, message: Mapping[str, Any]) -> Received:
        request_id = message.get("id")
        # 1. A frame without a unique id cannot be answered.
        if not is_id(request_id):
            return self._fatal(None, BadRequest("field 'id' must be an integer from 0 to 2^63-1"))
        assert isinstance(request_id, int)
        if request_id in self._open_ids:
            return self._fatal(None, BadRequest(f"id {request_id} is still in flight"))
        # 2. It can be answered; is it valid?
        try:
            request = parse_request(message)
            self._check_size(request)
        except ReplyError as error:
            fatal = self._state is _State.EXPECT_HELLO
            return self._fatal(request_id, error) if fatal else self._refuse(request_id, error)
        # 3. It is valid; is it allowed in this state?
        return self._in_turn(request)

    def _in_turn(self, request: Request) -> Received:
        if self._state is _State.EXPECT_HELLO:
            if not isinstance(request, Hello):
                return self._fatal(request.id, BadRequest("the first frame must be hello"))
            if request.version != VERSION:
                message = f"version {request.version} is not supported; only {VERSION} is"
                return self._fatal(request.id, UnsupportedVersion(message))
            self._state = _State.OPEN
        elif isinstance(request, Hello):
            return self._refuse(request.id, BadRequest("hello was already sent"))
        self._open_ids.add(request.id)
        self._refused = 0
        return request

    def _check_size(self, request: Request) -> None:
        texts: Sized = getattr(request, "input", ()) or getattr(request, "documents", ())
        if len(texts) > self._limits.max_inputs:
            message = f"{len(texts)} texts in one request; the limit is {self._limits.max_inputs}"
            raise TooLarge(message)

    def _refuse(self, request_id: int, error: ReplyError) -> Refused:
        self._refused += 1
        if self._refused < _REFUSED_IN_A_ROW:
            return Refused(request_id, error, False)
        message = f"{self._refused} frames in a row were refused; the last one: {error.message}"
        return self._fatal(request_id, BadRequest(message))

    def _fatal(self, request_id: int | None, error: ReplyError) -> Refused:
        self._state = _State.CLOSED
        return Refused(request_id, error, True)


def failure(request_id: int | None, error: ReplyError) -> bytes:
    """Return the frame that fails `request_id`, or the whole connection if it is None."""
    return encode({"id": request_id, "ok": False, "error": error.to_map()})


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as the client sees it; `error` is None if it succeeded."""

    id: int
    body: Mapping[str, Any]
    error: ReplyError | None


class ClientConnection:
    """The client's end of one connection. Replies may arrive in any order.

    The daemon is trusted with the size of its replies; `max_frame_bytes` only keeps garbage from
    being read as a length.
    """

    def __init__(self, max_frame_bytes: int = 2**30) -> None:
        self._decoder = FrameDecoder(max_frame_bytes)

    def send(self, request: Request) -> bytes:
        """Return `request` as a frame."""
        return encode(request_to_map(request))

    def receive(self, data: bytes | memoryview) -> Iterator[Reply]:
        """Yield the replies that `data` completes.

        Raises the daemon's error if it fails the whole connection, and `ProtocolError` if the bytes
        are not this protocol.
        """
        for message in self._decoder.feed(data):
            error = message.get("error")
            told = error_from_map(error) if isinstance(error, dict) else None
            request_id = message.get("id")
            if request_id is None and told is not None:
                raise told
            if not is_id(request_id) or (told is None) is not (message.get("ok") is True):
                raise ProtocolError("a reply is neither a result nor an error")
            yield Reply(int(message["id"]), message, told)
