"""Parquet through pyarrow: reading texts, and writing the corpus with its vectors."""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from sidecar.bulk.corpus import PARQUET, Corpus
from sidecar.bulk.errors import InputError
from sidecar.bulk.records import Record

VECTORS = "embedding"
_ROWS = 8_192  # in memory at once, and per row group of the result


def read_field(path: Path, field: str) -> Iterator[Record]:
    """Yield `field` of each row, with the row's number from 1."""
    with _open(path) as file:
        if field not in (names := file.schema_arrow.names):
            known = ", ".join(map(repr, names))
            raise InputError(
                f"{path} has no column {field!r}, only {known}: choose one with --field"
            )
        batches = file.iter_batches(_ROWS, columns=[field])
        values = chain.from_iterable(batch.column(0).to_pylist() for batch in batches)
        for number, value in enumerate(values, start=1):
            yield number, {field: value}


def schema_of(corpus: Corpus) -> pa.Schema:
    """Return the combined columns of all files. Raises `InputError` if they are incompatible."""
    schema = pa.schema([])
    for path in corpus.paths:
        try:
            for found in _schemas(corpus, path):
                schema = pa.unify_schemas([schema, found], promote_options="permissive")
        except pa.ArrowException as error:
            raise InputError(f"{path} has incompatible columns: {error}") from None
    if VECTORS in schema.names:
        raise InputError(f"a column {VECTORS!r} already exists: rename it, or write .npy")
    return schema


def write(
    corpus: Corpus, vectors: NDArray[np.float32], file: IO[bytes], show: Callable[[int], None]
) -> None:
    """Write the files' columns and float32 `vectors` [n, d], as a column of lists of d, to `file`.

    `show` is called with the number of rows written.
    """
    schema = schema_of(corpus)
    item = pa.list_(pa.float32(), vectors.shape[1])
    done = 0
    with parquet.ParquetWriter(file, schema.append(pa.field(VECTORS, item))) as writer:
        for source in corpus.paths:
            for table in _tables(corpus, source, schema):
                block = np.ascontiguousarray(vectors[done : done + len(table)])
                rows = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), type=item)
                writer.write_table(table.append_column(VECTORS, rows))
                done += len(table)
                show(done)


def _schemas(corpus: Corpus, path: Path) -> Iterator[pa.Schema]:
    if path.suffix == PARQUET:
        with _open(path) as file:
            yield file.schema_arrow
    else:
        for fields in _blocks(corpus, path):
            yield _columns(fields)


def _tables(corpus: Corpus, path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    if path.suffix == PARQUET:
        with _open(path) as file:
            for batch in file.iter_batches(_ROWS):
                yield _fitted(pa.Table.from_batches([batch]), schema)
    else:
        for fields in _blocks(corpus, path):
            yield pa.Table.from_pylist(fields, schema)


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    # Columns that this file lacks become null.
    whole = pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
    return whole.select(schema.names).cast(schema)


def _blocks(corpus: Corpus, path: Path) -> Iterator[list[dict[str, Any]]]:
    records = (dict(fields) for _, fields in corpus.records(path))
    while block := list(islice(records, _ROWS)):
        yield block


def _columns(fields: list[dict[str, Any]]) -> pa.Schema:
    # pyarrow would take the names from the first record only.
    names = dict.fromkeys(name for each in fields for name in each)
    return pa.schema((name, pa.infer_type([each.get(name) for each in fields])) for name in names)


def _open(path: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not Parquet: {error}") from None
