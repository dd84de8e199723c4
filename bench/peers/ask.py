"""Asks a server on loopback for a text's vector, on a connection that stays open."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import numpy as np

from bench.callers import Ask, Vector
from bench.peers.peer import PATH, Inputs

_TIMEOUT = 120.0
_FIELDS = {"Content-Type": "application/json"}
_OK = 200


@contextmanager
def connected(port: int, inputs: Inputs) -> Iterator[Ask]:
    """Yield what asks. It connects now, and again where the server has closed after a reply."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)) as connection:
        connection.connect()

        def ask(text: str) -> Vector:
            what = {"model": "model", "input": inputs(text), "encoding_format": "base64"}
            connection.request("POST", PATH, json.dumps(what), _FIELDS)
            reply = connection.getresponse()
            body = reply.read()
            if reply.status != _OK:
                raise RuntimeError(f"{reply.status} {reply.reason}: {body[:200]!r}")
            vector = json.loads(body)["data"][0]["embedding"]
            return np.frombuffer(base64.b64decode(vector), "<f4")

        yield ask
