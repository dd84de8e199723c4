"""Long texts are truncated before they are tokenized, which no row shows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.models.folder.settings import Settings
from sidecar.models.folder.tokenizer import assemble
from sidecar.models.rows import Row, Text
from sidecar.models.tokenizer import Tokenizer

from .tokenizers_zoo import KINDS, edit, write_tokenizer

MAX_TOKENS = 12
# Accents in both forms, marks without a letter, jamo, CJK, characters that expand or are removed,
# and the tokenizer's own tokens, whole and in pieces.
PIECES = [
    "a", "Bread", "unbelievably", "x" * 130, "é", "e\u0301\u0323", "\u0301", "ﬁ", "İ", "Σ",
    "한국", "中文", "😀",
    "\x00", "\ufffd", "\u200b", "\u00a0", "\u3000", ".", "-", "'", "[SEP]", "[", "SEP]",
    "[MASK]", "[mask]", "[CLS]", "<mask>", "<s>", "</s>", "<pad>", " ", "  ", "\n", "\t", "\r\n",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=120).map("".join)


@pytest.fixture(scope="module")
def tokenizer(minilm_folder: Path) -> Tokenizer:
    return Tokenizer(minilm_folder / "tokenizer.json", MAX_TOKENS)


def of_kind(kind: str, folder: Path, settings: Settings, **fields: str) -> tuple[Tokenizer, ...]:
    """Return a tokenizer of `kind`, and one like it that never truncates a text beforehand."""
    write_tokenizer(kind, folder)
    edit(folder / "tokenizer_config.json", **fields)
    path = folder / "own.json"
    path.write_text(assemble(folder, settings, MAX_TOKENS), "utf-8")
    cutting, whole = Tokenizer(path, MAX_TOKENS), Tokenizer(path, MAX_TOKENS)
    whole._words_alone = False
    return cutting, whole


@pytest.fixture(scope="module")
def pairs_of_tokenizers(
    minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Tokenizer, ...]]:
    """Both tokenizers of every kind, of the trained model, and of one that lower-cases."""
    made = {kind: of_kind(kind, tmp_path_factory.mktemp(kind), Settings()) for kind in KINDS}
    lower = Settings(lower_case=True)
    made["lower"] = of_kind("bert-cased", tmp_path_factory.mktemp("lower"), lower)
    path = minilm_folder / "tokenizer.json"
    made["trained"] = Tokenizer(path, MAX_TOKENS), Tokenizer(path, MAX_TOKENS)
    made["trained"][1]._words_alone = False
    return made


def parts(row: Row) -> tuple[list[int], list[int], bool]:
    return row.ids.tolist(), row.token_types.tolist(), row.truncated


@pytest.mark.slow
def test_two_threads_may_tokenize_at_once(
    pairs_of_tokenizers: dict[str, tuple[Tokenizer, ...]],
) -> None:
    """Two threads that tokenize at the same time get the same rows as each would alone."""
    long, short = ["".join(PIECES) * 200], PIECES
    for tokenizer, _ in pairs_of_tokenizers.values():
        expected = [parts(row) for row in tokenizer.rows([*long, *short])]
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(tokenizer.rows, some) for _ in range(5) for some in (long, short)
            ]
            rows = [future.result() for future in futures]
        assert all([parts(row) for row in some] == expected[:1] for some in rows[::2])
        assert all([parts(row) for row in some] == expected[1:] for some in rows[1::2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet", "plain-bert", "lower", "trained"])
@given(
    some=st.lists(st.one_of(texts, st.tuples(texts, texts)), min_size=1, max_size=4),
    window=st.integers(1, 60),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_rows_are_those_of_the_whole_texts(
    pairs_of_tokenizers: dict[str, tuple[Tokenizer, ...]],
    kind: str,
    some: list[Text],
    window: int,
) -> None:
    """Texts and pairs that are truncated beforehand give the same rows as whole ones."""
    cutting, whole = pairs_of_tokenizers[kind]
    cutting._window = window
    for cut, uncut in zip(cutting.rows(some), whole.rows(some), strict=True):
        assert parts(cut) == parts(uncut)


def test_only_the_kinds_of_bert_are_cut_beforehand(tmp_path: Path) -> None:
    """Only BERT's tokenizers truncate beforehand, and only if the model keeps a text's start."""
    cut = {}
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        cut[kind] = of_kind(kind, tmp_path / kind, Settings())[0]._words_alone
    others = {"roberta", "roberta-spaced", "xlm-roberta", "camembert", "plain-roberta"}
    assert {kind for kind, on in cut.items() if not on} == others
    left, _ = of_kind("bert", tmp_path / "bert", Settings(), truncation_side="left")
    assert not left._words_alone
    long = "copper " * 200
    assert (
        parts(left.rows([long + "best of all"])[0])[0][-4:-1]
        == parts(left.rows(["best of all"])[0])[0][-4:-1]
    )


@pytest.mark.parametrize("shape", [lambda text: text, lambda text: ("a query", text)])
def test_a_long_text_is_not_tokenized_whole(
    tokenizer: Tokenizer, shape: Callable[[str], Text]
) -> None:
    """A long text or document is not tokenized whole, so that megabytes delay nobody."""
    tokenizer._window = 8 * MAX_TOKENS
    text = shape("copper conducts heat better than steel " * 1_000)
    head = tokenizer._head(text, tokenizer._window)
    assert len(head if isinstance(head, str) else head[1]) <= tokenizer._window
    assert parts(tokenizer.rows([text])[0]) == parts(tokenizer.rows([head])[0])


@pytest.mark.parametrize("spaced", [True, False])
def test_an_added_token_with_a_space_forbids_it(minilm_folder: Path, spaced: bool) -> None:
    """An added token with a space prevents truncating beforehand, which might cut through it."""
    from sidecar.models.tokenizer import _tokenizes_words_alone

    tokenizer = Tokenizer(minilm_folder / "tokenizer.json", MAX_TOKENS)._tokenizer
    tokenizer.add_tokens(["New York" if spaced else "NewYork"])
    assert _tokenizes_words_alone(tokenizer) is not spaced


def test_added_tokens_have_ids_as_well(minilm_folder: Path, tmp_path: Path) -> None:
    """The highest id includes added tokens, for which the model's table needs rows, too."""
    plain = Tokenizer(minilm_folder / "tokenizer.json", MAX_TOKENS)
    before = plain.highest_id
    assert before == len(plain._tokenizer.get_vocab()) - 1
    plain._tokenizer.add_tokens(["[K]", "[Q]"])
    plain._tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path / "tokenizer.json", MAX_TOKENS).highest_id == before + 2


