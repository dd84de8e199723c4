"""Turn texts into rows of token ids, exactly as long as they are.

If a text is much longer than the model's limit, only its beginning is tokenized, provided that the
row is certain to be the same:

1. The end is what is truncated, and the tokenizer is BERT's: it splits at whitespace, and a word's
   tokens depend on no other word. Its normalizer looks at one character at a time, except for
   combining marks, whose order never changes across a space. An added token that contains a space
   would be an exception.
2. So the tokens before a space are those of the text before it. If these alone exceed the limit,
   the row is truncated among them.
3. Of a pair, the longer side is truncated. The query's tokens, counted separately, are at most half
   of the limit; so the document is the longer side once the pair exceeds the limit, and how much of
   it remains depends only on the query.
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

# English has 5 characters per token, spaces included.
_CHARACTERS_PER_TOKEN = 8
_WIDER = 4
_PLAIN = re.compile(r"[!-~]+")  # printable ASCII without spaces


class Tokenizer:
    """The model's own tokenizer, truncating at its limit, on its own side, and never padding.

    Its settings are fixed when it is created: if calls changed them, threads could not share it.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = FastTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} is not a valid tokenizer: {error}") from error
        side = (self._tokenizer.truncation or {"direction": "right"})["direction"]
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, direction=side)
        self._words_alone = side == "right" and _tokenizes_words_alone(self._tokenizer)
        self.max_tokens = max_tokens
        self._window = _CHARACTERS_PER_TOKEN * max_tokens
        self._longest_query = (max_tokens - self._tokenizer.num_special_tokens_to_add(True)) // 2

    @property
    def highest_id(self) -> int:
        """The highest token id that a row may hold."""
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
        """Return a prefix of `text` that is probably long enough, or `text` itself."""
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
