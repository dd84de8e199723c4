"""A tokenizer's vocabulary, from tokenizer.json or the older vocabulary files."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers.models import BPE, WordPiece

from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.tokenizer_classes import Vocabulary


def read_vocabulary(folder: Path, kind: str, file: Mapping[str, Any] | None) -> Vocabulary:
    """Return the vocabulary for a `kind` of model: "WordPiece", "BPE" or "Unigram".

    `file` is the folder's tokenizer.json, if any. Raises `UnknownArchitectureError` if it holds
    another kind of model, or if only the library can convert the vocabulary (SentencePiece).
    """
    if file is None:
        return _from_old_files(folder, kind)
    model = file["model"]
    # The first versions omit the type of a WordPiece model.
    found = model.get("type", "WordPiece" if isinstance(model["vocab"], dict) else None)
    if found != kind:
        raise UnknownArchitectureError(
            f"{folder}/tokenizer.json holds a {found} model, but its class needs a {kind}"
        )
    if kind == "Unigram":
        pieces = [(str(piece), float(score)) for piece, score in model["vocab"]]
        return Vocabulary(pieces, charsmap=_charsmap(file.get("normalizer")))
    return Vocabulary(model["vocab"], [_merge(merge) for merge in model.get("merges", ())])


def _merge(merge: Any) -> tuple[str, ...]:
    return tuple(merge.split(" ") if isinstance(merge, str) else merge)


def _charsmap(normalizer: Mapping[str, Any] | None) -> bytes | None:
    """Return the normalizer's first precompiled charsmap, which SentencePiece models have."""
    if normalizer is None:
        return None
    parts = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    maps = [part["precompiled_charsmap"] for part in parts if part["type"] == "Precompiled"]
    return base64.b64decode(maps[0]) if maps else None


def _from_old_files(folder: Path, kind: str) -> Vocabulary:
    texts = {name: folder / name for name in ("vocab.txt", "vocab.json", "merges.txt")}
    present = {name for name, path in texts.items() if path.is_file()}
    if kind == "WordPiece" and "vocab.txt" in present:
        return Vocabulary(WordPiece.read_file(str(texts["vocab.txt"])))
    if kind == "BPE" and {"vocab.json", "merges.txt"} <= present:
        return Vocabulary(*BPE.read_file(str(texts["vocab.json"]), str(texts["merges.txt"])))
    raise UnknownArchitectureError(
        f"{folder} has no tokenizer.json: to convert a SentencePiece model, install transformers "
        "and sentencepiece (the extra `server`)"
    )
