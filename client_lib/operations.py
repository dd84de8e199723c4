"""What can be asked: one function an operation, the same for both clients.

An `Operation` is a request that still lacks its id, and the way to read the answer. All that
a caller may have got wrong is found here, before anything is sent.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from client_lib.results import (
    EmbedReply,
    MetricsReply,
    RerankReply,
    dtype_of,
    read_embed,
    read_metrics,
    read_rerank,
    read_status,
)
from client_lib.wire.messages import (
    Embed,
    Metrics,
    MetricsFormat,
    Ping,
    Precision,
    Request,
    Rerank,
    Status,
)

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Operation(Generic[T_co]):
    """`request(id=...)` is what to send; `read(body)` makes the caller's result of the reply."""

    request: Callable[..., Request]
    read: Callable[[Mapping[str, Any]], T_co]


def embed(
    texts: str | Iterable[str], *, precision: Precision = "float32", **options: Any
) -> Operation[EmbedReply]:
    """Embed `texts` in one request; one string alone counts as a list of one.

    Raises `BadRequest` for a precision that is none.
    """
    dtype_of(precision)
    rows = as_texts([texts] if isinstance(texts, str) else texts, "texts")
    request = partial(Embed, input=rows, precision=precision, **options)
    return Operation(request, partial(read_embed, rows=len(rows), precision=precision))


def rerank(query: str, documents: Iterable[str], **options: Any) -> Operation[RerankReply]:
    """Order `documents` by their relevance to `query`, in one request."""
    if not isinstance(query, str):
        raise TypeError(f"query must be a string, not {type(query).__name__}")
    rows = as_texts(documents, "documents")
    request = partial(Rerank, query=query, documents=rows, **options)
    return Operation(request, partial(read_rerank, documents=len(rows)))


def status() -> Operation[dict[str, Any]]:
    """Ask what the daemon is, and how it is."""
    return Operation(Status, read_status)


def metrics(form: MetricsFormat) -> Operation[MetricsReply]:
    """Ask how the daemon is, in figures for a monitor."""
    return Operation(partial(Metrics, format=form), read_metrics)


def ping() -> Operation[None]:
    """Ask for nothing but an answer."""
    return Operation(Ping, lambda _: None)


def as_texts(texts: Iterable[str], name: str) -> tuple[str, ...]:
    """Return `texts` as a tuple. Raises `TypeError`, naming the index of what is no string."""
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a list of strings, not one string")
    rows = tuple(texts)
    for index, row in enumerate(rows):
        if not isinstance(row, str):
            raise TypeError(f"{name}[{index}] must be a string, not {type(row).__name__}")
    return rows
