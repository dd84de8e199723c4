"""Peers that ask and do not take the answer, or close half of their socket."""

import select
import socket
from collections.abc import Mapping
from contextlib import suppress

from bench.attack.kinds.attack import Attack
from bench.attack.target import HELLO, Step, Target, hold, over_and_over
from client_lib.wire.codec import encode

_SHORT = encode({"op": "embed", "id": 1, "input": ["a"] * 2_000})  # 2 000 vectors of one text
_PINGS = b"".join(encode({"op": "ping", "id": i}) for i in range(2, 5_000))
_STATUS = b"".join(encode({"op": "status", "id": i}) for i in range(5_000, 5_200))


def _never_reads(target: Target) -> None:
    with target.connected(HELLO + _SHORT) as sock:
        target.did()
        with suppress(TimeoutError):
            sock.sendall(_PINGS + _STATUS)
        _until_hung_up(sock)


def _half_closed(how: int) -> Step:
    def step(target: Target) -> None:
        with target.connected(HELLO + _SHORT) as sock:
            sock.shutdown(how)
            target.did()
            _until_hung_up(sock)

    return step


def _until_hung_up(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, 0)
    poll.poll(60_000)


ATTACKS: Mapping[str, Attack] = {
    "large replies never read": Attack("connections", hold(60, HELLO + _SHORT), computes=True),
    "small replies never read": Attack(
        "connections", over_and_over(_never_reads), processes=16, computes=True
    ),
    "closed for writing": Attack(
        "connections", over_and_over(_half_closed(socket.SHUT_WR)), computes=True
    ),
    "closed for reading": Attack(
        "connections", over_and_over(_half_closed(socket.SHUT_RD)), computes=True
    ),
}
