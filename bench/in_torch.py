"""What users have today, in this process: sentence-transformers in FP32, and PyTorch's own INT8."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn

from sidecar.encoder.architecture import Float32
from sidecar.models.description import Task
from sidecar.models.rows import Text

_BATCH = 16
_Module = TypeVar("_Module", bound=nn.Module)


def textbook_int8(model: _Module) -> _Module:
    """Return a copy of the model after the recipe of PyTorch's documentation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what the web tells
        quantize: Any = torch.ao.quantization.quantize_dynamic
        return quantize(model, {nn.Linear}, dtype=torch.qint8)


class InTorch:
    """One model of sentence-transformers on the CPU, in padded batches of 16."""

    def __init__(self, model: SentenceTransformer | CrossEncoder) -> None:
        self._model = model

    @classmethod
    def in_fp32(cls, folder: Path, task: Task, threads: int) -> Self:
        """Load the model; all of torch computes with `threads` from here on."""
        torch.set_num_threads(threads)
        transformers.logging.disable_progress_bar()
        kind = CrossEncoder if task == "rerank" else SentenceTransformer
        # The library keeps the precision of the file, which may be FP16.
        options = {"dtype": torch.float32}
        return cls(kind(str(folder), device="cpu", model_kwargs=options).eval())

    def in_int8(self) -> Self:
        """Return the model after PyTorch's recipe."""
        return type(self)(textbook_int8(self._model))

    def __call__(self, texts: Sequence[Text]) -> Float32:
        """Return float32 [texts, outputs]: vectors, or scores."""
        options = {"batch_size": _BATCH, "show_progress_bar": False}
        if isinstance(self._model, CrossEncoder):
            return np.asarray(self._model.predict(list(texts), **options)).reshape(-1, 1)
        return np.asarray(self._model.encode(list(texts), **options))

    @property
    def weight_bytes(self) -> int:
        tensors = (t for value in self._model.state_dict().values() for t in _tensors(value))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of an entry: a quantized layer's weight and bias are one, packed."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _tensors(each)
