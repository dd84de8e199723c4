"""What the inference threads work on."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Text: TypeAlias = str | tuple[str, str]
"""One input of a model: a text, or a cross-encoder's (query, document)."""


def capped(limit: int, cap: int) -> int:
    """Return the model's own `limit` in tokens, or `cap` where that is less and not 0."""
    return min(limit, cap) if cap else limit


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenized input; ids and token types are int64 [tokens], never padded.

    Rows of the same ids and types have the same `digest`, and no others: it is so long that
    nobody finds two that share one.
    """

    ids: NDArray[np.int64]
    token_types: NDArray[np.int64]
    truncated: bool
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        # Here, and so on the tokenizer's thread.
        digest = blake2b(self.ids.tobytes() + self.token_types.tobytes(), digest_size=32).digest()
        object.__setattr__(self, "digest", digest)

    @property
    def tokens(self) -> int:
        """How many tokens are computed for this row."""
        return len(self.ids)
