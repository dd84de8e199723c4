"""Long texts are cut before they are tokenized, and nobody can tell."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.models.rows import Row, Text
from sidecar.models.tokenizer import Tokenizer

MAX_TOKENS = 12
# Accents in both forms, marks without a letter, jamo, CJK, what expands, what is cleaned away,
# and the tokenizer's own tokens, whole and torn.
PIECES = [
    "a", "Bread", "unbelievably", "x" * 130, "é", "e\u0301\u0323", "\u0301", "ﬁ", "İ", "Σ",
    "한국", "中文", "😀",
    "\x00", "\ufffd", "\u200b", "\u00a0", "\u3000", ".", "-", "'", "[SEP]", "[", "SEP]",
    "[MASK]", "[mask]", "[CLS]", " ", "  ", "\n", "\t", "\r\n",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=120).map("".join)


@pytest.fixture(scope="module")
def tokenizer(minilm_folder: Path) -> Tokenizer:
    return Tokenizer(minilm_folder / "tokenizer.json", MAX_TOKENS)


@pytest.fixture(scope="module")
def whole(minilm_folder: Path) -> Tokenizer:
    """The same, but it never cuts a text before it is tokenized."""
    tokenizer = Tokenizer(minilm_folder / "tokenizer.json", MAX_TOKENS)
    tokenizer._words_alone = False
    return tokenizer


def parts(row: Row) -> tuple[list[int], list[int], bool]:
    return row.ids.tolist(), row.token_types.tolist(), row.truncated


@given(
    st.lists(st.one_of(texts, st.tuples(texts, texts)), min_size=1, max_size=4), st.integers(1, 60)
)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_rows_are_those_of_the_whole_texts(
    tokenizer: Tokenizer, whole: Tokenizer, some: list[Text], window: int
) -> None:
    """Texts and pairs, wherever they are cut."""
    tokenizer._window = window
    for cut, uncut in zip(tokenizer.rows(some), whole.rows(some), strict=True):
        assert parts(cut) == parts(uncut)


@pytest.mark.parametrize("shape", [lambda text: text, lambda text: ("a query", text)])
def test_a_long_text_is_not_tokenized_whole(
    tokenizer: Tokenizer, shape: Callable[[str], Text]
) -> None:
    """Nor a document beside a query; so megabytes hold up nobody."""
    tokenizer._window = 8 * MAX_TOKENS
    text = shape("copper conducts heat better than steel " * 1_000)
    head = tokenizer._head(text, tokenizer._window)
    assert len(head if isinstance(head, str) else head[1]) <= tokenizer._window
    assert parts(tokenizer.rows([text])[0]) == parts(tokenizer.rows([head])[0])


@pytest.mark.parametrize("spaced", [True, False])
def test_an_added_token_with_a_space_forbids_it(minilm_folder: Path, spaced: bool) -> None:
    """The cut might go through it."""
    from sidecar.models.tokenizer import _tokenizes_words_alone

    tokenizer = Tokenizer(minilm_folder / "tokenizer.json", MAX_TOKENS)._tokenizer
    tokenizer.add_tokens(["New York" if spaced else "NewYork"])
    assert _tokenizes_words_alone(tokenizer) is not spaced
