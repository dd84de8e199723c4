"""What the inference threads work on."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Text: TypeAlias = str | tuple[str, str]
"""One input of a model: a text, or a cross-encoder's (query, document)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenized input; ids and token types are int64 [tokens], never padded."""

    ids: NDArray[np.int64]
    token_types: NDArray[np.int64]
    truncated: bool

    @property
    def tokens(self) -> int:
        """How many tokens are computed for this row."""
        return len(self.ids)
