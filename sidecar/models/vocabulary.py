"""Check that a tokenizer fits the model beside it."""

from pathlib import Path

from sidecar.models.errors import ModelError


def check_vocabulary(folder: Path, highest_id: int, rows: int) -> None:
    """Raise `ModelError` if the tokenizer of `folder` has ids beyond the embedding table.

    `highest_id` is the tokenizer's; `rows` is how many ids the table has a vector for.
    """
    if highest_id >= rows:
        raise ModelError(
            f"{folder}: the tokenizer has ids up to {highest_id}, but the embedding table has "
            f"{rows} rows: one of them belongs to another model"
        )
