"""Requests that are well formed and cost the daemon more than they cost their sender."""

import itertools
from collections.abc import Mapping
from typing import Any

from bench.attack.kinds.attack import Attack
from bench.attack.target import Run, Target, flood
from client_lib.wire.codec import encode


def _flood_of(**fields: Any) -> Run:
    return flood(lambda _, number: encode({"id": number, **fields}))


def _turns(*requests: Mapping[str, Any]) -> Run:
    """Return a flood of `requests` in turn."""
    turn = itertools.cycle(requests)
    return flood(lambda _, number: encode({"id": number, **next(turn)}))


def _cancelled(target: Target, number: int) -> bytes:
    """An embed, and in the same breath its end."""
    if number % 2:
        texts = [f"{target.chance.random()}" for _ in range(8)]
        return encode({"op": "embed", "id": number, "input": texts})
    return encode({"op": "cancel", "id": number, "target": number - 1})


def _failing(**fields: Any) -> Run:
    return _flood_of(op="embed", **{"input": ["a"], **fields})


_TOO_MANY = ["a"] * 3_000
# Beside what is refused at once: a hundred of those in a row would end the connection.
_PING = {"op": "ping"}
ATTACKS: Mapping[str, Attack] = {
    "unknown model": Attack("requests", _failing(model="none such")),
    "unknown prompt": Attack("requests", _failing(prompt_name="none such")),
    "too many dimensions": Attack("requests", _failing(dimensions=10**6)),
    "too many texts": Attack("requests", _turns({"op": "embed", "input": _TOO_MANY}, _PING)),
    "no time": Attack("requests", _failing(timeout_ms=1)),
    "cancelled at once": Attack("requests", flood(_cancelled), computes=True),
    "cancels of nothing": Attack("requests", _flood_of(op="cancel", target=2**40)),
    "pings": Attack("requests", _flood_of(op="ping")),
    "status": Attack("requests", _flood_of(op="status")),
    "metrics": Attack("requests", _flood_of(op="metrics")),
    "hello again and again": Attack("requests", _turns({"op": "hello", "version": 1}, _PING)),
    "unknown ops": Attack("requests", _turns({"op": "none such"}, _PING)),
}  # fmt: skip
