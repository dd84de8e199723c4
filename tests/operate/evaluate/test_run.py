"""From texts to outputs: what is put before them, and how long vectors are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from sidecar.operate.evaluate.data import Prompts, Similarity
from sidecar.operate.evaluate.run import evaluate, prompts_of


@dataclass
class Model:
    """Computes for a text how many letters of it are a, and how many are b."""

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
    """The role's own, which may say nothing, else the model's default one."""
    assert prompts_of(Model(prompts, default)) == expected


def test_a_text_of_which_nothing_is_left_is_compared_all_the_same() -> None:
    """A vector of zeros stays one: its cosine to any other is 0."""
    data = Similarity("t", (("a", "aab"), ("b", "c"), ("a", "b")), (5.0, 3.0, 0.0))
    exact, own = evaluate(data, {"none": Model(), "int8": Model()}, 1, lambda *_: None)
    assert exact.figures[0].value == own.figures[0].value == pytest.approx(0.866, abs=1e-3)
    assert own.closeness is not None
    assert (own.closeness.min, own.closeness.texts) == (0.0, 6)
