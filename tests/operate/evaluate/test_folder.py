"""Which folders can be read, and how the others are refused."""

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
    check_task,
)
from sidecar.operate.evaluate.folder import read

TINY = Path(__file__).parents[2] / "data" / "tiny-retrieval"
_HEAD = "score\tsentence1\tsentence2\n"


def candidates(*labels: int) -> str:
    listed = [{"id": f"c{n}", "text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    return json.dumps({"query_id": f"q{len(labels)}", "query": "why", "candidates": listed}) + "\n"


def test_a_folder_as_beir_has_them() -> None:
    """A BEIR folder yields its judged queries and titled documents, each with its prompt."""
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
    """A limit of two keeps two queries, their judged documents, and two others."""
    data = read(TINY, 2)
    assert isinstance(data, Retrieval)
    assert list(data.queries) == ["q1", "q2"]
    assert list(data.documents) == ["d1", "d2", "d3", "d4", "d5", "d6"]
    assert len(list(data.inputs(Prompts()))) == len(data)


def test_candidates_to_rerank(tmp_path: Path) -> None:
    """Candidates are read as pairs without prompts; queries without a relevant one are left out."""
    lines = candidates(0, 1) + candidates(0, 0, 0) + candidates(1, 0, 0, 2)
    (tmp_path / "rerank-dev.jsonl").write_text(lines)
    data = read(tmp_path)
    assert isinstance(data, Reranking)
    assert data.queries["q2"] == Candidates("why", ("t0", "t1"), {"c0": 0, "c1": 1})
    assert list(data.queries) == ["q2", "q4"]
    assert list(data.inputs(Prompts("x", "y", "z")))[:2] == [("why", "t0"), ("why", "t1")]


def test_pairs_with_a_score(tmp_path: Path) -> None:
    """Scored pairs are read from the test split first, and quotes are ordinary characters."""
    (tmp_path / "dev.tsv").write_text(_HEAD)
    (tmp_path / "test.tsv").write_text(_HEAD + '5.0\ta "b\tc\n0\td\te\n')
    data = read(tmp_path)
    assert isinstance(data, Similarity)
    assert data.scores == (5.0, 0.0)
    assert list(data.inputs(Prompts(text="> "))) == ['> a "b', "> d", "> c", "> e"]


def test_another_shape_is_told_what_was_expected(tmp_path: Path) -> None:
    """A folder of another shape is refused with the file names of every known shape."""
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
        ({"corpus.jsonl": 2 * CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": QRELS},
         "repeats the _id"),
        ({"corpus.jsonl": CORPUS.replace("d", "x"), "queries.jsonl": QUERIES, "qrels.tsv": QRELS},
         'no string "_id"'),
        ({"corpus.jsonl": CORPUS.replace('"d"', '"x"'), "queries.jsonl": QUERIES,
          "qrels.tsv": QRELS}, "none of the judged documents"),
        ({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": "a\td\t1\n"},
         "expected header"),
        ({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": QRELS + "b\td\tx\n"},
         "qrels.tsv:4: the score 'x'"),
        ({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES[:26], "qrels.tsv": QRELS},
         "has 1 queries"),
        ({"rerank.jsonl": "[]\n"}, "rerank.jsonl:1 is not a JSON object"),
        ({"rerank.jsonl": '{"query": "q"}\n'}, 'no list of objects "candidates"'),
        ({"rerank.jsonl": candidates(0, 1)}, "has 1 queries with a relevant candidate"),
        ({"rerank.jsonl": candidates(0, 1) + candidates(1, 0)},
         "rerank.jsonl:2 repeats the query_id"),
        ({"dev.tsv": _HEAD + "1\ta\n"}, "dev.tsv:2 has 2 columns, not 3"),
        ({"dev.tsv": _HEAD + "nan\ta\tb\n"}, "'nan' is not a number"),
        ({"dev.tsv": _HEAD + "1\ta\tb\n1\tc\td\n"}, "has 1 different scores"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    """Malformed data is refused with the file, the line, and what is wrong."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refused:
        read(tmp_path)
    assert reason in str(refused.value)


def beir(folder: Path, qrels: str, queries: int = 3, documents: int = 3) -> Path:
    """Write queries q0, q1, ... and documents d0, d1, ...; `qrels` lacks its header."""
    written = {
        "queries.jsonl": "".join(f'{{"_id": "q{n}", "text": "w{n}"}}\n' for n in range(queries)),
        "corpus.jsonl": "".join(f'{{"_id": "d{n}", "text": "t{n}"}}\n' for n in range(documents)),
        "qrels.tsv": "query-id\tcorpus-id\tscore\n" + qrels.replace(" ", "\t"),
    }
    for name, text in written.items():
        (folder / name).write_text(text)
    return folder


def test_what_nobody_has_trained_on_comes_first(tmp_path: Path) -> None:
    """Of several files the test split is read before the development split."""
    (tmp_path / "qrels").mkdir()
    names = ("qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv")
    beir(tmp_path, "")
    for place, name in enumerate(names):
        head = "query-id\tcorpus-id\tscore\n"
        rows = f"q{place}\td0\t1\nq{(place + 1) % 3}\td0\t1\n"
        (tmp_path / name).write_text(head + rows)
    for place, name in enumerate(names):
        data = read(tmp_path)
        assert isinstance(data, Retrieval)
        assert set(data.queries) == {f"q{place}", f"q{(place + 1) % 3}"}
        (tmp_path / name).unlink()
    other = tmp_path / "other"
    other.mkdir()
    for count, name in enumerate(("rerank.jsonl", "rerank-test.jsonl", "rerank-dev.jsonl"), 2):
        (other / name).write_text("".join(candidates(*([1] * n)) for n in range(1, count + 1)))
    (other / "test.tsv").write_text(_HEAD + "1\ta\tb\n2\tc\td\n")
    for count, name in enumerate(("rerank.jsonl", "rerank-test.jsonl", "rerank-dev.jsonl"), 2):
        assert read(other).about.startswith(f"{count} queries")
        (other / name).unlink()
    assert read(other).about == "2 pairs of sentences"


def test_a_query_is_judged_where_something_is_relevant(tmp_path: Path) -> None:
    """Queries without a grade above 0 are left out; other grades reach the metrics unchanged."""
    data = read(beir(tmp_path, "q0 d0 0\nq0 d1 2\nq1 d0 1\nq2 d0 0\nq2 d1 -1\n"))
    assert isinstance(data, Retrieval)
    assert list(data.queries.items()) == [("q0", "w0"), ("q1", "w1")]
    assert data.qrels == {"q0": {"d0": 0, "d1": 2}, "q1": {"d0": 1}}
    assert list(data.documents) == ["d0", "d1", "d2"]
    assert (data.name, data.about, len(data)) == (
        tmp_path.name, "2 queries, 3 documents", 5,
    )  # fmt: skip


def test_a_quick_look_takes_the_first(tmp_path: Path) -> None:
    """A limit takes the first queries or pairs, and judged documents wherever they are."""
    qrels = "q0 d7 1\nq1 d9 1\nq2 d8 1\n"
    data = read(beir(tmp_path, qrels, documents=10), 2)
    assert isinstance(data, Retrieval)
    assert list(data.documents) == ["d0", "d1", "d7", "d9"]
    assert [str(text) for text in data.inputs(Prompts())] == [
        "w0", "w1", "t0", "t1", "t7", "t9",
    ]  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    (other / "rerank.jsonl").write_text("".join(candidates(*([1] * n)) for n in range(1, 5)))
    found = read(other, 2)
    assert isinstance(found, Reranking)
    assert list(found.queries) == ["q1", "q2"]
    assert (len(found), found.about) == (3, "2 queries, 3 candidates")
    (other / "rerank.jsonl").unlink()
    (other / "dev.tsv").write_text(_HEAD + "".join(f"{n}\ta{n}\tb{n}\n" for n in range(5)))
    pairs = read(other, 3)
    assert isinstance(pairs, Similarity)
    assert pairs.pairs == (("a0", "b0"), ("a1", "b1"), ("a2", "b2"))
    assert (len(pairs), pairs.about) == (6, "3 pairs of sentences")


def test_a_query_without_an_id_has_its_lines(tmp_path: Path) -> None:
    """A query without an id is identified by its line number."""
    listed = '"query": "why", "candidates": [{"id": "c", "text": "t", "label": 1}]'
    (tmp_path / "rerank.jsonl").write_text(f"{{{listed}}}\n\n{{{listed}}}\n")
    data = read(tmp_path)
    assert isinstance(data, Reranking)
    assert list(data.queries) == ["1", "3"]


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ('{"id": "c", "text": "t"}', "no integer"),
        ('{"id": "c", "text": "t", "label": 0.5}', "no integer"),
        ('{"id": 5, "text": "t", "label": 1}', 'no string "id"'),
        ('{"id": "c", "label": 1}', 'no string "text"'),
        ('{"id": "c", "text": "t", "label": 1}, {"id": "c", "text": "u", "label": 0}', "same id"),
        ('{"id": "c", "text": "\\ud800", "label": 1}', "half a character"),
        ('"c"', "no list of objects"),
    ],
)
def test_what_is_wrong_with_candidates(tmp_path: Path, listed: str, reason: str) -> None:
    """Malformed candidates are refused with the line they are on."""
    path = tmp_path / "rerank.jsonl"
    path.write_text(f'{{"query": "why", "candidates": [{listed}]}}\n')
    with pytest.raises(DataError, match=f"rerank.jsonl:1.*{reason}"):
        read(tmp_path)


def test_a_title_stands_before_its_text(tmp_path: Path) -> None:
    """A title precedes its text, and a missing or empty one leaves no space."""
    corpus = beir(tmp_path, "q0 d0 1\nq1 d0 1\n") / "corpus.jsonl"
    corpus.write_text(
        '{"_id": "d0", "title": "T", "text": "t"}\n{"_id": "d1", "title": "", "text": "t"}\n'
        '{"_id": "d2", "title": null, "text": "t"}\n{"_id": "d3", "title": "T", "text": ""}\n'
    )
    data = read(tmp_path)
    assert list(data.inputs(Prompts("q: ", "d: ")))[2:] == ["d: T t", "d: t", "d: t", "d: T"]


def test_data_are_for_a_task(tmp_path: Path) -> None:
    """Data for one task are refused for a model of another."""
    data = read(TINY)
    check_task(data, "embed", "m")
    with pytest.raises(DataError, match="tiny-retrieval holds texts to embed, but m is a model to"):
        check_task(data, "rerank", "m")
    (tmp_path / "rerank.jsonl").write_text(candidates(1, 0) + candidates(1))
    check_task(read(tmp_path), "rerank", "m")
    with pytest.raises(DataError, match="holds candidates for a cross-encoder, but m is a model"):
        check_task(read(tmp_path), "embed", "m")
