"""`CrossEncoder` over a daemon."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from client_lib import operations
from client_lib.compat.base import Remote
from client_lib.compat.output import as_tensor, converted
from client_lib.compat.progress import with_bar
from client_lib.compat.refusals import (
    IGNORED,
    check_batch_size,
    refuse_options,
    refuse_other_length,
)
from client_lib.encoding import chunks
from client_lib.texts import check_text, is_list

if TYPE_CHECKING:
    import torch

    from client_lib.compat.output import Output
    from client_lib.operations import Operation
    from client_lib.wire.replies import RerankReply

Pair: TypeAlias = tuple[str, str]
Activation: TypeAlias = Callable[[Any], Any]  # of tensors

# As many rows in flight as when encoding, in more requests, since each has a single query.
_PAIRS_IN_A_REQUEST = 64
_WINDOW = 16


class CrossEncoder(Remote):
    """A daemon's reranker, with the interface of sentence-transformers' class.

    Threads may share an instance.

    Args:
        model_name_or_path: The name or folder that the app would load; the daemon must serve that
            model. None selects the daemon's first reranker.
        device: Where requested tensors are placed; the CPU by default.
        num_labels: Must be 1 or None.
        max_length: Must equal the daemon's token limit, or be None.
        activation_fn: Applied to the scores, by default the model's own. Another one is possible
            only if the model's own is the identity.
        socket: Path of the daemon's socket; by default that of `Client`.
        timeout: Seconds per request, as in `Client`; None means no limit.
        **options: Other options of sentence-transformers. Those that only say where the files are
            or what runs the model are ignored.

    Raises:
        UnknownModel: The daemon does not serve the model.
        ValueError: An option has a value that a daemon cannot honour.
        ConnectionLost: No daemon answered in time.
    """

    num_labels = 1  # the daemon serves no others

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        device: "str | torch.device | None" = None,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Activation | None = None,
        socket: str | os.PathLike[str] | None = None,
        timeout: float | None = 30.0,
        **options: Any,
    ) -> None:
        refuse_options("CrossEncoder", options, IGNORED)
        if num_labels not in {None, 1}:
            raise ValueError(f"num_labels={num_labels}: rerankers in a daemon have one label")
        super().__init__(model_name_or_path, "rerank", device, socket, timeout)
        refuse_other_length("max_length", max_length, self._served)
        self._to_apply(activation_fn)
        self.activation_fn = activation_fn

    def predict(
        self,
        inputs: Sequence[str] | Iterable[Sequence[str]] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: "str | torch.device | list[str | torch.device] | None" = None,
        pool: None = None,
        chunk_size: int | None = None,
        *,
        sentences: Sequence[str] | Iterable[Sequence[str]] | None = None,
        **options: Any,
    ) -> "Output":
        """Return the score of each (query, document) pair.

        Consecutive pairs with the same query are sent as one request.

        Args:
            inputs: One pair, or several.
            prompt_name: Must be None.
            prompt: Must be None.
            batch_size: Must be positive; otherwise ignored, since the daemon forms its own batches.
            show_progress_bar: Whether to show a progress bar; None shows one if the log level is
                INFO or DEBUG.
            activation_fn: As for the class, whose own is the default.
            apply_softmax: Ignored, as in sentence-transformers for models with one label.
            convert_to_numpy: Return an array; if false, a list of tensors.
            convert_to_tensor: Return one tensor; takes precedence over `convert_to_numpy`.
            device: Where tensors are placed; by default the instance's `device`.
            pool: Must be None.
            chunk_size: Ignored.
            sentences: The older name of `inputs`.
            **options: Other options of sentence-transformers; they must be None.

        Returns:
            The scores, float32 [n], or a single score for a single pair.

        Raises:
            ValueError: An option has a value that a daemon cannot honour.
            TypeError: `inputs` are not pairs of texts.
            SidecarError: As for `Client.rerank`.
            ImportError: A tensor needs torch, or the progress bar tqdm.
        """
        del chunk_size, apply_softmax
        asked = {**options, "prompt_name": prompt_name, "prompt": prompt, "pool": pool}
        refuse_options("predict", asked)
        check_batch_size(batch_size)
        activation = self._to_apply(activation_fn or self.activation_fn)
        pairs, single = _as_pairs(sentences if inputs is None else inputs)
        scores = self._scores(pairs, show_progress_bar)
        if activation is not None and pairs:
            scores = _activated(scores, activation)
        device = self.device if device is None else device
        result = converted(scores, device, to_numpy=convert_to_numpy, to_tensor=convert_to_tensor)
        return cast("Output", result[0]) if single else result

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *args: Any,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Rank `documents` by their relevance to `query`.

        Args:
            query: The query.
            documents: The documents.
            top_k: How many results to return; all by default.
            return_documents: Whether to include each document's `text`.
            *args: Those of `predict`, from `prompt_name`.
            **options: Those of `predict`.

        Returns:
            One dictionary per document, best first, with its index `corpus_id` and its `score`.

        Raises:
            ValueError, TypeError, SidecarError, ImportError: As for `predict`.
        """
        scores = self.predict([(query, text) for text in documents], *args, **options)
        hits: list[dict[str, Any]] = [
            {"corpus_id": index, "score": float(score)} for index, score in enumerate(scores)
        ]
        if return_documents:
            hits = [{**hit, "text": documents[hit["corpus_id"]]} for hit in hits]
        return sorted(hits, key=lambda hit: hit["score"], reverse=True)[:top_k]

    def _scores(self, pairs: Sequence[Pair], show: bool | None) -> NDArray[np.float32]:
        runs = list(_runs(pairs))
        asked = [self._ask(pairs, run) for run in runs]
        replies = self._client.pipeline(asked, window=_WINDOW)
        scores = np.empty(len(pairs), np.float32)
        for run, reply in zip(runs, with_bar(replies, len(asked), show=show), strict=True):
            for hit in reply.results:
                scores[run.start + hit.index] = hit.relevance_score
        return scores

    def _ask(self, pairs: Sequence[Pair], run: slice) -> "Operation[RerankReply]":
        texts = [text for _, text in pairs[run]]
        asked = operations.rerank(pairs[run.start][0], texts, model=self._served.name)
        return replace(asked, first=run.start)

    def _to_apply(self, activation: Activation | None) -> Activation | None:
        """Return the activation left to apply to the daemon's scores, or None.

        Raises `ValueError` if the daemon has already applied another one.
        """
        own = self._served.activation
        name = getattr(activation, "__name__", type(activation).__name__)
        if activation is None or name.lower() == own:
            return None
        if own != "identity":
            raise ValueError(
                f"activation_fn={activation!r:.80}: the daemon already applies the {own} of "
                f"{self._served.name}; for logits, set activation_fn in the model folder to "
                "torch.nn.modules.linear.Identity and restart the daemon"
            )
        return activation


