"""Memory estimates are upper bounds, and never rule out what the limits allow."""

import sys
from dataclasses import replace

import pytest

from client_lib.wire.messages import Cancel, Embed, Hello, Ping, Rerank, Status
from client_lib.wire.protocol import Limits, ServerConnection
from sidecar.serving.admission.fair_share import Occupancy
from sidecar.serving.admission.memory_budget import Quota
from sidecar.serving.admission.memory_estimator import (
    CONNECTION_BYTES,
    AvailableMemory,
    MemoryEstimator,
    MemoryNeeds,
    of_arriving,
    step_of_arriving,
)

ESTIMATOR = MemoryEstimator(dimensions=384, max_tokens=256)
LIMITS = Limits(max_frame_bytes=2**20, max_inputs=64)


@pytest.mark.parametrize("text", ["a" * 10_000, "é" * 10_000, "😀" * 10_000])
def test_a_request_takes_more_than_its_texts_and_vectors(text: str) -> None:
    """A request is estimated above its texts, query and vectors, whatever its characters take."""
    size = ESTIMATOR.of_request(Embed(id=1, input=(text,) * 9))
    assert size > 9 * (sys.getsizeof(text) + 4 * 384)
    pairs = Rerank(id=1, query=text, documents=(text,))
    assert ESTIMATOR.of_request(pairs) > 2 * sys.getsizeof(text)


def grown(before: object, after: object, estimator: MemoryEstimator = ESTIMATOR) -> int:
    return estimator.of_request(after) - estimator.of_request(before)  # type: ignore[arg-type]


def test_a_character_counts_as_often_as_it_is_held() -> None:
    """A character counts in the text, the prompted text and, up to the row's limit, as a token."""
    texts = ("a" * 50, "b" * 10)
    longest = Embed(id=1, input=("a" * 51, "b" * 10))
    shorter = Embed(id=1, input=("a" * 50, "b" * 11))
    request = Embed(id=1, input=texts)
    assert grown(request, shorter) == 2 + 16
    assert grown(request, longest) == 2 + 16 + 64  # a tokenizer needs memory for the longest text
    assert grown(request, longest, replace(ESTIMATOR, max_tokens=50)) == 2 + 64
    wide = Embed(id=1, input=("a" * 49 + "語", "b" * 10))
    assert grown(request, wide) == 2 * (sys.getsizeof("a" * 49 + "語") - sys.getsizeof("a" * 50))


def test_a_query_s_character_is_a_token_of_every_pair() -> None:
    """A query's text counts once, and its tokens in every pair."""
    documents = ("a" * 50, "b" * 10, "c" * 20)
    request, longer = (Rerank(id=1, query=q, documents=documents) for q in ("q" * 30, "q" * 31))
    assert grown(request, longer) == 2 + 3 * 16 + 64
    assert grown(request, longer, replace(ESTIMATOR, max_tokens=50)) == 2 + 2 * 16 - 16 + 64


def test_a_vector_s_number_is_held_three_times() -> None:
    """Each number of a vector counts three times: as computed, as assembled, and in the reply."""
    request = Embed(id=1, input=("a", "b", "c", "d", "e"))
    wider = replace(ESTIMATOR, dimensions=ESTIMATOR.dimensions + 1)
    assert wider.of_request(request) - ESTIMATOR.of_request(request) == 5 * 3 * 4


def test_what_must_not_be_refused_takes_nothing() -> None:
    """Requests that are answered at once are free, and a status fits into a connection's bytes."""
    for request in (Hello(id=0, version=1), Cancel(id=1, target=2), Ping(id=1)):
        assert ESTIMATOR.of_request(request) == 0
    assert 0 < ESTIMATOR.of_request(Status(id=1)) <= CONNECTION_BYTES


