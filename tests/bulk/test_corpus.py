"""Reading texts from files: each format, and the errors for invalid lines."""

import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.bulk.corpus import Corpus
from sidecar.bulk.errors import InputError


def texts(*paths: Path, field: str = "text") -> list[str]:
    return [row.text for row in Corpus(paths, field).rows()]


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "one\n\ntwo\u2028still two\r\nthree", ["one", "", "two\u2028still two", "three"]),
        ("bom.txt", b"\xef\xbb\xbfone\n", ["one"]),
        ("none.txt", "", []),
        ("a.jsonl", '{"text": "one", "n": 1}\n\n{"text": ""}\n', ["one", ""]),
        ("a.csv", 'n,text\n1,"one, and\nhalf"\n\n2,two\n', ["one, and\nhalf", "two"]),
        ("none.csv", "", []),
    ],
)
def test_texts_of_each_format(
    tmp_path: Path, name: str, content: str | bytes, expected: list[str]
) -> None:
    """Each line, object or row is one text, and only a newline ends a line."""
    assert texts(file(tmp_path, name, content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\n\xff\n", "a.txt:2 is not UTF-8"),
        ("a.jsonl", '{"text": "one"}\n{"text": \n', "a.jsonl:2 is not JSON"),
        ("a.jsonl", '{"text": "one"}\n\n["two"]\n', "a.jsonl:3 is not a JSON object"),
        ("a.jsonl", '{"text": "one"}\n{"b": "two"}\n', "a.jsonl:2 has no field 'text', only 'b'"),
        ("a.jsonl", '{"text": null}\n', "a.jsonl:1 holds NoneType in 'text', not a string"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "a.jsonl:1 holds half a character"),
        ("a.csv", "n,text\n1,one\n2\n", "a.csv:3 has 1 cells, but the header has 2"),
        ("a.csv", 'n,text\n1,"one\n', "a.csv:2 is not CSV"),
        ("a.csv", "n,body\n1,one\n", "a.csv:2 has no field 'text', only 'n', 'body'"),
        ("a.docx", "", "unsupported file type, use .txt, .jsonl, .csv or .parquet"),
    ],
)
def test_a_wrong_line_is_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    """An invalid line raises an error that names its file, number and problem."""
    with pytest.raises(InputError) as raised:
        texts(file(tmp_path, name, content))
    assert message in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file is named, both when reading it and when identifying the inputs."""
    missing = Corpus((tmp_path / "none.txt",), "text")
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file"):
        list(missing.rows())
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file"):
        missing.identity()


def parquet(folder: Path, name: str, **columns: list[Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), folder / name)
    return folder / name


def test_several_files_follow_one_another(tmp_path: Path) -> None:
    """Texts of several files follow in order, whatever the formats; `field` names the column."""
    first = parquet(tmp_path, "a.parquet", body=["one", "two"], n=[1, 2])
    second = file(tmp_path, "b.csv", "body\nthree\n")
    assert texts(first, second, field="body") == ["one", "two", "three"]


def test_a_wrong_row_of_parquet_is_named(tmp_path: Path) -> None:
    """An invalid Parquet file, column or row is named, the row by its number."""
    path = parquet(tmp_path, "a.parquet", text=["one", None])
    with pytest.raises(InputError, match=r"a\.parquet, row 2 holds NoneType in 'text'"):
        texts(path)
    with pytest.raises(InputError, match=r"a\.parquet has no column 'body', only 'text'"):
        texts(path, field="body")
    with pytest.raises(InputError, match=r"b\.parquet is not Parquet"):
        texts(file(tmp_path, "b.parquet", "text\n"))


def test_every_text_knows_where_it_stands(tmp_path: Path) -> None:
    """Every text has the file and number of its line, a CSV row that of its last line."""
    files = [
        file(tmp_path, "a.txt", "one\n\n"),
        file(tmp_path, "b.jsonl", '\n{"text": "two"}\n'),
        file(tmp_path, "c.csv", 'text\n"three\nlines"\n\nfour\n'),
    ]
    places = [(row.text, row.place) for row in Corpus(tuple(files), "text").rows()]
    a, b, c = files
    assert places == [
        ("one", f"{a}:1"), ("", f"{a}:2"), ("two", f"{b}:2"), ("three\nlines", f"{c}:3"),
        ("four", f"{c}:5"),
    ]  # fmt: skip


def test_files_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is identified by its absolute path, size and modification time."""
    path = file(tmp_path, "a.txt", "one\n")
    os.utime(path, ns=(1, 1_234_567_890_123))
    monkeypatch.chdir(tmp_path)
    (found,) = Corpus((Path("a.txt"),), "text").identity()
    assert found == {"path": str(path), "bytes": 4, "mtime_ns": 1_234_567_890_123}


def test_a_disk_that_fails_is_told_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read error without an errno is reported with its own text and the file's name."""
    path = parquet(tmp_path, "a.parquet", text=["one"])
    tables = pytest.importorskip("sidecar.bulk.tables")

    def fail(*_: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(tables, "read_field", fail)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read: the disk is on fire"):
        texts(path)
