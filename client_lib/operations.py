"""What can be asked: one function an operation, the same for both clients.

An `Operation` is a request that still lacks its id, and the way to read the answer. All that
a caller may have got wrong is found here, before anything is sent.
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
    """`request(id=...)` is what to send; `read(body)` makes the caller's result of the reply.

    Of a call's texts, `first` is the index of this request's first one.
    """

    request: Callable[..., Request]
    read: Callable[[Mapping[str, Any]], T_co]
    first: int = 0

    def place(self, error: SidecarError) -> None:
        """Have `error` name a text by its index among all of the call's."""
        if self.first and isinstance(error, ReplyError) and error.index is not None:
            error.index += self.first
            error.add_note(f"of all texts that is number {error.index}, counted from 0")


def embed(
    texts: str | Iterable[str], *, precision: Precision = "float32", **options: Any
) -> Operation[EmbedReply]:
    """Embed `texts` in one request; one string alone counts as a list of one.

    Raises `BadRequest` for an option that a daemon would refuse, and what `as_texts` raises.
    """
    dtype_of(precision)
    rows = as_texts(as_list(texts), "texts")
    request = partial(Embed, input=rows, precision=precision, **as_fields(Embed, options))
    return Operation(request, partial(EmbedReply.from_map, rows=len(rows), precision=precision))


def rerank(query: str, documents: Iterable[str], **options: Any) -> Operation[RerankReply]:
    """Order `documents` by their relevance to `query`, in one request.

    Raises `BadRequest` for an option that a daemon would refuse, and what `as_texts` raises.
    """
    check_text(query, "query")
    rows = as_texts(documents, "documents")
    request = partial(Rerank, query=query, documents=rows, **as_fields(Rerank, options))
    return Operation(request, partial(RerankReply.from_map, documents=len(rows)))


def status() -> Operation[dict[str, Any]]:
    """Ask what the daemon is, and how it is."""
    return Operation(Status, _read_status)


def _read_status(body: Mapping[str, Any]) -> dict[str, Any]:
    return dict(StatusReply.from_map(body).status)


def metrics(form: MetricsFormat) -> Operation[MetricsReply]:
    """Ask how the daemon is, in figures for a monitor."""
    return Operation(partial(Metrics, format=form), MetricsReply.from_map)


def ping() -> Operation[None]:
    """Ask for nothing but an answer."""
    return Operation(Ping, lambda _: None)


def as_fields(cls: type[Request], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` as they travel: numbers and booleans of numpy as Python's.

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
