"""A user's own calibration texts."""

from pathlib import Path

import pytest

from sidecar.models.errors import ModelError
from sidecar.models.texts import read_texts

LINES = [f"text number {i} " + "word " * i for i in range(10)]


def test_lines_of_a_text_file(tmp_path: Path) -> None:
    """A text file holds one text per line; blank lines are skipped."""
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(LINES))
    assert len(read_texts(path, "embed")) == 10


def test_text_field_of_json_lines(tmp_path: Path) -> None:
    """A JSON Lines file holds a text in the `text` field of each line, as retrieval corpora do."""
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "".join(f'{{"_id": "{i}", "text": "{text}"}}\n' for i, text in enumerate(LINES))
    )
    assert read_texts(path, "embed") == tuple(LINES)


def test_reranker_gets_pairs(tmp_path: Path) -> None:
    """For a reranker, short texts become queries and long ones passages."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES))
    pairs = read_texts(path, "rerank")
    assert all(len(query) <= len(passage) for query, passage in pairs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("few.txt", "one\ntwo\n", "at least 8"),
        ("bad.jsonl", "{\n" * 9, ":1 is not JSON"),
        ("other.jsonl", '{"body": "x"}\n' * 9, 'string "text"'),
    ],
)
def test_unusable_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    """Too few texts, invalid JSON and a missing text are each reported with the file's name."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        read_texts(tmp_path / name, "embed")


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that does not exist is reported as unreadable."""
    with pytest.raises(ModelError, match="cannot be read"):
        read_texts(tmp_path / "none.txt", "embed")


def test_eight_texts_are_enough(tmp_path: Path) -> None:
    """Eight texts are enough and seven are not; blank lines do not count."""
    path = tmp_path / "texts.txt"
    path.write_text("\n \n".join(LINES[:8]))
    assert read_texts(path, "embed") == tuple(LINES[:8])
    path.write_text("\n \n".join(LINES[:7]))
    with pytest.raises(ModelError, match="has 7 texts"):
        read_texts(path, "embed")


def test_half_a_character_is_named_by_its_line(tmp_path: Path) -> None:
    """A lone surrogate, which no tokenizer accepts, is reported with its line."""
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "whole"}\n' * 8 + '{"text": "half \\ud83d"}\n')
    with pytest.raises(ModelError, match=r"texts\.jsonl:9 holds half a character"):
        read_texts(path, "embed")
