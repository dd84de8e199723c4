"""Texts to rows of token ids, exactly as long as they are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from sidecar.models.errors import ModelError
from sidecar.models.rows import Row, Text


class Tokenizer:
    """The model's own tokenizer, cutting at its limit and never padding.

    Its settings are fixed when it is made: one that changed them between calls could not be
    shared between threads.
    """

    def __init__(self, path: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = FastTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """Return a row for each text or (query, document) pair."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [_row(encoding) for encoding in encodings]


def _row(encoding: Encoding) -> Row:
    return Row(
        ids=np.array(encoding.ids, np.int64),
        token_types=np.array(encoding.type_ids, np.int64),
        truncated=bool(encoding.overflowing),
    )
