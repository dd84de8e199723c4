"""`sidecar evaluate` with tiny models and data."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .command import sidecar, sidecar_process

TINY = Path(__file__).parents[1] / "data" / "tiny-retrieval"


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Path]) -> Path:
    """An embedding model with random weights."""
    return make_model()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache shared by all tests, so that each model is prepared once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder with judged pairs of sentences."""
    rows = [f"{score}\ta cat number {score}\ta dog number {5 - score}" for score in range(6)]
    (tmp_path / "dev.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *rows]))
    return tmp_path


def test_every_plan_is_compared_with_fp32(model: Path, cache: Path, pairs: Path) -> None:
    """Every metric has a value, and for a quantization its difference, interval and verdict."""
    pytest.importorskip("ir_measures")
    flags = ["--plans", "int8,int4", "--json", "--cache-dir", str(cache)]
    floors = {"SIDECAR_INT8_FLOOR": "0.5", "SIDECAR_INT4_FLOOR": "0.5"}
    done = sidecar("evaluate", str(model), "--data", str(TINY), str(pairs), *flags, **floors)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["model"], result["source"]) == (model.name, str(model))
    assert {plan: own["quantization"] for plan, own in result["plans"].items()} == {
        "none": "none", "int8": "int8", "int4": "int4",
    }  # fmt: skip
    assert result["plans"]["int8"]["weight_bits"] in {7, 8}
    retrieval, similarity = result["data"]
    assert retrieval["about"] == "3 queries, 6 documents"
    assert set(retrieval["plans"]["none"]["metrics"]) == {"Recall@10", "MRR@10", "NDCG@10"}
    assert set(similarity["plans"]["none"]["metrics"]) == {"Spearman"}
    for data in (retrieval, similarity):
        exact = data["plans"]["none"]
        assert exact["closeness"] is None
        for plan in ("int8", "int4"):
            own = data["plans"][plan]
            assert 0.5 < own["closeness"]["min"] <= own["closeness"]["mean"] <= 1
            for name, figure in own["metrics"].items():
                difference, value = figure["difference"], exact["metrics"][name]["value"]
                assert difference["value"] == pytest.approx(figure["value"] - value)
                assert difference["low"] <= difference["high"]
                relative = figure["value"] / value - 1 if value > 0 else None
                assert difference["relative"] == (relative and pytest.approx(relative))
    # All six documents are among the first ten, whatever their scores.
    recall = retrieval["plans"]["int8"]["metrics"]["Recall@10"]
    assert recall["value"] == 1
    assert recall["difference"]["within_noise"] is True


def test_a_table_for_people(model: Path, cache: Path) -> None:
    """Without --json, `evaluate` prints tables."""
    pytest.importorskip("ir_measures")
    flags = ["--limit", "2", "--int8-floor", "0.5", "--cache-dir", str(cache)]
    done = sidecar("evaluate", str(model), "--data", str(TINY), *flags)
    assert done.returncode == 0, done.stderr
    for part in ("tiny-retrieval", "Recall@10", "within noise", " %", "cosine", "int8: served"):
        assert part in done.stdout


def test_a_page_beside_what_is_printed(
    model: Path, cache: Path, pairs: Path, tmp_path: Path
) -> None:
    """With --html, `evaluate` also writes a page with the figures that it prints."""
    pytest.importorskip("ir_measures")
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    flags = ["--int8-floor", "0.5", "--cache-dir", str(cache), "--json", "--html", str(page)]
    done = sidecar("evaluate", str(model), "--data", str(pairs), *flags)
    assert done.returncode == 0, done.stderr
    (data,) = json.loads(done.stdout)["data"]
    text = page.read_text()
    assert f"Accuracy of {model.name}" in text
    assert f"{data['plans']['int8']['metrics']['Spearman']['value']:.4f}" in text


def test_a_page_that_cannot_be_written_is_known_at_once(tmp_path: Path) -> None:
    """A page that cannot be written is reported in one line before anything is read or computed."""
    pytest.importorskip("ir_measures")
    pytest.importorskip("matplotlib")
    page = tmp_path / "none" / "page.html"
    done = sidecar("evaluate", "any", "--data", str(tmp_path), "--html", str(page))
    assert done.returncode == 78
    assert done.stderr == f"sidecar: {page} cannot be written: No such file or directory\n"


