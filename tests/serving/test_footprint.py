"""Estimates of memory: from above, and never in the way of what the limits allow."""

import sys

import pytest

from client_lib.wire.messages import Cancel, Embed, Hello, Ping, Rerank, Status
from client_lib.wire.protocol import Limits
from sidecar.serving.footprint import Footprint, Memory

FOOTPRINT = Footprint(dimensions=384, max_tokens=256)
LIMITS = Limits(max_frame_bytes=2**20, max_inputs=64)


@pytest.mark.parametrize("text", ["a" * 10_000, "é" * 10_000, "😀" * 10_000])
def test_a_request_takes_more_than_its_texts_and_vectors(text: str) -> None:
    """With its query, and whatever its characters take."""
    size = FOOTPRINT.of_request(Embed(id=1, input=(text,) * 9))
    assert size > 9 * (sys.getsizeof(text) + 4 * 384)
    pairs = Rerank(id=1, query=text, documents=(text,))
    assert FOOTPRINT.of_request(pairs) > 2 * sys.getsizeof(text)


def test_what_must_not_be_refused_takes_nothing() -> None:
    """A greeting and a cancellation; whoever asks for little is charged little."""
    assert FOOTPRINT.of_request(Hello(id=0, version=1)) == 0
    assert FOOTPRINT.of_request(Cancel(id=1, target=2)) == 0
    assert 0 < FOOTPRINT.of_request(Ping(id=1)) < FOOTPRINT.of_request(Status(id=1))


@pytest.mark.parametrize("ceiling", [0, 2**20, 2**26, 2**40])
@pytest.mark.parametrize("texts", [1, 8, 64])
def test_a_largest_request_fits_into_every_budget(ceiling: int, texts: int) -> None:
    """Also where models alone take more than there is; one text of all bytes is another matter."""
    memory = Memory(ceiling=ceiling, taken=2**26, most=2**29, peer_share=0.01)
    budget = memory.budget(FOOTPRINT.of_largest(LIMITS))
    assert budget.of_a_peer <= budget.total
    assert budget.of_a_peer >= FOOTPRINT.of_frame(LIMITS.max_frame_bytes)
    request = Embed(id=1, input=("x" * (LIMITS.max_frame_bytes // 64),) * texts)
    assert budget.of_a_peer >= FOOTPRINT.of_request(request)


def test_the_budget_follows_from_what_is_left() -> None:
    """A part of it, and no more than peers are given where there is plenty."""
    memory = Memory(ceiling=1_000_000, taken=600_000, most=10**9, peer_share=0.5)
    assert memory.budget(0).total == 300_000
    assert memory.budget(0).of_a_peer == 150_000
    assert Memory(ceiling=10**12, taken=0, most=10**9, peer_share=0.5).left == 10**9
