"""Our results and the library's answers: what counts as equal, and how a difference is reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sidecar.models.oracle.answers import Answers, read, write
from sidecar.models.oracle.compare import DiffersError, compare
from sidecar.models.oracle.texts import Probe, id_probes, output_probes
from sidecar.models.rows import Row

VERSIONS = {"sentence-transformers": "6.0"}
IDS_OF = (Probe("a text"), Probe("another", "query"))
OUTPUTS_OF = (Probe("a text"), Probe("another"), Probe("a third"))
VECTORS = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], np.float32)


class Ours:
    """A model whose token ids are characters, and whose outputs are looked up."""

    task = "embed"
    normalize = False
    prompts: Mapping[str, str] = {"query": "q: "}
    default_prompt_name: str | None = None

    def __init__(self, outputs: np.ndarray = VECTORS) -> None:
        texts = [probe.text for probe in OUTPUTS_OF]
        self.outputs = {
            self.tokenize([text])[0].digest: vector
            for text, vector in zip(texts, outputs, strict=True)
        }

    def tokenize(self, texts: Sequence[str]) -> list[Row]:
        return [
            Row(np.frombuffer(t.encode(), np.uint8).astype(np.int64), zeros(t), False)
            for t in texts
        ]

    def forward(self, row: Row) -> np.ndarray:
        return self.outputs[row.digest]


def zeros(text: str) -> np.ndarray:
    return np.zeros(len(text.encode()), np.int64)


def ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


@pytest.fixture
def answers() -> Answers:
    """What the library would answer about `Ours`, if `Ours` were right."""
    texts = ("a text", "q: another")
    return Answers(
        versions=VERSIONS,
        ids_of=IDS_OF,
        ids=tuple(map(ids, texts)),
        token_types=tuple(map(zeros, texts)),
        outputs_of=OUTPUTS_OF,
        outputs=VECTORS.copy(),
    )


def message_of(answers: Answers, ours: Ours) -> str:
    with pytest.raises(DiffersError) as caught:
        compare(answers, ours)
    return str(caught.value)


def test_what_is_equal_is_verified(answers: Answers) -> None:
    """The proof has the number of texts, the versions and the least cosine."""
    verified = compare(answers, Ours())
    assert (verified.texts, verified.outputs) == (2, 3)
    assert verified.versions == VERSIONS
    assert verified.cosine_min == pytest.approx(1.0, abs=1e-6)
    assert verified.score_error_max is None
    assert "sentence-transformers 6.0" in str(verified)


def test_the_first_token_that_differs_is_named(answers: Answers) -> None:
    """The message has the text, its prompt, the first differing token's position and both ids."""
    other = answers.ids[1].copy()
    other[4], other[6] = 7, 8
    message = message_of(replace(answers, ids=(answers.ids[0], other)), Ours())
    assert "'another' with the prompt 'query'" in message
    assert f"token 4 is 7 there, {ids('q: another')[4]} here" in message


@pytest.mark.parametrize("cut", [slice(None, -1), slice(0, 0)])
def test_a_row_of_another_length_differs(answers: Answers, cut: slice) -> None:
    """A token that only one side has is a difference."""
    short = answers.ids[0][cut]
    message = message_of(replace(answers, ids=(short, answers.ids[1])), Ours())
    assert f"token {len(short)} is absent there" in message


