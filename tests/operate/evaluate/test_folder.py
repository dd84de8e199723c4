"""Which folders are read, and what is said of the others."""

import json
from pathlib import Path

import pytest

from sidecar.operate.evaluate.data import (
    Candidates,
    DataError,
    Prompts,
    Reranking,
    Retrieval,
    Similarity,
)
from sidecar.operate.evaluate.folder import read

TINY = Path(__file__).parents[2] / "data" / "tiny-retrieval"
_HEAD = "score\tsentence1\tsentence2\n"


def candidates(*labels: int) -> str:
    listed = [{"id": f"c{n}", "text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    return json.dumps({"query_id": f"q{len(labels)}", "query": "why", "candidates": listed}) + "\n"


def test_a_folder_as_beir_has_them() -> None:
    """Queries that nobody has judged are left out; titles go before texts, prompts before all."""
    data = read(TINY)
    assert isinstance(data, Retrieval)
    assert list(data.queries) == ["q1", "q2", "q3"]
    assert data.qrels["q2"] == {"d2": 2, "d6": 1}
    inputs = list(data.inputs(Prompts("query: ", "passage: ")))
    assert len(inputs) == len(data) == 9
    assert inputs[0] == "query: how is bread made"
    assert str(inputs[3]).startswith("passage: Bread Flour")
    assert str(inputs[4]).startswith("passage: A socket")


def test_a_quick_look_keeps_what_is_relevant() -> None:
    """Two queries, the documents that were judged for them, and two others."""
    data = read(TINY, 2)
    assert isinstance(data, Retrieval)
    assert list(data.queries) == ["q1", "q2"]
    assert list(data.documents) == ["d1", "d2", "d3", "d4", "d5", "d6"]
    assert len(list(data.inputs(Prompts()))) == len(data)


def test_candidates_to_rerank(tmp_path: Path) -> None:
    """Queries without a relevant candidate are left out; pairs take no prompt."""
    lines = candidates(0, 1) + candidates(0, 0, 0) + candidates(1, 0, 0, 2)
    (tmp_path / "rerank-dev.jsonl").write_text(lines)
    data = read(tmp_path)
    assert isinstance(data, Reranking)
    assert data.queries["q2"] == Candidates("why", ("t0", "t1"), {"c0": 0, "c1": 1})
    assert list(data.queries) == ["q2", "q4"]
    assert list(data.inputs(Prompts("x", "y", "z")))[:2] == [("why", "t0"), ("why", "t1")]


def test_pairs_with_a_score(tmp_path: Path) -> None:
    """The test split goes before the others; quotes are letters."""
    (tmp_path / "dev.tsv").write_text(_HEAD)
    (tmp_path / "test.tsv").write_text(_HEAD + '5.0\ta "b\tc\n0\td\te\n')
    data = read(tmp_path)
    assert isinstance(data, Similarity)
    assert data.scores == (5.0, 0.0)
    assert list(data.inputs(Prompts(text="> "))) == ['> a "b', "> d", "> c", "> e"]


def test_another_shape_is_told_what_was_expected(tmp_path: Path) -> None:
    """With the names of the files of each shape."""
    with pytest.raises(DataError, match=r"corpus\.jsonl.*rerank\.jsonl.*test\.tsv.*sentence1"):
        read(tmp_path)
    with pytest.raises(DataError, match="no folder at"):
        read(tmp_path / "none")


CORPUS = '{"_id": "d", "text": "t"}\n'
QUERIES = '{"_id": "a", "text": "t"}\n{"_id": "b", "text": "t"}\n'
QRELS = "query-id\tcorpus-id\tscore\na\td\t1\nb\td\t1\n"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES}, "but no qrels.tsv"),
        ({"corpus.jsonl": CORPUS, "qrels.tsv": QRELS}, "queries.jsonl cannot be read"),
        ({"corpus.jsonl": "{", "queries.jsonl": QUERIES, "qrels.tsv": QRELS}, "corpus.jsonl:1 is"),
        ({"corpus.jsonl": 2 * CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": QRELS}, "second time"),
        ({"corpus.jsonl": CORPUS.replace("d", "x"), "queries.jsonl": QUERIES, "qrels.tsv": QRELS},
         'no string "_id"'),
        ({"corpus.jsonl": CORPUS.replace('"d"', '"x"'), "queries.jsonl": QUERIES,
          "qrels.tsv": QRELS}, "none of the documents"),
        ({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": "a\td\t1\n"},
         "head of columns"),
        ({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": QRELS + "b\td\tx\n"},
         "qrels.tsv:4: the score 'x'"),
        ({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES[:26], "qrels.tsv": QRELS},
         "has 1 queries"),
        ({"rerank.jsonl": "[]\n"}, "rerank.jsonl:1 is not a map"),
        ({"rerank.jsonl": '{"query": "q"}\n'}, 'no list of maps "candidates"'),
        ({"rerank.jsonl": candidates(0, 1)}, "has 1 queries with a relevant candidate"),
        ({"rerank.jsonl": candidates(0, 1) + candidates(1, 0)}, "rerank.jsonl:2 has the query_id"),
        ({"dev.tsv": _HEAD + "1\ta\n"}, "dev.tsv:2 has 2 columns, not 3"),
        ({"dev.tsv": _HEAD + "nan\ta\tb\n"}, "'nan' is not a number"),
        ({"dev.tsv": _HEAD + "1\ta\tb\n1\tc\td\n"}, "has 1 different scores"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    """By file, by line, and by what it lacks."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refused:
        read(tmp_path)
    assert reason in str(refused.value)
