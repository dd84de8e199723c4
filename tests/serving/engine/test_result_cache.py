import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sidecar.models.rows import Row
from sidecar.serving.engine.result_cache import ResultCache
from sidecar.serving.postprocess import Postprocess
from sidecar.serving.scheduler.job import key_of

from ..jobs import job

ENTRY = 512 + 4 * 8  # bytes of a result of eight numbers


def key(text):
    (entry,) = job(1, texts=[text]).entries
    return entry.key


def result(text):
    return np.full(8, text, np.float32)


def test_without_bytes_nothing_is_kept():
    """A cache of zero bytes keeps neither results nor counts."""
    cache = ResultCache(0)
    cache.put(key(1), result(1))
    assert cache.recall([key(1)]) == {}
    assert not any(cache.to_map().values())


def test_what_is_known_is_told_by_index():
    """Cached results are returned by index, and missing ones are left out."""
    cache = ResultCache(10 * ENTRY)
    cache.put(key(1), result(1))
    known = cache.recall([key(0), key(1), key(1)])
    assert sorted(known) == [1, 2]
    np.testing.assert_array_equal(known[1], result(1))
    status = cache.to_map()
    assert (status["rows"], status["bytes"]) == (1, ENTRY)
    assert (status["hits"], status["misses"]) == (2, 1)


def test_what_was_asked_for_longest_ago_leaves_first():
    """The least recently requested result is evicted first, whenever it was added."""
    cache = ResultCache(2 * ENTRY)
    cache.put(key(1), result(1))
    cache.put(key(2), result(2))
    cache.recall([key(1)])
    cache.put(key(3), result(3))
    assert sorted(cache.recall([key(1), key(2), key(3)])) == [0, 2]
    assert cache.to_map()["evicted"] == 1


def test_results_of_any_size_leave_until_there_is_room():
    """Only as many of the oldest results are evicted as make room, and their bytes are released."""
    cache = ResultCache(3 * ENTRY)
    for text in (1, 2, 3):
        cache.put(key(text), result(text))
    cache.put(key(4), np.zeros(8 + 1, np.float32))  # four bytes more than one of them
    assert sorted(cache.recall(map(key, (1, 2, 3, 4)))) == [2, 3]
    status = cache.to_map()
    assert (status["rows"], status["bytes"], status["evicted"]) == (2, 2 * ENTRY + 4, 2)


def test_a_result_is_kept_once():
    """Adding a cached key again keeps the first result and its place in the eviction order."""
    cache = ResultCache(2 * ENTRY)
    cache.put(key(1), result(1))
    cache.put(key(2), result(2))
    cache.put(key(1), result(7))
    assert cache.to_map()["bytes"] == 2 * ENTRY
    cache.put(key(3), result(3))
    known = cache.recall([key(1), key(2), key(3)])
    assert {index: each[0] for index, each in known.items()} == {1: 2, 2: 3}


def test_what_decides_a_result_is_its_key():
    """A key covers the model, the postprocessing, the tokens and their types."""
    ids, zeros = np.arange(4), np.zeros(4, np.int64)
    row = Row(ids, zeros, truncated=False)
    same = Row(ids.copy(), zeros.copy(), truncated=True)
    assert key_of("a", Postprocess(8, True), row) == key_of("a", Postprocess(8, True), same)
    others = [
        key_of("b", Postprocess(8, True), row),
        key_of("a", Postprocess(7, True), row),
        key_of("a", Postprocess(8, False), row),
        key_of("a", Postprocess(8, True), Row(ids[::-1], zeros, truncated=False)),
        key_of("a", Postprocess(8, True), Row(ids[:3], zeros[:3], truncated=False)),
        key_of("a", Postprocess(8, True), Row(ids, np.array([0, 0, 1, 1]), truncated=False)),
    ]
    assert len({key_of("a", Postprocess(8, True), row), *others}) == 1 + len(others)


def test_a_result_that_is_too_large_is_not_kept():
    """A result larger than the cache is not kept, and evicts nothing."""
    cache = ResultCache(ENTRY)
    cache.put(key(1), result(1))
    cache.put(key(2), np.zeros(1_000, np.float32))
    assert sorted(cache.recall([key(1), key(2)])) == [0]


def test_a_result_does_not_hold_what_it_is_a_view_of():
    """A cached result neither keeps the array it was a view of alive nor changes with it."""
    cache, wide = ResultCache(ENTRY), np.ones(16, np.float32)
    cache.put(key(1), wide[:8])
    wide[:] = 0
    kept = cache.recall([key(1)])[0]
    assert kept.base is None
    np.testing.assert_array_equal(kept, result(1))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_it_is_never_more_than_it_may_be(steps):
    """The cache never exceeds its limit, reports what it holds, and never mixes up results."""
    cache = ResultCache(3 * ENTRY + 1)
    for puts, text in steps:
        if puts:
            cache.put(key(text), result(text))
        for kept in cache.recall([key(text)]).values():
            np.testing.assert_array_equal(kept, result(text))
        assert cache.to_map()["bytes"] == ENTRY * cache.to_map()["rows"] <= 3 * ENTRY + 1