def _activated(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    activated = activation(as_tensor(logits)[:, None]).squeeze(-1)
    return cast("NDArray[np.float32]", activated.float().cpu().numpy())


def _as_pairs(inputs: Any) -> tuple[list[Pair], bool]:
    """Return `inputs` as pairs, and whether they were a single pair."""
    if not is_list(inputs):
        kind = type(inputs).__name__
        raise TypeError(f"predict() takes (query, document) pairs of texts, not {kind}")
    rows = inputs.tolist() if isinstance(inputs, np.ndarray) else list(inputs)
    single = bool(rows) and isinstance(rows[0], str)
    return [_as_pair(row, index) for index, row in enumerate([rows] if single else rows)], single


def _as_pair(row: Any, index: int) -> Pair:
    pair = tuple(row) if is_list(row) else ()
    if len(pair) != 2 or not all(isinstance(text, str) for text in pair):  # noqa: PLR2004
        raise TypeError(f"inputs[{index}] must be two strings, (query, document)")
    for text in pair:
        check_text(text, f"inputs[{index}]", index)
    return cast("Pair", pair)


def _runs(pairs: Sequence[Pair]) -> Iterator[slice]:
    """Yield slices of consecutive pairs with one query, each short enough for a request."""
    start = 0
    for _, group in groupby(pairs, key=lambda pair: pair[0]):
        documents = [document for _, document in group]
        for rows in chunks(documents, _PAIRS_IN_A_REQUEST):
            yield slice(start + rows.start, start + rows.stop)
        start += len(documents)
