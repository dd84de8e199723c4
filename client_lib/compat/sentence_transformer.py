"""`SentenceTransformer` over a daemon."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from client_lib.compat import prompts as prompting
from client_lib.compat import similarity as similarities
from client_lib.compat.base import Remote
from client_lib.compat.output import converted
from client_lib.compat.progress import with_bar
from client_lib.compat.refusals import (
    IGNORED,
    check_batch_size,
    check_dimensions,
    refuse_options,
)
from client_lib.encoding import Encoding
from client_lib.texts import as_list, as_texts
from client_lib.wire.messages import Precision
from client_lib.wire.roles import role_prompt_name

if TYPE_CHECKING:
    import torch

    from client_lib.compat.output import Output

Similarity: TypeAlias = Literal["cosine", "dot", "euclidean", "manhattan"]
_FOR_UNIT_VECTORS = frozenset({"int8", "uint8"})
_INTEGERS = _FOR_UNIT_VECTORS | {"binary", "ubinary"}


class SentenceTransformer(Remote):
    """The embedding model of the daemon at `socket`, called as one of sentence-transformers.

    `model_name_or_path` is what the app would load: a hub id, with or without its organisation,
    or a folder. It has to be a model that the daemon serves, and is asked for by the daemon's
    name of it; None is the daemon's own choice. `timeout` (seconds) bounds each request, as in
    `Client`. Threads may share it.

    `prompts` are added to the model's. `device` is where tensors go that a call asks for, by
    default the CPU. What only says where the weights are found, or who computes, is ignored.

    Raises `UnknownModel` for a model that is not served, `ValueError` for an option that the
    daemon would have to know, `ConnectionLost` where no daemon answers in time.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        device: "str | torch.device | None" = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: Similarity | None = None,
        truncate_dim: int | None = None,
        socket: str | os.PathLike[str] | None = None,
        timeout: float | None = 30.0,
        **options: Any,
    ) -> None:
        refuse_options("SentenceTransformer", options, IGNORED)
        super().__init__(model_name_or_path, "embed", device, socket, timeout)
        self.truncate_dim = truncate_dim
        self.prompts = {**self._served.prompts, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or self._served.default_prompt_name
        self.similarity_fn_name = similarity_fn_name or cast(
            "Similarity | None", self._served.similarity_fn_name
        )
        prompting.resolve(self.prompts, self.default_prompt_name, prompt=None, name=None)

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: "str | torch.device | list[str | torch.device] | None" = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: int | None = None,
        *,
        sentences: str | Iterable[str] | None = None,
        task: str | None = None,
        **options: Any,
    ) -> "Output":
        """Return one vector a text: an array [n, d], or [d] for one string.

        float32, or `precision`: "float16" too; "int8" and "uint8" have the daemon's fixed range
        and want vectors of length 1. `convert_to_tensor` makes it a tensor, and without
        `convert_to_numpy` it is a list of tensors. `sentences` is the older name of `inputs`.
        The daemon cuts its own batches: `batch_size` and `chunk_size` are ignored, and so is
        `task`, which no model that it serves has.

        Raises `ValueError` for what it cannot do, `TypeError` for what is not text, and what
        `Client.encode` raises.
        """
        del chunk_size, task
        refuse_options("encode", {**options, "pool": pool})
        check_batch_size(batch_size)
        if output_value != "sentence_embedding":
            raise ValueError(
                f"output_value={output_value!r} is not possible: a daemon returns pooled vectors "
                "only; load the model with sentence_transformers for its tokens"
            )
        prefix = prompting.resolve(
            self.prompts, self.default_prompt_name, prompt=prompt, name=prompt_name
        )
        texts = sentences if inputs is None else inputs
        if texts is None:
            raise TypeError("encode() needs texts")
        vectors = self._vectors(
            as_texts(as_list(texts), "inputs"),
            prefix,
            self.truncate_dim if truncate_dim is None else truncate_dim,
            precision=precision or "float32",
            normalize=normalize_embeddings,
            show=show_progress_bar,
        )
        result = converted(
            vectors,
            self.device if device is None else device,
            to_numpy=convert_to_numpy,
            to_tensor=convert_to_tensor,
        )
        return cast("Output", result[0]) if isinstance(texts, str) else result

    def encode_query(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **options: Any,
    ) -> "Output":
        """Return what `encode` does, with the prompt "query" unless the call brings its own."""
        if prompt_name is None and prompt is None:
            prompt_name = role_prompt_name("query", self.prompts)
        return self.encode(inputs, prompt_name, prompt, *args, **options)

    def encode_document(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **options: Any,
    ) -> "Output":
        """Return what `encode` does, with the prompt "document", "passage" or "corpus".

        The first of these that there is, unless the call brings its own.
        """
        if prompt_name is None and prompt is None:
            prompt_name = role_prompt_name("document", self.prompts)
        return self.encode(inputs, prompt_name, prompt, *args, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> "torch.Tensor | NDArray[Any]":
        """Return the score of every vector against every other, [n, m], as floats.

        By `similarity_fn_name`. A tensor where torch is installed, else an array.
        """
        return similarities.similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(
        self, embeddings1: Any, embeddings2: Any
    ) -> "torch.Tensor | NDArray[Any]":
        """Return the score of each vector against the one at its place, [n]; as `similarity`."""
        return similarities.similarity_pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    @property
    def similarity_fn_name(self) -> Similarity:
        """What `similarity` computes: "cosine" unless the model or the app says otherwise."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: Similarity | None) -> None:
        name = getattr(value, "value", value) or "cosine"  # the library has an enum of them, too
        if name not in similarities.PAIRWISE:
            raise ValueError(
                f"similarity_fn_name {name!r} is not one of {[*similarities.PAIRWISE]}"
            )
        self._similarity_fn_name: Similarity = name

    def get_embedding_dimension(self) -> int:
        """Return how many dimensions `encode` returns."""
        dimensions = self._served.dimensions
        return dimensions if self.truncate_dim is None else min(dimensions, self.truncate_dim)

    def get_sentence_embedding_dimension(self) -> int:
        """Return the same; the older name."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Have `encode` keep the first `truncate_dim` dimensions inside the block."""
        before = self.truncate_dim
        self.truncate_dim = truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def _vectors(
        self,
        texts: Sequence[str],
        prefix: str,
        dimensions: int | None,
        *,
        precision: Precision,
        normalize: bool,
        show: bool | None,
    ) -> NDArray[Any]:
        if precision in _FOR_UNIT_VECTORS and not (normalize or self._served.normalize):
            raise ValueError(
                f"precision={precision!r} has a fixed range, for vectors of length 1: "
                "pass normalize_embeddings=True"
            )
        check_dimensions(dimensions)
        if dimensions is not None:
            dimensions = min(dimensions, self._served.dimensions)
        # The library cuts what its model has scaled, and scales again only where it is asked to;
        # the daemon scales what is kept. Of integers and bits only the daemon's can be had.
        cut_here = self._served.normalize and not normalize and precision not in _INTEGERS
        asked = prompting.ask(self._served, prefix)
        encoding = Encoding(
            [asked.prefix + text for text in texts] if asked.prefix else texts,
            model=self._served.name,
            prompt_name=asked.prompt_name,
            normalize=normalize or None,
            dimensions=None if cut_here else dimensions,
            precision=precision,
        )
        operations = list(encoding.operations())
        deque(with_bar(self._client.pipeline(operations), len(operations), show=show), maxlen=0)
        vectors = encoding.vectors
        return np.ascontiguousarray(vectors[:, :dimensions]) if cut_here else vectors
