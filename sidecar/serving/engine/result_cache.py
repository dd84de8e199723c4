"""A cache of the results of recently computed rows. Pure."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from sidecar.serving.registry import Float32
from sidecar.serving.scheduler.job import Key

# An entry's overhead: the key, its digest, the array object and the slot in the table.
_ENTRY_BYTES = 512


class ResultCache:
    """Holds at most `max_bytes` of results, and evicts the least recently used.

    Equal keys have the same bytes, so a cached result cannot be told from a new one.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._results: OrderedDict[Key, Float32] = OrderedDict()
        self._bytes = self._hits = self._misses = self._evicted = 0

    def recall(self, keys: Iterable[Key]) -> dict[int, Float32]:
        """Return the cached results, float32 [d], by their index in `keys`."""
        if not self._max_bytes:
            return {}
        found = enumerate(map(self._recall_one, keys))
        return {index: result for index, result in found if result is not None}

    def put(self, key: Key, result: Float32) -> None:
        """Cache the result of row `key`, unless it exceeds `max_bytes` by itself."""
        size = _size(result)
        if size > self._max_bytes or key in self._results:
            return
        # Copy it: it may be a view of a larger array, or of another caller's. Copy first, so that
        # running out of memory leaves the counts as they are.
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
        """Return the `cache` section of `status`."""
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