@pytest.mark.parametrize("before", [None, "a page of yesterday"])
def test_no_page_is_touched_where_nothing_was_judged(tmp_path: Path, before: str | None) -> None:
    """Checking that the page can be written neither creates nor changes it."""
    pytest.importorskip("ir_measures")
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    if before:
        page.write_text(before)
    done = sidecar("evaluate", "any", "--data", str(tmp_path), "--html", str(page))
    assert done.returncode == 66
    assert (page.read_text() if page.exists() else None) == before


def test_a_cross_encoder_on_candidates(
    make_model: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    """A cross-encoder is evaluated on its ranking of the candidates."""
    pytest.importorskip("ir_measures")
    listed = [{"id": str(n), "text": f"text {n}", "label": int(n == 1)} for n in range(4)]
    lines = [{"query_id": q, "query": f"question {q}", "candidates": listed} for q in "abc"]
    (tmp_path / "rerank.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = sidecar(
        "evaluate", str(make_model(classifier=True)), "--data", str(tmp_path), "--json",
        "--int8-floor", "0.5", "--cache-dir", str(cache),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    own = json.loads(done.stdout)["data"][0]["plans"]["int8"]
    assert set(own["metrics"]) == {"NDCG@5", "MAP", "P@5"}
    assert own["metrics"]["P@5"]["value"] == pytest.approx(1 / 5)


def test_data_of_another_task_are_refused(model: Path, cache: Path, tmp_path: Path) -> None:
    """Data for another task than the model's are refused, with both tasks in the message."""
    pytest.importorskip("ir_measures")
    listed = [{"id": "1", "text": "text", "label": 1}]
    lines = [{"query_id": q, "query": "q", "candidates": listed} for q in "ab"]
    (tmp_path / "rerank.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = ["--plans", "none", "--cache-dir", str(cache)]
    done = sidecar("evaluate", str(model), "--data", str(tmp_path), *flags)
    assert done.returncode == 66
    assert "holds candidates for a cross-encoder" in done.stderr
    assert "is a model to embed" in done.stderr


def test_another_folder_is_refused_in_one_line(model: Path, tmp_path: Path) -> None:
    """A folder without known data is refused in one line, before a model is prepared."""
    pytest.importorskip("ir_measures")
    done = sidecar("evaluate", str(model), "--data", str(tmp_path))
    assert done.returncode == 66
    assert "expected one of: corpus.jsonl" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_artifact_is_refused(minilm_artifact: Path) -> None:
    """An artifact is refused, as it has only one precision."""
    pytest.importorskip("ir_measures")
    done = sidecar("evaluate", str(minilm_artifact), "--data", str(TINY))
    assert done.returncode == 78
    assert "name the model that it was prepared from" in done.stderr


@pytest.mark.slow
def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """Without the extra `evaluate`, the command to install it is printed in one line."""
    (tmp_path / "ir_measures.py").write_text("raise ModuleNotFoundError(name='ir_measures')")
    path = f"{tmp_path}:{Path.cwd()}"
    done = sidecar_process("evaluate", "any", "--data", str(TINY), PYTHONPATH=path)
    assert done.returncode == 78
    assert done.stderr == (
        "sidecar: evaluating needs ir_measures: pip install 'embedding-sidecar[edge,evaluate]'\n"
    )


@pytest.mark.slow
def test_without_the_extra_for_the_page_it_says_so(tmp_path: Path) -> None:
    """Without the extra `plots`, --html is refused before anything is read or computed."""
    pytest.importorskip("ir_measures")
    (tmp_path / "jinja2.py").write_text("raise ModuleNotFoundError(name='jinja2')")
    path = f"{tmp_path}:{Path.cwd()}"
    flags = ["--html", str(tmp_path / "page.html")]
    done = sidecar_process("evaluate", "any", "--data", str(tmp_path), *flags, PYTHONPATH=path)
    assert done.returncode == 78
    assert done.stderr == "sidecar: --html needs jinja2: pip install 'embedding-sidecar[plots]'\n"


@pytest.mark.parametrize("plans", ["int9", "auto", "int8,"])
def test_a_plan_that_is_none_is_refused(plans: str) -> None:
    """An unknown plan is refused with a list of the known ones."""
    done = sidecar("evaluate", "any", "--data", str(TINY), "--plans", plans)
    assert done.returncode == 2
    assert "is not one of int8, int4, fp16, none" in done.stderr
