"""Results of rows that were computed lately, so that they need not be again. Pure."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from sidecar.serving.registry import Float32
from sidecar.serving.scheduler.job import Key

# What an entry holds besides its numbers: the key, its digest, the array and its place.
_ENTRY_BYTES = 512


class ResultCache:
    """At most `max_bytes` of results; the one that was asked for longest ago leaves first.

    Since equal keys have the same bytes, nobody can tell a result from here from a new one.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._results: OrderedDict[Key, Float32] = OrderedDict()
        self._bytes = self._hits = self._misses = self._evicted = 0

    def recall(self, keys: Iterable[Key]) -> dict[int, Float32]:
        """Return the results that are here, float32 [d], by their index in `keys`."""
        if not self._max_bytes:
            return {}
        found = enumerate(map(self._recall_one, keys))
        return {index: result for index, result in found if result is not None}

    def put(self, key: Key, result: Float32) -> None:
        """Keep the result of the row `key`, unless it alone is more than all may be."""
        size = _size(result)
        if size > self._max_bytes or key in self._results:
            return
        # A copy: it may be a view of more numbers, or of another caller's. First, so that where
        # there is no memory for it nothing is counted.
        kept = result.copy()
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, oldest = self._results.popitem(last=False)
            self._bytes -= _size(oldest)
            self._evicted += 1
        self._results[key] = kept

    def _recall_one(self, key: Key) -> Float32 | None:
        result = self._results.get(key)
        if result is None:
            self._misses += 1
            return None
        self._hits += 1
        self._results.move_to_end(key)
        return result

    def to_map(self) -> dict[str, Any]:
        """Return the `cache` of a status."""
        return {
            "max_bytes": self._max_bytes,
            "bytes": self._bytes,
            "rows": len(self._results),
            "hits": self._hits,
            "misses": self._misses,
            "evicted": self._evicted,
        }


def _size(result: Float32) -> int:
    return _ENTRY_BYTES + result.nbytes
