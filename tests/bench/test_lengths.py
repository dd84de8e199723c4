"""Texts with an exact number of tokens."""

import pytest
from tokenizers import Tokenizer

from bench.lengths import Exactly
from sidecar.models.probes import probe_inputs


@pytest.fixture
def path(minilm_folder):
    return minilm_folder / "tokenizer.json"


@pytest.fixture
def make(path):
    return Exactly(path, probe_inputs("embed"))


@pytest.mark.parametrize("tokens", [8, 16, 256, 512])
def test_texts_and_pairs_have_the_tokens_that_were_asked_for(path, make, tokens):
    """Texts and pairs have exactly the requested number of tokens, special tokens included."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    assert len(tokenizer.encode(make.text(tokens))) == tokens
    assert len(tokenizer.encode(*make.pair(tokens))) == tokens


def test_no_two_texts_are_alike(make):
    """All texts differ, since the daemon computes equal ones only once."""
    texts = [make.text(8) for _ in range(1_000)]
    assert len(set(texts)) == len(texts)


def test_words_that_take_several_tokens_are_left_out(path):
    """Words of several tokens are left out, and too few remaining words end the program."""
    with pytest.raises(SystemExit, match="words that are a token each"):
        Exactly(path, ["supercalifragilistic antidisestablishmentarianism"])
