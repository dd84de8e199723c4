"""A file of texts is read, or reported as invalid."""

from pathlib import Path

import pytest

from bench import texts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "texts.jsonl"


def test_the_first_texts_are_read(file: Path) -> None:
    """The first n texts are read, or all if there are fewer; other fields are ignored."""
    file.write_text('{"text": "one", "id": 1}\n{"text": "two\\u2028more"}\n{"text": ""}\n')
    assert texts.read(file, 2) == ["one", "two\u2028more"]
    assert len(texts.read(file, 9)) == 3


@pytest.mark.parametrize("line", ["words", '{"id": 1}', '{"text": 1}', "[]", "1", ""])
def test_a_line_of_another_form_ends_the_program(file: Path, line: str) -> None:
    """An invalid line ends the program with its file, its number and what is expected."""
    file.write_text(f'{{"text": "one"}}\n{line}\n')
    with pytest.raises(SystemExit, match=rf"{file}:2 .* `text`"):
        texts.read(file, 9)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: None])
def test_a_file_without_texts_ends_the_program(file: Path, make: object) -> None:
    """An empty file, a folder or a missing file ends the program with what is expected."""
    assert callable(make)
    make(file)
    with pytest.raises(SystemExit, match=rf"{file}.*: .* `text`|{file} cannot .* `text`"):
        texts.read(file, 9)
