"""Comparison of a folder as served by a daemon with the library's results for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, open_model
from sidecar.models.model import Model
from sidecar.models.precision import Precision
from sidecar.models.rows import Text
from sidecar.models.torch_model import TorchModel

from .case import Outcome

LEAST_COSINE = 0.99999
MOST_SCORE_ERROR = 1e-4
_FP32 = Precision("none", weight_bits=8, floor=0.0)
_LONG = "The quick brown fox jumps over the lazy dog while Größe und Maß 東京 decide. "
# Texts for comparing token ids, in addition to every special and added token. Ids suffice, because
# they determine the output.
_TOKENIZED = (
    "MIXED Case Words AND camelCase",
    "e\u0301 a\u0308 n\u0303 combining marks",
    "東京都で日本語のテストをします。カタカナ",
    "한국어 문장입니다",
    "كيف يمكنني إعادة تعيين كلمة المرور؟",
    "हिन्दी में एक वाक्य",
    "👩‍👩‍👧 🎉 emoji 🇫🇷",
    "3.14159 2024-11-27 1,000,000 50%",
    "control \x00 \x07 \x1b \u200b \ufeff \u00ad characters",
    "ﬁne ﬂow ① Ⅳ full-\uff57\uff49\uff44\uff54\uff48",
    " ",
    " \t\n ",
    "  leading and trailing  ",
    "line\none\r\nline\u2028two\u00a0hard",
    "a" * 300,
    "https://example.org/path?query=1&b=2#x_y-z",
    "don't can't I'm, you're; (well) [no] {yes} <html> </s>x",
    "ΑΒΓ ΣΊΣΥΦΟΣ İstanbul ǅ ẞ",
)
# Texts whose outputs are compared as well: empty, short and truncated ones.
_COMPUTED = (
    "",
    "How do I reset my password?",
    "naïve café ÅNGSTRÖM ÉCOLE straße",
    "我们在北京大学学习计算机科学",
    _LONG * 4,
    "東" * 200,
)
_DOCUMENTS = (*_COMPUTED[:4], _LONG * 4)


@dataclass
class Library:
    """The library's own pipeline for a folder, loaded on first use."""

    folder: Path
    task: Task

    @cached_property
    def pipeline(self) -> Any:
        """Load the pipeline; raises whatever the library raises for the folder."""
        import torch
        from sentence_transformers import CrossEncoder, SentenceTransformer

        kind = CrossEncoder if self.task == "rerank" else SentenceTransformer
        path = str(self.folder)
        # Explicit, because BF16 weights would otherwise be used as such. It applies only to the
        # transformer; `float` below converts the other modules.
        kwargs = {"dtype": torch.float32}
        return kind(path, device="cpu", local_files_only=True, model_kwargs=kwargs).float()

    def ids(self, text: Text) -> list[int]:
        """Return the library's token ids for `text`; for a pair, its prompt comes first."""
        prompt = self.pipeline._resolve_prompt(None, None) if self.task == "rerank" else None
        features = self.pipeline.preprocess([text], prompt=prompt)
        ids: list[int] = features["input_ids"].reshape(-1).tolist()
        return ids

    def results(self, texts: Sequence[Text], **prompt: str | None) -> list[Any]:
        """Return the vector of each text, by default without a prompt, or the score as [1].

        A result is None if the library raises, because it allows texts longer than the position
        table and ids outside the embedding table.
        """
        try:
            return self._computed(texts, **prompt)
        except (IndexError, RuntimeError):
            return [self.results([text], **prompt)[0] for text in texts] if texts[1:] else [None]

    def _computed(self, texts: Sequence[Text], **prompt: str | None) -> list[Any]:
        if self.task == "rerank":
            scores = self.pipeline.predict(list(texts), batch_size=1)
            return [np.atleast_1d(score) for score in scores]
        return list(self.pipeline.encode(list(texts), batch_size=1, **(prompt or {"prompt": ""})))

    def tokens(self) -> list[str]:
        """Return the special and added tokens."""
        tokenizer = getattr(self.pipeline.tokenizer, "_tokenizer", self.pipeline.tokenizer)
        return [str(each) for each in tokenizer.get_added_tokens_decoder().values()]


def compare(library: Library, cache: Path) -> Outcome:
    """Return how the library's folder is served, or "DIFFERENT" if the library's results differ."""
    try:
        model = opened(library.folder, library.task, cache)
    except ModelError as error:
        return Outcome("refused", str(error))
    except Exception as error:  # noqa: BLE001 - a traceback is also an outcome, a bad one
        return Outcome("crashed", repr(error))
    path = "library" if isinstance(model, TorchModel) else "graph"
    try:
        _ = library.pipeline
    except Exception as error:  # noqa: BLE001 - the library may raise anything for such a folder
        return Outcome("DIFFERENT", f"{path}: the library raises {error!r}")
    different = first_difference(model, library)
    return Outcome("DIFFERENT", f"{path}: {different}") if different else Outcome(path)


