"""What the inference threads compute: rows of tokens."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Text: TypeAlias = str | tuple[str, str]
"""One input of a model: a text, or a cross-encoder's (query, document) pair."""


def capped(limit: int, cap: int) -> int:
    """Return `limit`, or `cap` if that is less and not 0; both in tokens."""
    return min(limit, cap) if cap else limit


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenized input; ids and token types are int64 [tokens], never padded.

    Rows have the same `digest` if and only if their ids and types are the same: it is long enough
    that no one can find a collision.
    """

    ids: NDArray[np.int64]
    token_types: NDArray[np.int64]
    truncated: bool
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        # Computed here to run on the tokenizer's thread.
        digest = blake2b(self.ids.tobytes() + self.token_types.tobytes(), digest_size=32).digest()
        object.__setattr__(self, "digest", digest)

    @property
    def tokens(self) -> int:
        """The number of tokens computed for this row."""
        return len(self.ids)
