"""What all adapters share: their options, the prompts that follow from them, and the calls.

Options are fields of pydantic models: each of these frameworks brings pydantic, three of them
want their classes to be its models, and the others keep options as a map.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from client_lib.adapters.connections import Connections
from client_lib.wire.messages import Priority
from client_lib.wire.replies import RerankResult
from client_lib.wire.roles import Role

Float32: TypeAlias = NDArray[np.float32]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _number(value: Any) -> Any:
    plain = _plain(value)
    if isinstance(plain, bool):
        raise ValueError(f"must be a number, not {plain}")  # noqa: TRY004 - pydantic takes no other
    return plain


Seconds: TypeAlias = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Count: TypeAlias = Annotated[int, BeforeValidator(_number), Field(gt=0)]
Flag: TypeAlias = Annotated[bool, BeforeValidator(_plain)]


def _as_text(path: str | Path | None) -> str | None:
    return None if path is None else os.fspath(path)


class Sidecar(BaseModel):
    """Where the daemon is, and which of its models is meant.

    `socket` and `timeout` (seconds; None: no limit) are those of `client_lib.Client`. Where
    `model` is given, a daemon that does not serve a model of that name is refused with
    `UnknownModel`. Nothing is dialed before the first call; calls raise what those of
    `client_lib.Client` do.
    """

    model_config = ConfigDict(extra="forbid")

    socket: Annotated[str | Path | None, AfterValidator(_as_text)] = None
    timeout: Seconds | None = 30.0
    model: str | None = None

    _connections: Connections = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make the connections, which dial when they are used."""
        super().model_post_init(context)
        self._connections = Connections(self.socket, self.timeout)

    def close(self) -> None:
        """Close the connection of threads; calls to come raise `ClientClosed`."""
        self._connections.close()

    async def aclose(self) -> None:
        """Close the connection of the running event loop, too."""
        await self._connections.aclose()


class Embedder(Sidecar):
    """Texts to vectors.

    `dimensions` keeps the first so many; `normalize` scales vectors to length 1 or does not,
    by default as the model says. Queries get the model's prompt `query_prompt_name`, by default
    the one that it has for queries, documents `document_prompt_name`, by default the one that it
    has for documents. `priority` is the lane of documents; queries are always interactive.
    """

    dimensions: Count | None = None
    normalize: Flag | None = None
    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    priority: Priority = "bulk"

    def encode_query(self, texts: str | Iterable[str]) -> Float32:
        """Return one vector a query: float32 [n, d], or [d] for one string alone."""
        return self._connections.client.encode(texts, **self._as_queries())

    def encode_document(self, texts: str | Iterable[str]) -> Float32:
        """Return one vector a document: float32 [n, d], or [d] for one string alone."""
        return self._connections.client.encode(texts, **self._as_documents())

    async def aencode_query(self, texts: str | Iterable[str]) -> Float32:
        """Do what `encode_query` does, on the running event loop."""
        return await self._connections.here().encode(texts, **self._as_queries())

    async def aencode_document(self, texts: str | Iterable[str]) -> Float32:
        """Do what `encode_document` does, on the running event loop."""
        return await self._connections.here().encode(texts, **self._as_documents())

    def _as_queries(self) -> dict[str, Any]:
        return self._options("query", self.query_prompt_name, "interactive")

    def _as_documents(self) -> dict[str, Any]:
        return self._options("document", self.document_prompt_name, self.priority)

    def _options(self, role: Role, prompt_name: str | None, priority: Priority) -> dict[str, Any]:
        return {
            "model": self.model, "normalize": self.normalize, "dimensions": self.dimensions,
            "role": role, "prompt_name": prompt_name, "priority": priority,
        }  # fmt: skip


class Reranker(Sidecar):
    """Documents by their relevance to a query, in the interactive lane."""

    def rank(
        self, query: str, texts: Sequence[str], top_n: int | None = None
    ) -> tuple[RerankResult, ...]:
        """Return the `top_n` best of `texts`, or all, by their index; the best first."""
        if not texts:
            return ()
        client = self._connections.client
        return client.rerank(query, texts, top_n=top_n, model=self.model).results

    async def arank(
        self, query: str, texts: Sequence[str], top_n: int | None = None
    ) -> tuple[RerankResult, ...]:
        """Do what `rank` does, on the running event loop."""
        if not texts:
            return ()
        client = self._connections.here()
        return (await client.rerank(query, texts, top_n=top_n, model=self.model)).results
