"""Split any number of texts into requests, and collect their vectors in one array."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_lib.operations import Operation, as_fields
from client_lib.texts import as_list, as_texts
from client_lib.wire.errors import ProtocolError, UnknownModel
from client_lib.wire.messages import Embed, Precision
from client_lib.wire.replies import dtype_of, view_vectors

# Requests that one `encode` keeps in flight: enough for the daemon to have the next one at hand,
# and few enough for other callers to queue behind.
WINDOW = 4
# A request is full at either limit; together they keep a frame well within the daemon's limits.
_CHUNK_TEXTS = 256
_CHUNK_BYTES = 4 * 2**20


class Encoding:
    """One `encode` call: its operations are sent in order, and their vectors fill one array.

    `vectors` is [n, d] of `precision`'s dtype once every operation has been read; [d] for a
    single string; (0, 0) for no texts, since no daemon was asked what d is.

    Raises what `operations.embed` raises.
    """

    def __init__(
        self, texts: str | Iterable[str], *, precision: Precision = "float32", **options: Any
    ) -> None:
        self._single = isinstance(texts, str)
        self._vectors: NDArray[Any] = np.empty((0, 0), dtype_of(precision))
        self._texts = as_texts(as_list(texts), "texts")
        self._precision = precision
        self._options = as_fields(Embed, {**options, "precision": precision})
        self._model: str | None = None

    def operations(self) -> Iterator[Operation[None]]:
        """Yield one operation per request; reading its reply stores its vectors."""
        for rows in chunks(self._texts):
            request = partial(Embed, input=self._texts[rows], **self._options)
            yield Operation(request, partial(self._place, rows), rows.start)

    @property
    def vectors(self) -> NDArray[Any]:
        """The result array, allocated once."""
        return self._vectors[0] if self._single else self._vectors

    def _place(self, rows: slice, body: Mapping[str, Any]) -> None:
        block = view_vectors(body, rows.stop - rows.start, self._precision)
        if self._model is None:
            self._model = body.get("model")
            self._vectors = np.empty((len(self._texts), block.shape[1]), self._vectors.dtype)
        self._check_same_model(body.get("model"), block.shape[1])
        self._vectors[rows] = block

    def _check_same_model(self, model: str | None, dimensions: int) -> None:
        # A daemon that restarted in between may serve another model, and nobody would notice
        # vectors of two models in one array.
        if model is None:
            raise ProtocolError("the reply to embed does not name its model")
        before = self._vectors.shape[1]
        if model != self._model:
            change = f"the daemon's model changed from {self._model!r} to {model!r}"
        elif dimensions != before:
            change = f"the vectors of {model!r} changed from {before} to {dimensions} dimensions"
        else:
            return
        raise UnknownModel(f"{change} during the call")


def chunks(texts: Sequence[str], most: int = _CHUNK_TEXTS) -> Iterator[slice]:
    """Yield consecutive slices of `texts`, each of at most `most` texts.

    A slice ends before the text that would take it over 4 MiB of UTF-8; a longer text
    has its own slice.
    """
    start, size = 0, 0
    for index, text in enumerate(texts):
        # `isascii` only reads a flag of the string, so most texts are not encoded for this.
        length = len(text) if text.isascii() else len(text.encode())
        full = index - start == most or size + length > _CHUNK_BYTES
        if full and index > start:
            yield slice(start, index)
            start, size = index, 0
        size += length
    if start < len(texts):
        yield slice(start, len(texts))
