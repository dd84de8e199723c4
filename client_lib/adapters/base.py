"""The base classes of all adapters: their options, and the calls to the daemon.

Options are fields of pydantic models: every framework depends on pydantic, three of them require
their classes to be pydantic models, and the others store options as a map.
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
    """Base of all adapters: the daemon and the model to use.

    It connects with the first call. Calls raise what those of `client_lib.Client` raise.

    Args:
        socket: Path of the daemon's socket; by default that of `client_lib.Client`.
        timeout: Seconds per request; None means no limit.
        model: Name of the model. Calls raise `UnknownModel` if the daemon does not serve it. None
            selects the daemon's default.
    """

    model_config = ConfigDict(extra="forbid")

    socket: Annotated[str | Path | None, AfterValidator(_as_text)] = None
    timeout: Seconds | None = 30.0
    model: str | None = None

    _connections: Connections = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Create the connections, which connect on first use."""
        super().model_post_init(context)
        self._connections = Connections(self.socket, self.timeout)

    def close(self) -> None:
        """Close the connection shared by threads; later calls raise `ClientClosed`."""
        self._connections.close()

    async def aclose(self) -> None:
        """Do what `close` does, and close the running event loop's connection."""
        await self._connections.aclose()


class Embedder(Sidecar):
    """Embeds queries and documents.

    Args:
        dimensions: Keep only the first `dimensions` of each vector.
        normalize: Whether to scale vectors to length 1; None leaves this to the model.
        query_prompt_name: The model's prompt for queries; by default its own for queries.
        document_prompt_name: The model's prompt for documents; by default its own for documents.
        priority: The lane of documents, "bulk" or "interactive"; queries are always interactive.
    """

    dimensions: Count | None = None
    normalize: Flag | None = None
    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    priority: Priority = "bulk"

    def encode_query(self, texts: str | Iterable[str]) -> Float32:
        """Return one vector per query: float32 [n, d], or [d] for a single string."""
        return self._connections.client.encode(texts, **self._as_queries())

    def encode_document(self, texts: str | Iterable[str]) -> Float32:
        """Return one vector per document: float32 [n, d], or [d] for a single string."""
        return self._connections.client.encode(texts, **self._as_documents())

    async def aencode_query(self, texts: str | Iterable[str]) -> Float32:
        """Do what `encode_query` does, in asyncio."""
        return await self._connections.here().encode(texts, **self._as_queries())

    async def aencode_document(self, texts: str | Iterable[str]) -> Float32:
        """Do what `encode_document` does, in asyncio."""
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
    """Ranks documents by their relevance to a query, in the interactive lane."""

    def rank(
        self, query: str, texts: Sequence[str], top_n: int | None = None
    ) -> tuple[RerankResult, ...]:
        """Return indexes and scores of `texts`, best first: the `top_n` best, or all."""
        if not texts:
            return ()
        client = self._connections.client
        return client.rerank(query, texts, top_n=top_n, model=self.model).results

    async def arank(
        self, query: str, texts: Sequence[str], top_n: int | None = None
    ) -> tuple[RerankResult, ...]:
        """Do what `rank` does, in asyncio."""
        if not texts:
            return ()
        client = self._connections.here()
        return (await client.rerank(query, texts, top_n=top_n, model=self.model)).results
