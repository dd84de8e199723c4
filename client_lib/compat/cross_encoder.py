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

# As many rows in flight as when texts are encoded, in more requests: each has one query.
_PAIRS_IN_A_REQUEST = 64
_WINDOW = 16


class CrossEncoder(Remote):
    """The reranker of the daemon at `socket`, called as one of sentence-transformers.

    `model_name_or_path`, `device`, `socket` and `timeout` are as for `SentenceTransformer`.
    Scores are those of the model's own activation, as there. An `activation_fn` of another kind
    is applied here where the model leaves its logits as they are, and refused where it does not.

    Raises `UnknownModel` for a model that is not served, `ValueError` for an option that the
    daemon would have to know, `ConnectionLost` where no daemon answers in time.
    """

    num_labels = 1  # a daemon serves no others

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
            raise ValueError(f"num_labels={num_labels}: a daemon's rerankers have one label")
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
        """Return the score of each (query, document): float32 [n], or one number for one pair.

        `convert_to_tensor` makes it a tensor, and without `convert_to_numpy` it is a list of
        tensors. `sentences` is the older name of `inputs`. Pairs that follow each other and
        share a query travel as one request. The daemon cuts its own batches: `batch_size` and
        `chunk_size` are ignored, and `apply_softmax` is, as there for models of one label.

        Raises `ValueError` for what it cannot do, `TypeError` for what is no pair of texts, and
        what `Client.rerank` raises.
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
        """Return `documents` by their score, the best first: `corpus_id`, `score`, and `text`.

        `top_k` keeps so many; `text` is there with `return_documents`; the other arguments are
        those of `predict`, from `prompt_name` to `activation_fn`.
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
        """Return what is still to be done to the daemon's scores; refuse what cannot be."""
        own = self._served.activation
        name = getattr(activation, "__name__", type(activation).__name__)
        if activation is None or name.lower() == own:
            return None
        if own != "identity":
            raise ValueError(
                f"activation_fn={activation!r:.80}: the daemon's scores have been through the "
                f"{own} that {self._served.name} has; set activation_fn in the folder of the "
                "model to torch.nn.modules.linear.Identity for logits, and start the daemon again"
            )
        return activation


def _activated(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    activated = activation(as_tensor(logits)[:, None]).squeeze(-1)
    return cast("NDArray[np.float32]", activated.float().cpu().numpy())


def _as_pairs(inputs: Any) -> tuple[list[Pair], bool]:
    """Return `inputs` as pairs, and whether it is one pair alone."""
    if not is_list(inputs):
        kind = type(inputs).__name__
        raise TypeError(f"predict() needs pairs of texts, (query, document), not {kind}")
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
    """Yield slices of pairs of one query, of a request's length at most."""
    start = 0
    for _, group in groupby(pairs, key=lambda pair: pair[0]):
        documents = [document for _, document in group]
        for rows in chunks(documents, _PAIRS_IN_A_REQUEST):
            yield slice(start + rows.start, start + rows.stop)
        start += len(documents)
