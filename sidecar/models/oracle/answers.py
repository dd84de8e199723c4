"""sentence-transformers' answers about a folder, in a file that can be read without torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32
from sidecar.models.oracle.texts import Probe

# What an inquiry writes to its folder: the answers and the tokenizer, or why there are none.
ANSWERS, TOKENIZER, FAILURE = "answers.npz", "tokenizer.json", "failure.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The library's token ids for `ids_of`, and its outputs for `outputs_of`.

    `ids` and `token_types` are int64 [tokens] each, in the order of `ids_of`; `outputs` is float32
    [len(outputs_of), dimensions], or [len(outputs_of), 1] for scores.
    """

    versions: Mapping[str, str]
    ids_of: tuple[Probe, ...]
    ids: tuple[NDArray[np.int64], ...]
    token_types: tuple[NDArray[np.int64], ...]
    outputs_of: tuple[Probe, ...]
    outputs: Float32


def write(path: Path, answers: Answers, *, about: str = "") -> None:
    """Write `answers` to `path`, a NumPy archive.

    `about` is the folder's fingerprint, for answers that are kept.
    """
    meta = {
        "about": about,
        "versions": dict(answers.versions),
        "ids_of": answers.ids_of,
        "outputs_of": answers.outputs_of,
    }
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
            lengths=np.array([len(each) for each in answers.ids], np.int64),
            ids=np.concatenate(answers.ids).astype(np.int32),
            token_types=np.concatenate(answers.token_types).astype(np.int8),
            outputs=answers.outputs,
        )


def read(path: Path) -> tuple[Answers, str]:
    """Return the answers in `path` and, if they were kept, the folder's fingerprint."""
    with np.load(path, allow_pickle=False) as archive:
        meta: dict[str, Any] = json.loads(archive["meta"].tobytes())
        ends = np.cumsum(archive["lengths"])[:-1]
        answers = Answers(
            versions=meta["versions"],
            ids_of=tuple(map(_probe, meta["ids_of"])),
            ids=tuple(np.split(archive["ids"].astype(np.int64), ends)),
            token_types=tuple(np.split(archive["token_types"].astype(np.int64), ends)),
            outputs_of=tuple(map(_probe, meta["outputs_of"])),
            outputs=archive["outputs"],
        )
        return answers, meta["about"]


def _probe(fields: list[Any]) -> Probe:
    text, prompt_name = fields
    return Probe(text if isinstance(text, str) else (text[0], text[1]), prompt_name)
