"""Connections, as many as there can be: held, opened and dropped, or piled up in the backlog."""

from collections.abc import Mapping

from bench.attack.kinds.attack import Attack
from bench.attack.target import HELLO, Target, hold, over_and_over

_PROCESSES = 17  # x 62: over the 1024 descriptors that a process has by default
_PER_PROCESS = 62  # under the 64 connections that a process may have by default
_BACKLOG = 1_500


def _churn(target: Target) -> None:
    with target.connected(b""):
        target.did()


ATTACKS: Mapping[str, Attack] = {
    "idle, before hello": Attack("connections", hold(_PER_PROCESS, b""), processes=_PROCESSES),
    "idle, after hello": Attack("connections", hold(_PER_PROCESS, HELLO), processes=_PROCESSES),
    "idle, 2 users": Attack(
        "connections", hold(_PER_PROCESS, HELLO), users=2, processes=_PROCESSES
    ),
    "connect and close": Attack("connections", over_and_over(_churn)),
    "backlog": Attack("connections", hold(_BACKLOG, b""), processes=3),
}
