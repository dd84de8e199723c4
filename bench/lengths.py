"""Texts of exactly so many tokens, to measure by length: words that are one token each."""

import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

_WORDS = 4_000
_QUERY_WORDS = 8
_AT_LEAST = 100


class Exactly:
    """Makes texts for the tokenizer at that path, of the words of other `texts`, at random.

    The same ones in every run, and hardly ever two alike from a handful of words on.
    """

    def __init__(self, tokenizer: Path, texts: Iterable[str]) -> None:
        known = Tokenizer.from_file(str(tokenizer))
        known.no_padding()
        known.no_truncation()
        self._around_text = known.num_special_tokens_to_add(is_pair=False)
        self._around_pair = known.num_special_tokens_to_add(is_pair=True)
        self._words = _whole_words(known, texts)
        self._chance = random.Random(0)
        if len(self._words) < _AT_LEAST:
            raise SystemExit(f"--data has only {len(self._words)} words that are a token each")

    def text(self, tokens: int) -> str:
        """Return a text of that many tokens, the special ones included."""
        return self._some(tokens - self._around_text)

    def pair(self, tokens: int) -> tuple[str, str]:
        """Return a short query and a document, together of that many tokens."""
        words = tokens - self._around_pair
        query = min(_QUERY_WORDS, words // 3)
        return self._some(query), self._some(words - query)

    def _some(self, words: int) -> str:
        return " ".join(self._chance.choices(self._words, k=words))


def _whole_words(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    words = dict.fromkeys(w for text in texts for w in text.lower().split() if w.isalpha())
    found = list(islice(words, _WORDS))
    # Among others of its kind: some tokenizers join a word with what stands before it.
    encoded = tokenizer.encode_batch([f"{w} {w} {w}" for w in found], add_special_tokens=False)
    return [word for word, each in zip(found, encoded, strict=True) if len(each) == 3]
