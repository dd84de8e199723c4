"""Texts to rows of token ids, exactly as long as they are.

Of a text that is much longer than its model takes, only the beginning is tokenized, where the
rows are the same for sure:

1. The end is what is cut off, and the tokenizer is BERT's: it splits at whitespace, and what
   becomes of a word depends on no other. Its normalizer looks at one character at a time, but
   for combining marks, whose order never changes across a space. An added token with a space in
   it would be an exception.
2. So the tokens before a space are those of the text before it. If these alone are more than the
   limit, the row is cut among them.
3. Of a pair the longer side gives way. The query's tokens, counted by themselves, are at most
   half of the limit; so the document is the longer one as soon as the pair is over the limit, and
   how much of it stays depends on the query alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer

from sidecar.models.errors import ModelError
from sidecar.models.rows import Row, Text

# Tokens of English have 5 characters, spaces included.
_CHARACTERS_A_TOKEN = 8
_WIDER = 4
_PLAIN = re.compile(r"[!-~]+")  # ASCII, and no space


class Tokenizer:
    """The model's own tokenizer, cutting at its limit, on its own side, and never padding.

    Its settings are fixed when it is made: one that changed them between calls could not be
    shared between threads.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = FastTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        side = (self._tokenizer.truncation or {"direction": "right"})["direction"]
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, direction=side)
        self._words_alone = side == "right" and _tokenizes_words_alone(self._tokenizer)
        self.max_tokens = max_tokens
        self._window = _CHARACTERS_A_TOKEN * max_tokens
        self._longest_query = (max_tokens - self._tokenizer.num_special_tokens_to_add(True)) // 2

    @property
    def highest_id(self) -> int:
        """The highest id that a row may hold."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """Return a row for each text or (query, document) pair."""
        return self._rows(texts, self._window)

    def _rows(self, texts: Sequence[Text], window: int) -> list[Row]:
        heads = [self._head(text, window) for text in texts]
        rows = [_row(encoding) for encoding in self._tokenizer.encode_batch_fast(heads)]
        for index, (text, head) in enumerate(zip(texts, heads, strict=True)):
            if head is not text and not rows[index].truncated:
                (rows[index],) = self._rows([text], _WIDER * window)
        return rows

    def _head(self, text: Text, window: int) -> Text:
        """Return so much of `text` as is likely to be enough; `text` itself where it is all."""
        cut = text if isinstance(text, str) else text[1]
        if not self._words_alone or len(cut) <= window:
            return text
        end = max(cut.rfind(" ", 0, window), cut.rfind("\n", 0, window))
        if end < 0:
            return text
        if isinstance(text, str):
            return text[:end]
        return (text[0], cut[:end]) if self._gives_way_to(text[0]) else text

    def _gives_way_to(self, query: str) -> bool:
        tokens = self._tokenizer.encode(query, add_special_tokens=False)
        return len(tokens) <= self._longest_query


def _tokenizes_words_alone(tokenizer: FastTokenizer) -> bool:
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        isinstance(tokenizer.model, WordPiece)
        and _normalizes_words_alone(tokenizer.normalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and all(_PLAIN.fullmatch(str(token.content)) for token in added)
    )


def _normalizes_words_alone(normalizer: object) -> bool:
    if isinstance(normalizer, Normalizers):
        parts = [normalizer[index] for index in range(len(normalizer))]
        return all(isinstance(part, BertNormalizer | Lowercase) for part in parts)
    return isinstance(normalizer, BertNormalizer)


def _row(encoding: Encoding) -> Row:
    return Row(
        ids=np.array(encoding.ids, np.int64),
        token_types=np.array(encoding.type_ids, np.int64),
        truncated=bool(encoding.overflowing),
    )
