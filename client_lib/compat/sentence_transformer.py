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
    """A daemon's embedding model, with the interface of sentence-transformers' class.

    Threads may share an instance.

    Args:
        model_name_or_path: What the app would load: a hub id, with or without its organisation, or
            a folder. The daemon must serve that model. None selects the daemon's first embedding
            model.
        device: Where requested tensors are placed; the CPU by default.
        prompts: Prompts by name, added to those of the model.
        default_prompt_name: The prompt for calls that give none; by default that of the model.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; by default that of the
            model, or "cosine".
        truncate_dim: Keep only the first `truncate_dim` dimensions of each vector.
        socket: Path of the daemon's socket; by default that of `Client`.
        timeout: Seconds per request, as in `Client`; None means no limit.
        **options: Other options of sentence-transformers. Those that only say where the files are
            or what runs the model are ignored.

    Raises:
        UnknownModel: The daemon does not serve the model.
        ValueError: An option has a value that a daemon cannot honour.
        ConnectionLost: No daemon answered in time.
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
        """Return one vector per text.

        Args:
            inputs: One text, or several.
            prompt_name: The name of the prompt to prepend; by default `default_prompt_name`.
            prompt: The prompt itself; takes precedence over `prompt_name`.
            batch_size: Must be positive; otherwise ignored, since the daemon forms its own batches.
            show_progress_bar: Whether to show a progress bar; None shows one if the log level is
                INFO or DEBUG.
            output_value: Must be "sentence_embedding".
            precision: "float32", "float16", "int8", "uint8", "binary" or "ubinary". "int8" and
                "uint8" have the daemon's fixed range, for vectors of length 1.
            convert_to_numpy: Return an array; if false, a list of tensors.
            convert_to_tensor: Return one tensor; takes precedence over `convert_to_numpy`.
            device: Where tensors are placed; by default the instance's `device`.
            normalize_embeddings: Scale vectors to length 1, even if the model does not.
            truncate_dim: Keep only the first `truncate_dim` dimensions; by default the instance's
                `truncate_dim`.
            pool: Must be None.
            chunk_size: Ignored.
            sentences: The older name of `inputs`.
            task: Ignored, since no model that the daemon serves has tasks.
            **options: Other options of sentence-transformers; they must be None.

        Returns:
            The vectors [n, d] in the dtype of `precision`, or [d] for a single string.

        Raises:
            ValueError: `prompt_name` is unknown, or a daemon cannot honour the value of an option.
            TypeError: `inputs` are not texts, or `truncate_dim` is a bool.
            SidecarError: As for `Client.encode`.
            ImportError: A tensor needs torch, or the progress bar tqdm.
        """
        del chunk_size, task
        refuse_options("encode", {**options, "pool": pool})
        check_batch_size(batch_size)
        if output_value != "sentence_embedding":
            raise ValueError(
                f"output_value={output_value!r} is not supported: the daemon only returns pooled "
                "vectors; load the model with sentence_transformers for token embeddings"
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
        """Do what `encode` does, with the model's prompt for queries.

        Args:
            inputs: One query, or several.
            prompt_name: As for `encode`; by default "query", if there is such a prompt.
            prompt: As for `encode`.
            *args: Those of `encode`, from `batch_size`.
            **options: Those of `encode`.

        Returns:
            As for `encode`.

        Raises:
            ValueError, TypeError, SidecarError, ImportError: As for `encode`.
        """
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
        """Do what `encode` does, with the model's prompt for documents.

        Args:
            inputs: One document, or several.
            prompt_name: As for `encode`; by default the first of "document", "passage" and
                "corpus" that exists.
            prompt: As for `encode`.
            *args: Those of `encode`, from `batch_size`.
            **options: Those of `encode`.

        Returns:
            As for `encode`.

        Raises:
            ValueError, TypeError, SidecarError, ImportError: As for `encode`.
        """
        if prompt_name is None and prompt is None:
            prompt_name = role_prompt_name("document", self.prompts)
        return self.encode(inputs, prompt_name, prompt, *args, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> "torch.Tensor | NDArray[Any]":
        """Return the similarity of every vector with every other, by `similarity_fn_name`.

        Args:
            embeddings1: Vectors [n, d] or [d], as arrays, tensors or lists of them.
            embeddings2: Vectors [m, d] or [d].

        Returns:
            The scores [n, m] as floats, higher for more similar vectors: a tensor, or an array if
            torch is not installed.
        """
        return similarities.similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(
        self, embeddings1: Any, embeddings2: Any
    ) -> "torch.Tensor | NDArray[Any]":
        """Return the similarity of each vector with its counterpart, by `similarity_fn_name`.

        Args:
            embeddings1: Vectors [n, d], as arrays, tensors or lists of them.
            embeddings2: Vectors [n, d].

        Returns:
            The scores [n], otherwise as for `similarity`.
        """
        return similarities.similarity_pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    @property
    def similarity_fn_name(self) -> Similarity:
        """What `similarity` computes: "cosine" unless the model or the app sets another."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: Similarity | None) -> None:
        name = getattr(value, "value", value) or "cosine"  # accept the library's enum
        if name not in similarities.PAIRWISE:
            raise ValueError(
                f"similarity_fn_name {name!r} is not one of {[*similarities.PAIRWISE]}"
            )
        self._similarity_fn_name: Similarity = name

    def get_embedding_dimension(self) -> int:
        """Return the number of dimensions of the vectors that `encode` returns."""
        dimensions = self._served.dimensions
        return dimensions if self.truncate_dim is None else min(dimensions, self.truncate_dim)

    def get_sentence_embedding_dimension(self) -> int:
        """Return `get_embedding_dimension()`; the older name."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Make `encode` keep only the first `truncate_dim` dimensions inside the block.

        Args:
            truncate_dim: The number of dimensions; None keeps all.
        """
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
        # The library truncates normalised vectors and normalises again only on request; the daemon
        # normalises what it keeps. Integers and bits can only be truncated in the daemon.
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