@pytest.mark.parametrize("ceiling", [0, 2**20, 2**26, 2**40])
@pytest.mark.parametrize("texts", [1, 8, 64])
def test_a_largest_request_fits_into_every_budget(ceiling: int, texts: int) -> None:
    """The largest request fits into every budget, even if models exceed the memory ceiling."""
    memory = AvailableMemory(ceiling=ceiling, taken=2**26, most=2**29, peer_share=0.01)
    budgets = memory.budgets(ESTIMATOR.needs(LIMITS))
    decoding = ServerConnection(LIMITS).most_decoding(LIMITS.max_frame_bytes)
    held = Occupancy(in_all=0, by_user=0, by_process=0)
    assert budgets.requests.has_room(held, of_arriving(LIMITS.max_frame_bytes))
    assert budgets.decoding.has_room(held, decoding)
    assert budgets.control.has_room(held, CONNECTION_BYTES)
    request = Embed(id=1, input=("x" * (LIMITS.max_frame_bytes // 64),) * texts)
    assert budgets.requests.has_room(held, ESTIMATOR.of_request(request))


def test_the_budgets_follow_from_what_is_left() -> None:
    """Budgets are parts of the remaining memory, up to the most that peers are given."""
    needs = MemoryNeeds(request=10**6, decoding=10**8)
    memory = AvailableMemory(ceiling=10**9, taken=6 * 10**8, most=10**10, peer_share=0.5)
    budgets = memory.budgets(needs)
    assert memory.left == 3 * 10**8
    assert budgets.control.total == 75 * 10**6
    assert budgets.decoding == Quota(total=10**8, part=1.0, least=10**8)
    assert budgets.requests == Quota(total=125 * 10**6, part=0.5, least=10**6)
    plenty = replace(memory, ceiling=10**12, most=10**9).budgets(needs)
    assert (plenty.requests.total, plenty.control.total) == (10**9, 25 * 10**7)


def test_there_is_room_for_the_largest_frame_while_it_arrives() -> None:
    """There is room for the largest frame while it arrives, however many texts it may have."""
    few = ESTIMATOR.needs(Limits(max_frame_bytes=2**24, max_inputs=1))
    many = MemoryEstimator(dimensions=1, max_tokens=1).needs(
        Limits(max_frame_bytes=2**24, max_inputs=2)
    )
    for needs in (few, many):
        assert needs.request >= of_arriving(2**24) >= 9 * 2**24 // 8
        assert needs.all >= needs.request + needs.decoding + 2**20
    request = Embed(id=1, input=("x" * (2**24 // 64),) * 64)
    needs = ESTIMATOR.needs(Limits(max_frame_bytes=2**24, max_inputs=64))
    assert needs.request == max(ESTIMATOR.of_request(request), of_arriving(2**24))


@pytest.mark.parametrize("whole", [20_000, 300_000, 16 * 2**20])
def test_room_for_a_frame_grows_with_what_has_arrived(whole: int) -> None:
    """Room for a frame grows with what has arrived, always sufficient and in few steps."""
    held = steps = 0
    for size in (*range(1, whole, 9_999), whole):
        if more := step_of_arriving(held, size, whole):
            held += more
            steps += 1
        assert of_arriving(size) <= held <= min(of_arriving(whole), 2 * of_arriving(size) + 2**18)
    assert steps <= 8
    assert held >= of_arriving(whole) >= 1.125 * whole


def test_each_text_takes_its_place_and_its_vector() -> None:
    """Each text counts 1 KiB for its row, 12 bytes per dimension and 16 per token."""
    for dimensions, max_tokens in ((8, 256), (1_024, 3)):
        estimator = MemoryEstimator(dimensions=dimensions, max_tokens=max_tokens)
        for length in (1, 200, 1_000):
            text = "a" * length
            few, many = (Embed(id=1, input=(text,) * count) for count in (10, 110))
            more = estimator.of_request(many) - estimator.of_request(few)
            tokens = min(length, max_tokens)
            each = 2 * sys.getsizeof(text) + 1_024 + 12 * dimensions + 16 * tokens
            assert more == 100 * each, (dimensions, length)


def test_the_longest_text_decides_what_a_tokenizer_works_with() -> None:
    """A tokenizer's memory follows from the longest text plus the query, in any order of texts."""
    texts = ("a" * 10, "b" * 5_000, "c" * 20)
    size = ESTIMATOR.of_request(Embed(id=1, input=texts))
    assert size == ESTIMATOR.of_request(Embed(id=1, input=texts[::-1]))
    longer = ESTIMATOR.of_request(Embed(id=1, input=("a" * 10, "b" * 6_000, "c" * 20)))
    assert longer - size == 1_000 * (2 + 64)
    shorter = ESTIMATOR.of_request(Embed(id=1, input=("a", "b" * 5_000, "c" * 20)))
    assert size - shorter == 9 * (2 + 16)
    pairs = [Rerank(id=1, query="q" * count, documents=("d" * 300,)) for count in (300, 1_300)]
    with_short, with_long = map(ESTIMATOR.of_request, pairs)
    assert with_long - with_short == 1_000 * (2 + 64)
