"""Reading the vocabulary of a tokenizer.json, and checking that it fits the model."""

import base64
from pathlib import Path
from typing import Any

import pytest

from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.vocabulary import read_vocabulary
from sidecar.models.vocabulary import check_vocabulary

CHARSMAP = b"\x01\x02\xff"
PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(CHARSMAP).decode()}


def read(kind: str, model: dict[str, Any], normalizer: Any = None) -> Any:
    return read_vocabulary(Path("/model"), kind, {"model": model, "normalizer": normalizer})


@pytest.mark.parametrize("merges", [["a b", "ab c"], [["a", "b"], ["ab", "c"]]])
def test_merges_may_be_written_in_two_ways(merges: list[Any]) -> None:
    """Merges may be written as pairs or, as in older files, joined by a space."""
    found = read("BPE", {"type": "BPE", "vocab": {"a": 0}, "merges": merges})
    assert found.pieces == {"a": 0}
    assert list(found.merges) == [("a", "b"), ("ab", "c")]


@pytest.mark.parametrize(
    ("normalizer", "charsmap"),
    [
        (None, None),
        (PRECOMPILED, CHARSMAP),
        ({"type": "Lowercase"}, None),
        ({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, PRECOMPILED]}, CHARSMAP),
        ({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}, None),
    ],
)
def test_a_sentencepiece_models_map_of_characters_is_read(
    normalizer: Any, charsmap: bytes | None
) -> None:
    """A SentencePiece model's character map is read, on its own or among other normalizers."""
    vocabulary = [["<unk>", 0], ["a", -1.5]]
    found = read("Unigram", {"type": "Unigram", "vocab": vocabulary}, normalizer)
    assert found.charsmap == charsmap
    assert found.pieces == [("<unk>", 0.0), ("a", -1.5)]


def test_another_kind_of_model_is_refused() -> None:
    """A model of another kind is refused; a file that states no kind holds WordPiece."""
    assert read("WordPiece", {"vocab": {"a": 0}}).pieces == {"a": 0}
    with pytest.raises(UnknownArchitectureError, match=r"holds a WordPiece model, but .* a BPE"):
        read("BPE", {"vocab": {"a": 0}})
    with pytest.raises(UnknownArchitectureError, match="holds a Unigram model"):
        read("WordPiece", {"type": "Unigram", "vocab": []})


def test_the_highest_id_has_the_last_row(tmp_path: Path) -> None:
    """An embedding table may have more rows than there are ids, but not fewer."""
    check_vocabulary(tmp_path, 5, 6)
    check_vocabulary(tmp_path, 5, 8)
    with pytest.raises(ModelError, match="ids up to 6, but the embedding table has 6 rows"):
        check_vocabulary(tmp_path, 6, 6)
