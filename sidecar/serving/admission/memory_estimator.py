"""How much memory a peer's connection, frames and requests take, estimated from above. Pure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from client_lib.wire.messages import Cancel, Embed, Hello, Metrics, Ping, Request, Rerank, Status
from client_lib.wire.protocol import Limits, ServerConnection
from sidecar.serving.admission.memory_budget import Quota

SHORT_READ_BYTES = 16 * 1024
"""The most that is read at once from a connection while its next frame is unknown."""
LONG_READ_BYTES = 64 * 1024
"""The most that is read at once of a long frame, into a buffer that all connections share."""
CONNECTION_BYTES = 96 * 1024
"""Its objects, two short reads, a frame that is no longer than these, a reply not taken yet."""

# A buffer that grows has room for an eighth more, so that it need not grow each time.
_GROWN = 1.125
# A long frame's room is got in steps: the first of so many bytes, then as much as there is.
_FIRST_STEP_BYTES = 256 * 1024
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
_PART_FOR_CONTROL = 0.25
_LEAST_CONTROL_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class MemoryEstimator:
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
            case Hello() | Ping() | Cancel():
                return 0  # answered at once, with what the connection holds

    def needs(self, limits: Limits) -> "MemoryNeeds":
        """Return what it takes to ask for as much as `limits` allow, once."""
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
    """Return what is held of a frame of which `size` bytes have arrived."""
    return int(_GROWN * size) + 64


def step_of_arriving(held: int, size: int, whole: int) -> int:
    """Return how much more to hold before `size` bytes of a frame have arrived, of `whole`."""
    need = of_arriving(size) - held
    if need <= 0:
        return 0
    return min(max(need, held, _FIRST_STEP_BYTES), of_arriving(whole) - held)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """What there must be room for at least, in bytes, however little memory there is.

    `request`: the largest request, and a frame while it arrives. `decoding`: the largest frame
    while it is decoded.
    """

    request: int
    decoding: int

    @property
    def all(self) -> int:
        """With connections, and what is asked of the daemon about itself."""
        return self.request + self.decoding + _LEAST_CONTROL_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What may be held for what.

    `requests` with the frames that arrive for them; frames that are `decoding`; connections and
    requests about the daemon, under `control`. The latter two are apart so that who fills the
    first is still told how things are, and what has arrived whole can become a request.
    """

    requests: Quota
    decoding: Quota
    control: Quota


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableMemory:
    """What there is: a ceiling for the process, what it took without peers, all in bytes.

    `most` is as much as requests are given where there is plenty; a process has `peer_share` of
    its user's share of it.
    """

    ceiling: int
    taken: int
    most: int
    peer_share: float

    @property
    def left(self) -> int:
        """What peers may be given; below 0 where models alone are over the ceiling."""
        return int(_PART_FOR_PEERS * (self.ceiling - self.taken))

    def budgets(self, needs: MemoryNeeds) -> Quotas:
        """Return what may be held: never less than `needs`."""
        control = max(int(_PART_FOR_CONTROL * min(self.left, self.most)), _LEAST_CONTROL_BYTES)
        left = self.left - needs.decoding - control
        requests = max(min(left, self.most), needs.request)
        return Quotas(
            requests=Quota(total=requests, part=self.peer_share, least=needs.request),
            decoding=Quota(total=needs.decoding, part=1.0, least=needs.decoding),
            control=Quota(total=control, part=1.0),
        )