def test_token_types_are_compared(answers: Answers) -> None:
    """Equal ids with different token types are a difference."""
    types = answers.token_types[0].copy()
    types[2] = 1
    message = message_of(replace(answers, token_types=(types, answers.token_types[1])), Ours())
    assert "token type 2 is 1 there, 0 here" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[::-1].copy(), "cosine"),
        (lambda v: v * [[1], [1], [1.01]], "vector of length 2.020000, but 2.000000"),
        (lambda v: v * [[1], [0.99], [1]], "vector of length 0.990000, but 1.000000"),
        (lambda v: np.add(v, [[0, 0], [0, 0.01], [0, 0]]), "cosine"),
        (lambda v: v * [[1], [0], [1]], "cosine"),
        (lambda v: v * [[1], [np.nan], [1]], "cosine"),
        (lambda v: v[:, :1], "1 dimensions, but 2"),
    ],
    ids=[
        "another direction",
        "longer",
        "shorter",
        "another by 5e-5",
        "zero",
        "not a number",
        "fewer dimensions",
    ],
)
def test_another_vector_differs(
    answers: Answers, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    """Another direction, length or dimension is a difference, and NaN is never equal."""
    assert message in message_of(answers, Ours(change(VECTORS)))


def test_the_worst_text_is_named(answers: Answers) -> None:
    """Of several vectors that differ, the message names the text with the least cosine."""
    changed = VECTORS.copy()
    changed[1] = [1.0, 0.1]
    changed[2] = [-1.0, 0.0]
    assert "'a third'" in message_of(answers, Ours(changed))


def test_rounding_is_no_difference(answers: Answers) -> None:
    """A difference in the last bits is not reported: two correct computations may have one."""
    assert compare(answers, Ours(VECTORS * (1 + 1e-6))).cosine_min is not None


def test_length_does_not_count_where_vectors_are_normalised(answers: Answers) -> None:
    """Vectors that are normalised when served are normalised before they are compared."""
    ours = Ours(VECTORS * 5)
    ours.normalize = True
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    assert compare(replace(answers, outputs=units), ours).outputs == 3


def test_zero_vectors_are_equal(answers: Answers) -> None:
    """A text with a zero vector on both sides is no difference."""
    zero = VECTORS * [[1], [0], [1]]
    assert compare(replace(answers, outputs=zero.astype(np.float32)), Ours(zero)).outputs == 3


def test_scores_are_compared_by_distance(answers: Answers) -> None:
    """A reranker's scores may differ by up to 1e-4."""
    ours = Ours(np.array([[0.5], [0.1], [0.9]]))
    ours.task = "rerank"
    near = np.array([[0.50005], [0.1], [0.9]], np.float32)
    pairs = replace(answers, outputs=near)
    assert compare(pairs, ours).score_error_max == pytest.approx(5e-5, rel=0.01)
    message = message_of(replace(pairs, outputs=near + 0.001), ours)
    assert "'a text' is scored 0.500000, but 0.501050 by sentence-transformers" in message
    for other in (np.add(near, [[0], [1.5e-4], [0]]), np.subtract(near, [[0], [1.5e-4], [0]])):
        assert "'another' is scored" in message_of(replace(pairs, outputs=other), ours)


def test_a_score_that_is_no_number_differs(answers: Answers) -> None:
    """A score that is NaN on either side is a difference."""
    scores = np.array([[0.5], [0.1], [0.9]], np.float32)
    spoilt = np.array([[0.5], [np.nan], [0.9]], np.float32)
    for ours, theirs in ((spoilt, scores), (scores, spoilt)):
        model = Ours(ours)
        model.task = "rerank"
        assert "'another' is scored" in message_of(replace(answers, outputs=theirs), model)


def test_the_default_prompt_is_applied(answers: Answers) -> None:
    """A text without a prompt name gets the folder's default prompt, as in the library."""
    ours = Ours()
    ours.default_prompt_name = "query"
    assert "'a text'" in message_of(answers, ours)


def test_a_prompt_that_is_named_goes_before_the_default_one(answers: Answers) -> None:
    """A prompt that is named takes precedence over the default one, as in a request."""
    ours = Ours()
    ours.prompts, ours.default_prompt_name = {"query": "q: ", "passage": "p: "}, "query"
    ours.outputs = {
        ours.tokenize([f"q: {probe.text}"])[0].digest: vector
        for probe, vector in zip(OUTPUTS_OF, VECTORS, strict=True)
    }
    texts = ("q: a text", "p: another")
    given = replace(
        answers, ids_of=(Probe("a text"), Probe("another", "passage")),
        ids=tuple(map(ids, texts)), token_types=tuple(map(zeros, texts)),
    )  # fmt: skip
    assert compare(given, ours).texts == 2


def test_a_prompt_that_is_not_read_differs(answers: Answers) -> None:
    """A prompt that the library finds in the folder and we do not is a difference."""
    ours = Ours()
    ours.prompts = {}
    assert "prompt 'query'" in message_of(answers, ours)


def test_answers_come_back_from_their_file(answers: Answers, tmp_path: Path) -> None:
    """Answers that are written and read again are unchanged, as is the folder they are about."""
    pair = Probe(("a query", "a document"))
    large, types = np.array([250_001, 7, 0]), np.array([0, 1, 1])
    answers = replace(
        answers, outputs_of=(*OUTPUTS_OF[:2], pair), ids=(large, answers.ids[1]),
        token_types=(types, answers.token_types[1]),
    )  # fmt: skip
    write(tmp_path / "answers.npz", answers, about="digest")
    again, about = read(tmp_path / "answers.npz")
    assert about == "digest"
    assert (again.ids_of, again.outputs_of) == (answers.ids_of, answers.outputs_of)
    assert again.versions == VERSIONS
    for mine, theirs in zip(answers.ids, again.ids, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(answers.token_types, again.token_types, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(answers.outputs, again.outputs)


def test_probes_cover_what_tokenizers_treat_differently() -> None:
    """Probes cover every added token inside a text, texts over the limit, and every prompt."""
    probes = id_probes("embed", ["query", "passage"], ["[CLS]", "[NEW]"], 16)
    texts = [probe.text for probe in probes]
    assert "before [NEW] after[NEW]end" in texts
    assert "" in texts
    # Without special tokens and with them, such texts are under, at and over the limit.
    made = [str(text).split() for text in texts if str(text).startswith("first ")]
    assert [len(words) for words in made if words[-1] == "last"] == [15, 16, 17, 34]
    assert {probe.prompt_name for probe in probes} == {None, "query", "passage"}
    assert all(isinstance(probe.text, tuple) for probe in id_probes("rerank", [], ["[CLS]"], 16))


def test_outputs_are_compared_on_dozens_of_texts_of_all_lengths() -> None:
    """Outputs are compared on dozens of texts, short and long."""
    texts = [probe.text for probe in output_probes("embed")]
    assert len(texts) >= 24
    assert min(len(text) for text in texts) < 10
    assert max(len(text) for text in texts) > 500
    assert len(output_probes("rerank")) >= 24


def test_every_prompt_and_every_added_token_is_tried() -> None:
    """Every prompt is tried on several texts, and up to 64 added tokens on both sides of pairs."""
    names = [probe.prompt_name for probe in id_probes("embed", ["query", "passage"], [], 16)]
    assert names.count("query") == names.count("passage") > 1
    many = [f"[{number}]" for number in range(70)]
    texts = [str(probe.text) for probe in id_probes("embed", [], many, 16)]
    assert [number for number in range(70) if f"before [{number}] after[{number}]end" in texts] == [
        *range(64)
    ]
    pairs = [probe.text for probe in id_probes("rerank", [], ["[NEW]"], 16)]
    assert ("a query", "before [NEW] after[NEW]end") in pairs
    assert ("before [NEW] after[NEW]end", "a document") in pairs


def test_a_model_without_a_limit_is_tried_on_no_endless_text() -> None:
    """A model without a limit, or with a limit below one word, is tried on no endless text."""
    for limit in (10**6, 0, 1):
        texts = [str(probe.text) for probe in id_probes("embed", [], [], limit)]
        assert max(map(len, texts)) < 100_000
