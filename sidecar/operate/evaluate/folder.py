"""Reads the data in a folder: BEIR's shape, candidates to rerank, or judged pairs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from sidecar.operate.evaluate.data import (
    Candidates,
    Data,
    DataError,
    Reranking,
    Retrieval,
    Similarity,
    json_lines,
    lines,
    string,
)

_CORPUS, _QUERIES = "corpus.jsonl", "queries.jsonl"
# The first that exists is read; splits that models are not trained on come first.
_QRELS = ("qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv")
_RERANKING = ("rerank.jsonl", "rerank-test.jsonl", "rerank-dev.jsonl")
_SIMILARITY = ("test.tsv", "dev.tsv")
_QRELS_COLUMNS = ("query-id", "corpus-id", "score")
_SIMILARITY_COLUMNS = ("score", "sentence1", "sentence2")
_LEAST = 2  # a single query says nothing about chance


def read(folder: Path, limit: int | None = None) -> Data:
    """Return the data in `folder`.

    With `limit`, take only that many queries, or pairs, from the beginning, and of a corpus the
    documents judged for them plus that many others. Raises `DataError` for a folder of another
    shape, with those expected, and for a malformed file.
    """
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}")
    name = folder.resolve().name
    if (folder / _CORPUS).is_file():
        return _retrieval(name, folder, limit)
    if path := _first(folder, _RERANKING):
        return _reranking(name, path, limit)
    if path := _first(folder, _SIMILARITY):
        return _similarity(name, path, limit)
    raise DataError(
        f"{folder} holds no data to evaluate on; expected one of: {_CORPUS}, {_QUERIES} and "
        f"{_any(_QRELS)} (retrieval); {_any(_RERANKING)} (reranking); {_any(_SIMILARITY)} with "
        f"the columns {', '.join(_SIMILARITY_COLUMNS)} (similarity)"
    )


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _any(names: Sequence[str]) -> str:
    return " or ".join(names)


def _retrieval(name: str, folder: Path, limit: int | None) -> Retrieval:
    path = _first(folder, _QRELS)
    if path is None:
        raise DataError(f"{folder} has a {_CORPUS}, but no {_any(_QRELS)}")
    judged = _qrels(path)
    texts = {
        string(entry, "_id", f"{folder / _QUERIES}:{number}"): string(
            entry, "text", f"{folder / _QUERIES}:{number}"
        )
        for number, entry in json_lines(folder / _QUERIES)
    }
    scored = (query for query in texts if any(s > 0 for s in judged.get(query, {}).values()))
    queries = {query: texts[query] for query in islice(scored, limit)}
    _check_enough(len(queries), "queries with a relevant document", folder)
    qrels = {query: judged[query] for query in queries}
    corpus = folder / _CORPUS
    return Retrieval(name, queries, qrels, corpus, _documents(corpus, qrels, limit))


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for where, (query, document, score) in _table(path, _QRELS_COLUMNS):
        try:
            found.setdefault(query, {})[document] = int(score)
        except ValueError:
            raise DataError(f"{where}: the score {score!r:.40} is not an integer") from None
    return found


def _documents(
    corpus: Path, qrels: Mapping[str, Mapping[str, int]], limit: int | None
) -> dict[str, None]:
    judged = {document for each in qrels.values() for document in each}
    found: dict[str, None] = {}
    others = 0
    for number, entry in json_lines(corpus):
        document = string(entry, "_id", f"{corpus}:{number}")
        if document in found:
            raise DataError(f"{corpus}:{number} repeats the _id {document!r:.80}")
        others += document not in judged
        if limit is None or document in judged or others <= limit:
            found[document] = None
    if not judged & found.keys():
        raise DataError(f"{corpus} has none of the judged documents")
    return found


def _reranking(name: str, path: Path, limit: int | None) -> Reranking:
    queries: dict[str, Candidates] = {}
    for number, entry in json_lines(path):
        where = f"{path}:{number}"
        query = str(entry.get("query_id", number))
        candidates = _candidates(entry, where)
        if query in queries:
            raise DataError(f"{where} repeats the query_id {query!r:.80}")
        if any(label > 0 for label in candidates.labels.values()):
            queries[query] = candidates
        if len(queries) == limit:
            break
    _check_enough(len(queries), "queries with a relevant candidate", path)
    return Reranking(name, queries)


def _candidates(entry: Mapping[str, Any], where: str) -> Candidates:
    listed = entry.get("candidates")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise DataError(f'{where} has no list of objects "candidates"')
    labels: dict[str, int] = {}
    for each in listed:
        label = each.get("label")
        if not isinstance(label, int):
            raise DataError(f'{where}: a candidate has no integer "label"')
        labels[string(each, "id", where)] = label
    if len(labels) < len(listed):
        raise DataError(f"{where}: two candidates have the same id")
    documents = tuple(string(each, "text", where) for each in listed)
    return Candidates(string(entry, "query", where), documents, labels)


def _similarity(name: str, path: Path, limit: int | None) -> Similarity:
    pairs, scores = [], []
    for where, (score, first, second) in islice(_table(path, _SIMILARITY_COLUMNS), limit):
        pairs.append((first, second))
        scores.append(_score(score, where))
    _check_enough(len(set(scores)), "different scores", path)
    return Similarity(name, tuple(pairs), tuple(scores))


def _score(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise DataError(f"{where}: the score {text!r:.40} is not a number")
    return value


def _table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows below a header of `columns`, each with its place."""
    rows = lines(path)
    _, head = next(rows, (1, ""))
    if head.split("\t") != list(columns):
        raise DataError(f"{path}:1 is not the expected header: {', '.join(columns)}")
    for number, line in rows:
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise DataError(f"{path}:{number} has {len(cells)} columns, not {len(columns)}")
        yield f"{path}:{number}", cells


def _check_enough(count: int, what: str, where: Path) -> None:
    if count < _LEAST:
        raise DataError(f"{where} has {count} {what}; at least {_LEAST} are needed")
