"""Parquet output: the files' columns and the vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar.bulk.corpus import Corpus
from sidecar.bulk.errors import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from sidecar.bulk import tables  # noqa: E402 - needs pyarrow


def written(folder: Path, *paths: Path) -> tuple[Any, np.ndarray[Any, Any], list[int]]:
    corpus = Corpus(paths, "text")
    rows = sum(1 for _ in corpus.rows())
    vectors = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    shown: list[int] = []
    with (folder / "out.parquet").open("wb") as file:
        tables.write(corpus, vectors, file, shown.append)
    return pq.read_table(folder / "out.parquet"), vectors, shown


def test_columns_of_parquet_are_kept(tmp_path: Path) -> None:
    """Parquet columns keep their types, and vectors are added as lists of d float32."""
    source = pa.table({"id": pa.array([7, 8], pa.int16()), "text": ["one", "two"]})
    pq.write_table(source, tmp_path / "a.parquet")
    table, vectors, shown = written(tmp_path, tmp_path / "a.parquet")
    assert table.schema.types == [pa.int16(), pa.string(), pa.list_(pa.float32(), 3)]
    assert table.select(["id", "text"]) == source
    assert table["embedding"].to_pylist() == vectors.tolist()
    assert shown == [2]


def test_records_become_columns(tmp_path: Path) -> None:
    """Columns combine all files: missing fields are null, and integers widen to floats."""
    (tmp_path / "a.jsonl").write_text('{"text": "one", "n": 1}\n{"n": 2.5, "text": "two"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "three", "more": ["x"]}\n')
    table, vectors, _ = written(tmp_path, tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert table.drop_columns("embedding").to_pylist() == [
        {"text": "one", "n": 1.0, "more": None},
        {"text": "two", "n": 2.5, "more": None},
        {"text": "three", "n": None, "more": ["x"]},
    ]
    assert table["embedding"].to_pylist() == vectors.tolist()


def test_columns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Incompatible columns are refused, naming the first file that does not match."""
    (tmp_path / "a.jsonl").write_text('{"text": "one", "n": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "two", "n": ["1"]}\n')
    corpus = Corpus((tmp_path / "a.jsonl", tmp_path / "b.jsonl"), "text")
    with pytest.raises(InputError, match=r"b\.jsonl has incompatible columns"):
        tables.schema_of(corpus)


def test_a_column_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    """An existing `embedding` column is refused, not replaced."""
    (tmp_path / "a.csv").write_text("text,embedding\none,1\n")
    with pytest.raises(InputError, match="'embedding' already exists"):
        tables.schema_of(Corpus((tmp_path / "a.csv",), "text"))


def test_rows_are_in_memory_by_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are processed in blocks, which keep rows, vectors and row numbers in order."""
    monkeypatch.setattr(tables, "_ROWS", 2)
    source = pa.table({"text": ["a", "b", "c"], "id": [1, 2, 3]})
    pq.write_table(source, tmp_path / "a.parquet")
    lines = "".join(f'{{"text": "{text}"}}\n' for text in "defgh")
    (tmp_path / "b.jsonl").write_text(lines)
    table, vectors, shown = written(tmp_path, tmp_path / "a.parquet", tmp_path / "b.jsonl")
    assert shown == [2, 3, 5, 7, 8]
    assert table["text"].to_pylist() == list("abcdefgh")
    assert table["id"].to_pylist() == [1, 2, 3, *[None] * 5]
    assert table["embedding"].to_pylist() == vectors.tolist()
    rows = tables.read_field(tmp_path / "a.parquet", "text")
    assert list(rows) == [(1, {"text": "a"}), (2, {"text": "b"}), (3, {"text": "c"})]
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 5


def test_columns_of_every_block_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema includes fields that first appear in later blocks; CSV columns are strings."""
    monkeypatch.setattr(tables, "_ROWS", 2)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 3 + '{"text": "b", "late": 5}\n')
    (tmp_path / "b.csv").write_text("text,n\nc,1\n")
    corpus = Corpus((tmp_path / "a.jsonl", tmp_path / "b.csv"), "text")
    schema = tables.schema_of(corpus)
    assert dict(zip(schema.names, schema.types, strict=True)) == {
        "text": pa.string(), "late": pa.int64(), "n": pa.string(),
    }  # fmt: skip


def test_types_of_all_files_are_put_together(tmp_path: Path) -> None:
    """Types are unified across files: integers widen to floats, and null takes the other type."""
    (tmp_path / "a.jsonl").write_text('{"text": "one", "n": 1, "m": null}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "two", "n": 2.5, "m": "x"}\n')
    table, _, _ = written(tmp_path, tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert table.drop_columns("embedding").to_pylist() == [
        {"text": "one", "n": 1.0, "m": None},
        {"text": "two", "n": 2.5, "m": "x"},
    ]
    assert table.schema.field("n").type == pa.float64()
