"""Frames that do not hold what their headers declare, or are never complete."""

import socket
from collections.abc import Mapping

from bench.attack.kinds.attack import Attack
from bench.attack.target import HELLO, LARGEST, Run, Target, ended, hold, over_and_over
from client_lib.wire.codec import encode
from client_lib.wire.frames import HEADER_BYTES

_PER_PROCESS = 15
_HALF = HELLO + LARGEST.to_bytes(HEADER_BYTES, "big") + b"\x84"


def _declared(length: int, body: bytes) -> bytes:
    return HELLO + length.to_bytes(HEADER_BYTES, "big") + body


def _lie(length: int, body: bytes) -> Run:
    def step(target: Target) -> None:
        with target.connected(_declared(length, body)) as sock:
            target.did()
            sock.shutdown(socket.SHUT_WR)
            ended(sock)

    return over_and_over(step)


def _nearly_whole(target: Target) -> None:
    """Send all but the last byte of a frame of 16 MiB."""
    with target.connected(_declared(LARGEST, b"")) as sock:
        target.did()
        sock.sendall(bytes(LARGEST - 1))
        ended(sock)


_PING = encode({"op": "ping", "id": 1})
ATTACKS: Mapping[str, Attack] = {
    "half frames": Attack("frames begun", hold(_PER_PROCESS, _HALF)),
    "half frames, 2 users": Attack("frames begun", hold(_PER_PROCESS, _HALF), users=2),
    "a byte a second": Attack("frames begun", hold(_PER_PROCESS, _HALF, drip=b"\x00")),
    "whole but for a byte": Attack("frames of 16 MiB", over_and_over(_nearly_whole)),
    "headers too short": Attack("frames", _lie(3, _PING * 500)),
    "headers too long": Attack("frames", _lie(len(_PING) + 1, _PING)),
}
