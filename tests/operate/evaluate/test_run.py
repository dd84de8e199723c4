"""From texts to outputs: prompts, batches and the length of vectors."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from sidecar.operate.evaluate import compare, run
from sidecar.operate.evaluate.data import Candidates, Prompts, Reranking, Similarity
from sidecar.operate.evaluate.run import evaluate, prompts_of


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw few resamples: these tests are not about intervals, which take a second."""
    monkeypatch.setattr(compare, "RESAMPLES", 20)


@dataclass
class Model:
    """Embeds a text as its counts of the letters a and b."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    dimensions = 2

    def tokenize(self, texts: Sequence[str]) -> Sequence[str]:
        return texts

    def forward(self, row: str) -> np.ndarray:
        return np.array([row.count("a"), row.count("b")], np.float32)


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({}, None, Prompts("", "", "")),
        ({"query": "q: ", "passage": "p: "}, None, Prompts("q: ", "p: ", "")),
        ({"query": "q: ", "document": "", "passage": "p: "}, None, Prompts("q: ", "", "")),
        ({"query": "q: ", "all": "a: "}, "all", Prompts("q: ", "a: ", "a: ")),
        ({"query": "", "document": "d: "}, "document", Prompts("", "d: ", "d: ")),
    ],
)
def test_prompts_by_role(
    prompts: Mapping[str, str], default: str | None, expected: Prompts
) -> None:
    """A role's prompt is its own, even if empty, or otherwise the model's default."""
    assert prompts_of(Model(prompts, default)) == expected


def test_a_text_of_which_nothing_is_left_is_compared_all_the_same() -> None:
    """A zero vector stays zero, and its cosine to any other is 0."""
    data = Similarity("t", (("a", "aab"), ("b", "c"), ("a", "b")), (5.0, 3.0, 0.0))
    exact, own = evaluate(data, {"none": Model(), "int8": Model()}, 1, lambda *_: None)
    assert exact.figures[0].value == own.figures[0].value == pytest.approx(0.866, abs=1e-3)
    assert own.closeness is not None
    assert (own.closeness.min, own.closeness.texts) == (0.0, 6)


def test_a_model_is_asked_as_where_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are computed in chunks of 128, with prompts, on the given threads, with progress."""
    pieces: list[int] = []
    threads: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            threads.append(workers)
            super().__init__(workers)

    class Watched(Model):
        def tokenize(self, texts: Sequence[str]) -> Sequence[str]:
            pieces.append(len(texts))
            assert all(text.startswith("> ") for text in texts)
            return texts

    monkeypatch.setattr(run, "ThreadPoolExecutor", Pool)
    pairs = tuple((f"{'a' * (n + 1)}b", "ab") for n in range(100))
    data = Similarity("t", pairs, tuple(float(-n) for n in range(100)))
    told: list[tuple[str, int, int]] = []
    model = Watched({"all": "> "}, "all")
    outcomes = list(
        evaluate(data, {"int8": model, "none": model}, 3, lambda *step: told.append(step))
    )
    assert pieces == [128, 72] * 2
    assert threads == [3, 3]
    assert told == [
        ("none", 128, 200), ("none", 200, 200), ("int8", 128, 200), ("int8", 200, 200),
    ]  # fmt: skip
    assert [outcome.plan for outcome in outcomes] == ["none", "int8"]
    exact, own = outcomes
    # The more a's there are beside the one b, the lower the similarity to "ab".
    assert exact.figures[0].value == pytest.approx(1)
    assert (exact.closeness, exact.figures[0].difference) == (None, None)
    assert own.closeness is not None
    assert own.closeness.mean == pytest.approx(1)
    found = own.figures[0].difference
    assert found is not None
    assert (found.value, found.verdict) == (0, "within noise")


class Scorer(Model):
    """Scores a pair by the length of its document."""

    dimensions = 1

    def __init__(self, less: float) -> None:
        super().__init__()
        self.less = less

    def forward(self, row: Any) -> np.ndarray:
        return np.array([len(row[1]) / 10 - self.less * (row[1] == "ccc")], np.float32)


def test_scores_stay_as_they_are() -> None:
    """A reranker's scores are not normalised, and closeness is 1 minus their distance."""
    each = Candidates("q", ("a", "bb", "ccc"), {"x": 0, "y": 1, "z": 1})
    data = Reranking("t", {"1": each, "2": each})
    exact, own = evaluate(data, {"int8": Scorer(0.25), "none": Scorer(0.0)}, 1, lambda *_: None)
    assert {figure.metric: figure.value for figure in exact.figures}["MAP"] == 1
    found = {figure.metric: figure for figure in own.figures}["MAP"]
    assert found.value == pytest.approx((1 + 2 / 3) / 2)
    assert found.difference is not None
    assert found.difference.value == pytest.approx((1 + 2 / 3) / 2 - 1)
    assert own.closeness is not None
    assert own.closeness.mean == pytest.approx((1 + 1 + 0.75) / 3)
    assert own.closeness.min == pytest.approx(0.75)
