"""Compare ours with the library's: identical token ids, and outputs equal up to rounding."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32
from sidecar.models.description import Task
from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.oracle.answers import Answers
from sidecar.models.oracle.texts import Probe
from sidecar.models.rows import Row, Text
from sidecar.models.verification import Verification

# Two correct FP32 computations differ by less than this: cosines by 1e-6, lengths by 1e-5, scores
# by 1e-5.
_LEAST_COSINE = 0.99999
_LENGTH_TOLERANCE = 1e-3
_SCORE_TOLERANCE = 1e-4
# A vector shorter than this counts as zero: it has no direction to compare.
_ZERO = 1e-12
_SHOWN = 60


class DiffersError(UnknownArchitectureError):
    """A graph here does not give what the library gives; the message says where they differ."""


class Ours(Protocol):
    """What is compared: a model as it would be served in FP32."""

    @property
    def task(self) -> Task: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def prompts(self) -> Mapping[str, str]: ...
    @property
    def default_prompt_name(self) -> str | None: ...

    def tokenize(self, texts: Sequence[Text]) -> Sequence[Row]:
        """Return a row for each text."""

    def forward(self, row: Row) -> Float32:
        """Return float32 [outputs]; vectors are not normalised."""


def compare(answers: Answers, ours: Ours) -> Verification:
    """Return the proof that `ours` gives what the library gave.

    Raises `DiffersError`, naming the first text that differs, and its first differing token id.
    """
    for probe, ids, types, row in zip(
        answers.ids_of, answers.ids, answers.token_types, _rows(ours, answers.ids_of), strict=True
    ):
        _check_ids(probe, "token", ids, row.ids)
        _check_ids(probe, "token type", types, row.token_types)
    if ours.task == "rerank":
        return _compare_scores(answers, ours)
    return _compare_vectors(answers, ours)


def _rows(ours: Ours, probes: Sequence[Probe]) -> Sequence[Row]:
    return ours.tokenize([_with_prompt(ours, probe) for probe in probes])


def _with_prompt(ours: Ours, probe: Probe) -> Text:
    if not isinstance(probe.text, str):
        return probe.text
    name = probe.prompt_name or ours.default_prompt_name
    if name is None:
        return probe.text
    if name not in ours.prompts:
        raise DiffersError(f"sentence-transformers has a prompt {name!r} that was not found here")
    return ours.prompts[name] + probe.text


def _check_ids(probe: Probe, what: str, theirs: NDArray[np.int64], own: NDArray[np.int64]) -> None:
    if np.array_equal(theirs, own):
        return
    shared = min(len(theirs), len(own))
    apart = np.flatnonzero(theirs[:shared] != own[:shared])
    index = int(apart[0]) if len(apart) else shared
    raise DiffersError(
        f"{_shown(probe)} is tokenized differently than by sentence-transformers: "
        f"{what} {index} is {_at(theirs, index)} there, {_at(own, index)} here"
    )


def _at(ids: NDArray[np.int64], index: int) -> str:
    return str(ids[index]) if index < len(ids) else "absent"


def _compare_scores(answers: Answers, ours: Ours) -> Verification:
    own = _outputs(answers, ours)
    errors = np.abs(own - answers.outputs).max(axis=1)
    worst = int(errors.argmax())
    if not errors[worst] <= _SCORE_TOLERANCE:
        raise DiffersError(
            f"{_shown(answers.outputs_of[worst])} is scored {own[worst, 0]:.6f}, "
            f"but {answers.outputs[worst, 0]:.6f} by sentence-transformers"
        )
    return _verified(answers, score_error_max=float(errors[worst]))


def _compare_vectors(answers: Answers, ours: Ours) -> Verification:
    own, theirs = _outputs(answers, ours), answers.outputs
    if own.shape != theirs.shape:
        raise DiffersError(
            f"vectors have {own.shape[1]} dimensions, but {theirs.shape[1]} by "
            "sentence-transformers"
        )
    lengths, expected = np.linalg.norm(own, axis=1), np.linalg.norm(theirs, axis=1)
    # A NaN counts as -1, so that such a vector differs.
    cosines = (own * theirs).sum(axis=1) / np.maximum(lengths * expected, _ZERO**2)
    both_zero = (lengths < _ZERO) & (expected < _ZERO)
    cosines = np.where(both_zero, 1.0, np.nan_to_num(cosines, nan=-1.0))
    worst = int(cosines.argmin())
    if cosines[worst] < _LEAST_COSINE:
        raise DiffersError(
            f"{_shown(answers.outputs_of[worst])} has a vector whose cosine to that of "
            f"sentence-transformers is {cosines[worst]:.6f}"
        )
    stretched = np.abs(lengths - expected) > _LENGTH_TOLERANCE * np.maximum(expected, _ZERO)
    if (stretched := stretched & ~both_zero).any():
        first = int(stretched.argmax())
        raise DiffersError(
            f"{_shown(answers.outputs_of[first])} has a vector of length {lengths[first]:.6f}, "
            f"but {expected[first]:.6f} by sentence-transformers"
        )
    return _verified(answers, cosine_min=float(min(cosines[worst], 1.0)))


def _outputs(answers: Answers, ours: Ours) -> Float32:
    outputs = np.stack([ours.forward(row) for row in _rows(ours, answers.outputs_of)])
    if ours.normalize:
        outputs /= np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), _ZERO)
    return outputs


def _verified(
    answers: Answers, *, cosine_min: float | None = None, score_error_max: float | None = None
) -> Verification:
    return Verification(
        versions=answers.versions,
        texts=len(answers.ids_of),
        outputs=len(answers.outputs_of),
        cosine_min=None if cosine_min is None else round(cosine_min, 7),
        score_error_max=None if score_error_max is None else round(score_error_max, 7),
    )


def _shown(probe: Probe) -> str:
    text = probe.text if isinstance(probe.text, str) else " | ".join(probe.text)
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    prompt = f" with the prompt {probe.prompt_name!r}" if probe.prompt_name else ""
    return f"the text {cut!r}{prompt}"
