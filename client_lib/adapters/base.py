"""What all adapters share: their options, the prompts that follow from them, and the calls.

Options are fields of pydantic models: each of these frameworks brings pydantic, three of them
want their classes to be its models, and the others keep options as a map.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from client_lib import AsyncClient, Client
from client_lib.adapters.connections import Connections
from client_lib.results import RerankResult
from client_lib.wire.messages import Priority

Float32: TypeAlias = NDArray[np.float32]

# Where models have their prompts: the names by which the daemon finds them when it reranks.
_QUERY = ("query",)
_DOCUMENT = ("document", "passage")


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
    its "query"; documents `document_prompt_name`, by default its "document", else its "passage";
    which of these a model has, the daemon is asked once. `priority` is the lane of documents;
    queries are always interactive.
    """

    dimensions: Count | None = None
    normalize: Flag | None = None
    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    priority: Priority = "bulk"

    _prompts: Mapping[str, str] | None = PrivateAttr(default=None)

    def encode_query(self, texts: str | Iterable[str]) -> Float32:
        """Return one vector a query: float32 [n, d], or [d] for one string alone."""
        return self._ready().encode(texts, **self._as_queries())

    def encode_document(self, texts: str | Iterable[str]) -> Float32:
        """Return one vector a document: float32 [n, d], or [d] for one string alone."""
        return self._ready().encode(texts, **self._as_documents())

    async def aencode_query(self, texts: str | Iterable[str]) -> Float32:
        """Do what `encode_query` does, on the running event loop."""
        return await (await self._aready()).encode(texts, **self._as_queries())

    async def aencode_document(self, texts: str | Iterable[str]) -> Float32:
        """Do what `encode_document` does, on the running event loop."""
        return await (await self._aready()).encode(texts, **self._as_documents())

    def _ready(self) -> Client:
        client = self._connections.client
        if self._prompts is None:
            self._prompts = self._prompts_in(client.status())
        return client

    async def _aready(self) -> AsyncClient:
        client = self._connections.here()
        if self._prompts is None:
            self._prompts = self._prompts_in(await client.status())
        return client

    def _prompts_in(self, status: Mapping[str, Any]) -> Mapping[str, str] | None:
        for model in status.get("models", ()):
            if model["task"] == "embed" and self.model in {None, model["name"]}:
                return dict(model.get("prompts", {}))
        return None  # the call that follows is refused, in the daemon's own words

    def _as_queries(self) -> dict[str, Any]:
        prompt_name = self.query_prompt_name or self._first_prompt(_QUERY)
        return {**self._options(), "prompt_name": prompt_name, "priority": "interactive"}

    def _as_documents(self) -> dict[str, Any]:
        prompt_name = self.document_prompt_name or self._first_prompt(_DOCUMENT)
        return {**self._options(), "prompt_name": prompt_name, "priority": self.priority}

    def _first_prompt(self, names: Sequence[str]) -> str | None:
        # None is the prompt that the model has for texts of any kind, if it has one.
        return next((name for name in names if (self._prompts or {}).get(name)), None)

    def _options(self) -> dict[str, Any]:
        return {
            "model": self.model, "normalize": self.normalize, "dimensions": self.dimensions,
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
