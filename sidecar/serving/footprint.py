"""How much memory a peer's connection, frames and requests take, estimated from above. Pure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from client_lib.wire.messages import Cancel, Embed, Hello, Metrics, Ping, Request, Rerank, Status
from client_lib.wire.protocol import Limits
from sidecar.serving.ledger import Budget

CONNECTION_BYTES = 128 * 1024
"""Buffers, and frames that are so short that they need no hold of their own."""
LONG_FRAME_BYTES = 64 * 1024

# As bytes that arrive, as the frame that they are cut to, and as the texts that it is decoded to.
_COPIES_OF_A_FRAME = 4
# The text, and the text with its prompt.
_COPIES_OF_A_TEXT = 2
# What a tokenizer keeps of a character while it works on the text: offsets, words, tokens.
_TOKENIZING_BYTES = 64
_TOKEN_BYTES = 16  # its id and its type, int64 each
# Of a vector: as computed, put together with the others, and as a reply. No precision takes more:
# what is made on the way to a smaller one takes the place of what was computed.
_NUMBER_BYTES = 12
_ROW_BYTES = 1_024  # the objects of a row and its place in the queue
_REQUEST_BYTES = 8 * 1024  # its task
_STATUS_BYTES = 64 * 1024
# What is left of the memory is for more than peers: activations, a heap that is never quite full.
_PART_FOR_PEERS = 0.75


@dataclass(frozen=True, slots=True)
class Footprint:
    """Estimates for models of so many `dimensions` and `max_tokens`, at most."""

    dimensions: int
    max_tokens: int

    def of_request(self, request: Request) -> int:
        """Return what `request` takes until its reply has been taken, in bytes."""
        match request:
            case Embed():
                return self._of_texts(request.input, "")
            case Rerank():
                return self._of_texts(request.documents, request.query)
            case Status() | Metrics():
                return _STATUS_BYTES
            case Ping():
                return _REQUEST_BYTES
            case Hello() | Cancel():
                return 0  # never to be refused; there is room for them in the connection's

    def of_frame(self, size: int) -> int:
        """Return what a frame of `size` bytes takes until it is a request."""
        return _COPIES_OF_A_FRAME * size

    def of_largest(self, limits: Limits) -> int:
        """Return what a process needs to ask for as much as `limits` allow, on one connection."""
        texts = limits.max_inputs
        length = limits.max_frame_bytes // texts
        request = self._of_texts(["x" * length] * texts, "")
        return CONNECTION_BYTES + max(request, self.of_frame(limits.max_frame_bytes))

    def _of_texts(self, texts: Sequence[str], query: str) -> int:
        lengths = [len(text) for text in texts]
        tokens = sum(min(length + len(query), self.max_tokens) for length in lengths)
        own = sum(map(sys.getsizeof, texts)) + sys.getsizeof(query)
        rows = len(texts) * (_ROW_BYTES + _NUMBER_BYTES * self.dimensions)
        working = _TOKENIZING_BYTES * (max(lengths) + len(query))
        return _REQUEST_BYTES + _COPIES_OF_A_TEXT * own + rows + _TOKEN_BYTES * tokens + working


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What there is: a ceiling for the process, what it took without peers, all in bytes.

    `most` is as much as peers are given where there is plenty; one has `peer_share` of it.
    """

    ceiling: int
    taken: int
    most: int
    peer_share: float

    @property
    def left(self) -> int:
        """What peers may be given; below 0 where models alone are over the ceiling."""
        return min(int(_PART_FOR_PEERS * (self.ceiling - self.taken)), self.most)

    def budget(self, least: int) -> Budget:
        """Return what may be held: never less than `least`, in all and of one peer."""
        total = max(self.left, least)
        return Budget(total, max(int(self.peer_share * total), least))
