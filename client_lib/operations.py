"""The operations that a daemon offers, one function each; both clients share them.

An `Operation` is a request that still lacks its id, and the way to read the reply. All mistakes
that a caller can make are found here, before anything is sent.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from client_lib.texts import as_list, as_texts, check_text
from client_lib.wire.errors import ReplyError, SidecarError
from client_lib.wire.messages import (
    Embed,
    Metrics,
    MetricsFormat,
    Ping,
    Precision,
    Request,
    Rerank,
    Status,
    check_fields,
)
from client_lib.wire.replies import EmbedReply, MetricsReply, RerankReply, StatusReply, dtype_of

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Operation(Generic[T_co]):
    """`request(id=...)` makes the request; `read(body)` turns the reply into the caller's result.

    `first` is the index of this request's first text among all texts of the call.
    """

    request: Callable[..., Request]
    read: Callable[[Mapping[str, Any]], T_co]
    first: int = 0

    def place(self, error: SidecarError) -> None:
        """Make the index in `error` refer to all texts of the call."""
        if self.first and isinstance(error, ReplyError) and error.index is not None:
            error.index += self.first
            error.add_note(f"this is text {error.index} of the whole call, counted from 0")


def embed(
    texts: str | Iterable[str], *, precision: Precision = "float32", **options: Any
) -> Operation[EmbedReply]:
    """Embed `texts` in one request; a single string counts as a list of one.

    Raises `BadRequest` for an option that a daemon would reject, and what `as_texts` raises.
    """
    dtype_of(precision)
    rows = as_texts(as_list(texts), "texts")
    request = partial(Embed, input=rows, precision=precision, **as_fields(Embed, options))
    return Operation(request, partial(EmbedReply.from_map, rows=len(rows), precision=precision))


def rerank(query: str, documents: Iterable[str], **options: Any) -> Operation[RerankReply]:
    """Order `documents` by their relevance to `query`, in one request.

    Raises `BadRequest` for an option that a daemon would reject, and what `as_texts` raises.
    """
    check_text(query, "query")
    rows = as_texts(documents, "documents")
    request = partial(Rerank, query=query, documents=rows, **as_fields(Rerank, options))
    return Operation(request, partial(RerankReply.from_map, documents=len(rows)))


def status() -> Operation[dict[str, Any]]:
    """Request what the daemon serves, and its current state."""
    return Operation(Status, _read_status)


def _read_status(body: Mapping[str, Any]) -> dict[str, Any]:
    return dict(StatusReply.from_map(body).status)


def metrics(form: MetricsFormat) -> Operation[MetricsReply]:
    """Request the daemon's metrics."""
    return Operation(partial(Metrics, format=form), MetricsReply.from_map)


def ping() -> Operation[None]:
    """Request an empty reply."""
    return Operation(Ping, lambda _: None)


def as_fields(cls: type[Request], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` as they are sent, with NumPy's numbers and booleans as Python's.

    Raises `BadRequest`, as a daemon would, for one that does not fit its field.
    """
    fields = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in options.items()
    }
    for name, value in fields.items():
        if isinstance(value, str):
            check_text(value, name)
    check_fields(cls, fields)
    return fields