def test_a_row_is_cut_where_it_is_longer_than_the_limit(tokenizer: Tokenizer) -> None:
    """A row over the limit, special tokens included, is truncated; of a pair, the longer side."""
    for words, tokens, truncated in ((9, 11, False), (10, 12, False), (11, 12, True)):
        (row,) = tokenizer.rows(["copper " * words])
        assert (row.tokens, row.truncated) == (tokens, truncated)
        assert not row.token_types.any()
    for query, document, tokens, truncated in (
        (3, 6, 12, False), (3, 7, 12, True), (6, 3, 12, False), (2, 2, 7, False), (40, 40, 12, True)
    ):  # fmt: skip
        (row,) = tokenizer.rows([("copper " * query, "heat " * document)])
        assert (row.tokens, row.truncated) == (tokens, truncated), (query, document)
    (pair,) = tokenizer.rows([("copper copper", "heat")])
    assert pair.token_types.tolist() == [0, 0, 0, 0, 1, 1]


def test_beside_a_long_query_the_whole_document_counts(minilm_folder: Path) -> None:
    """Next to a query of any length, truncating a document beforehand does not change the row."""
    path = minilm_folder / "tokenizer.json"
    cutting, whole = Tokenizer(path, MAX_TOKENS), Tokenizer(path, MAX_TOKENS)
    whole._words_alone = False
    for words in range(1, 14):
        pair = ("a " * words, "copper heats well now " * 20)
        for cutting._window in (6, 12, 20, 25, 30, 45, 60):
            (cut,), (uncut,) = cutting.rows([pair]), whole.rows([pair])
            assert parts(cut) == parts(uncut), (words, cutting._window)
