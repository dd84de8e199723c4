"""Upper estimates of the memory that a peer's connection, frames and requests take. Pure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from client_lib.wire.messages import Cancel, Embed, Hello, Metrics, Ping, Request, Rerank, Status
from client_lib.wire.protocol import Limits, ServerConnection
from sidecar.serving.admission.memory_budget import Quota

SHORT_READ_BYTES = 16 * 1024
"""The most to read at once from a connection while its next frame is unknown."""
LONG_READ_BYTES = 64 * 1024
"""The most to read at once of a long frame, into a buffer that all connections share."""
CONNECTION_BYTES = 96 * 1024
"""Its objects, two short reads, a frame no longer than these, and a reply not yet read."""

# A buffer that grows has an eighth to spare, so that it need not grow each time.
_GROWN = 1.125
# Room for a long frame is reserved in steps: this much at first, then doubling.
_FIRST_STEP_BYTES = 256 * 1024
# The text itself, and the text with its prompt.
_COPIES_OF_A_TEXT = 2
# What a tokenizer keeps per character while it works on a text: offsets, words, tokens.
_TOKENIZING_BYTES = 64
_TOKEN_BYTES = 16  # id and type, int64 each
# Per dimension of a vector: as computed, as assembled, and in the reply. No precision takes more:
# the intermediate of a smaller one replaces what was computed.
_NUMBER_BYTES = 12
_ROW_BYTES = 1_024  # the objects of a row and its place in the queue
_REQUEST_BYTES = 8 * 1024  # its task
_STATUS_BYTES = 64 * 1024
# The rest of the free memory is for activations, and a heap that is never quite full.
_PART_FOR_PEERS = 0.75
_PART_FOR_CONTROL = 0.25
_LEAST_CONTROL_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class MemoryEstimator:
    """Estimates for models with at most this many `dimensions` and `max_tokens`."""

    dimensions: int
    max_tokens: int

    def of_request(self, request: Request) -> int:
        """Return the bytes that `request` takes until its reply has been read."""
        match request:
            case Embed():
                return self._of_texts(request.input, "")
            case Rerank():
                return self._of_texts(request.documents, request.query)
            case Status() | Metrics():
                return _STATUS_BYTES
            case Hello() | Ping() | Cancel():
                return 0  # answered at once, from what the connection has reserved

    def needs(self, limits: Limits) -> "MemoryNeeds":
        """Return what it takes to serve a single request as large as `limits` allow."""
        texts = limits.max_inputs
        length = limits.max_frame_bytes // texts
        request = self._of_texts(["x" * length] * texts, "")
        return MemoryNeeds(
            request=max(request, of_arriving(limits.max_frame_bytes)),
            decoding=ServerConnection(limits).most_decoding(limits.max_frame_bytes),
        )

    def _of_texts(self, texts: Sequence[str], query: str) -> int:
        lengths = [len(text) for text in texts]
        tokens = sum(min(length + len(query), self.max_tokens) for length in lengths)
        own = sum(map(sys.getsizeof, texts)) + sys.getsizeof(query)
        rows = len(texts) * (_ROW_BYTES + _NUMBER_BYTES * self.dimensions)
        working = _TOKENIZING_BYTES * (max(lengths) + len(query))
        return _REQUEST_BYTES + _COPIES_OF_A_TEXT * own + rows + _TOKEN_BYTES * tokens + working


def of_arriving(size: int) -> int:
    """Return the bytes that a frame holds once `size` bytes of it have arrived."""
    return int(_GROWN * size) + 64


def step_of_arriving(held: int, size: int, whole: int) -> int:
    """Return how much more to reserve before `size` of a frame's `whole` bytes have arrived."""
    need = of_arriving(size) - held
    if need <= 0:
        return 0
    return min(max(need, held, _FIRST_STEP_BYTES), of_arriving(whole) - held)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """The least that there must be room for, in bytes, however little memory there is.

    `request`: the largest request, and a frame while it arrives. `decoding`: the largest frame
    while it is decoded.
    """

    request: int
    decoding: int

    @property
    def all(self) -> int:
        """The total, with connections and requests about the daemon itself."""
        return self.request + self.decoding + _LEAST_CONTROL_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What may be held for which purpose.

    `requests` includes the frames that arrive for them; `decoding` is for frames while they are
    decoded; `control` is for connections and requests about the daemon itself. The latter two are
    separate, so that a peer that exhausts the first can still query the daemon's status, and a
    frame that has arrived completely can become a request.
    """

    requests: Quota
    decoding: Quota
    control: Quota


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableMemory:
    """A process's `ceiling` and what it had `taken` without peers, all in bytes.

    `most` caps the budget for requests; a process may have `peer_share` of its user's share of
    it.
    """

    ceiling: int
    taken: int
    most: int
    peer_share: float

    @property
    def left(self) -> int:
        """What peers may be given; negative if the models alone exceed the ceiling."""
        return int(_PART_FOR_PEERS * (self.ceiling - self.taken))

    def budgets(self, needs: MemoryNeeds) -> Quotas:
        """Return the quotas, never less than `needs`."""
        control = max(int(_PART_FOR_CONTROL * min(self.left, self.most)), _LEAST_CONTROL_BYTES)
        left = self.left - needs.decoding - control
        requests = max(min(left, self.most), needs.request)
        return Quotas(
            requests=Quota(total=requests, part=self.peer_share, least=needs.request),
            decoding=Quota(total=needs.decoding, part=1.0, least=needs.decoding),
            control=Quota(total=control, part=1.0),
        )