def opened(folder: Path, task: Task, cache: Path) -> Model | TorchModel:
    """Return the model in `folder` as a daemon would serve it without quantization."""
    wanted = Wanted(name=str(folder), task=task, precision=_FP32, reason="as asked")
    return open_model(wanted, cache)


def first_difference(model: Model | TorchModel, library: Library) -> str:
    """Return a description of the first difference over all probes, or ""."""
    for text in probes(library):
        if difference := _different_ids(model, library, text):
            return difference
    computed = _inputs(library.task, _COMPUTED)
    for text, theirs in zip(computed, library.results(computed), strict=True):
        if difference := _different_output(model, library, text, theirs):
            return difference
    return next(_different_prompts(model, library), "") if library.task == "embed" else ""


def probes(library: Library) -> list[Text]:
    """Return the probe texts (for a reranker, pairs), with each special and added token in one."""
    around = [f"before {token} after{token}" for token in library.tokens()]
    return _inputs(library.task, (*_COMPUTED, *_TOKENIZED, *around))


def _inputs(task: Task, texts: Sequence[str]) -> list[Text]:
    """Return the texts, or for a reranker a pair from each, plus pairs of short and long texts."""
    if task == "embed":
        return list(texts)
    pairs = [(text, _DOCUMENTS[index % len(_DOCUMENTS)]) for index, text in enumerate(texts)]
    return [*pairs, (_LONG, _LONG * 4), ("short", _LONG * 4), (_LONG * 4, "short")]


def _different_ids(model: Model | TorchModel, library: Library, text: Text) -> str:
    ours, theirs = model.tokenize([text])[0].ids.tolist(), library.ids(text)
    if ours == theirs or library.results([text])[0] is None:
        return ""
    return f"{text!r:.40}: ids {_near(ours, theirs)}"


def _different_output(model: Model | TorchModel, library: Library, text: Text, theirs: Any) -> str:
    # Without ids there is nothing to compute, and the daemon refuses such texts.
    if theirs is None or not library.ids(text):
        return ""
    return distance(_result(model, text), theirs, library.task, f"{text!r:.40}")


def _near(ours: list[int], theirs: list[int]) -> str:
    pairs = zip([*ours, *[-1] * len(theirs)], [*theirs, *[-1] * len(ours)], strict=True)
    at = next(index for index, (our, their) in enumerate(pairs) if our != their)
    return f"{ours[at : at + 3]} at {at} of {len(ours)}, not {theirs[at : at + 3]} of {len(theirs)}"


def _different_prompts(model: Model | TorchModel, library: Library) -> Iterator[str]:
    text = "What is a prompt for?"
    for name in (None, *library.pipeline.prompts):
        stated = name or model.default_prompt_name
        if stated is not None and stated not in model.prompts:
            yield f"prompt {stated!r} is unknown"
            continue
        prompt = model.prompts[stated] if stated else ""
        (theirs,) = library.results([text], prompt_name=name)
        if theirs is not None and (
            far := distance(_result(model, (prompt or "") + text), theirs, "embed", f"{name}")
        ):
            yield far


def _result(model: Model | TorchModel, text: Text) -> Any:
    result = model.forward(model.tokenize([text])[0])
    # Like the library's Normalize, which keeps a vector of zeros.
    return result / max(np.linalg.norm(result), 1e-12) if model.normalize else result


def distance(ours: Any, theirs: Any, task: Task, what: str) -> str:
    """Return how `ours` differs from `theirs`, prefixed by `what`, or "" if they are close."""
    if ours.shape != theirs.shape:
        return f"{what}: shape {ours.shape}, not {theirs.shape}"
    if task == "rerank":
        error = float(np.abs(ours - theirs).max())
        return "" if error <= MOST_SCORE_ERROR else f"{what}: score off by {error:.2g}"
    own, other = float(np.linalg.norm(ours)), float(np.linalg.norm(theirs))
    if not own or not other:
        return "" if own == other else f"{what}: length {own}, not {other}"
    cosine = float(ours @ theirs) / (own * other)
    if not cosine >= LEAST_COSINE:
        return f"{what}: cosine {cosine:.5f}"
    ratio = own / other
    return "" if abs(ratio - 1) < MOST_SCORE_ERROR else f"{what}: length off by {ratio:.5f}"
