"""Whether a tokenizer fits the model beside it."""

from pathlib import Path

from sidecar.models.errors import ModelError


def check_vocabulary(folder: Path, highest_id: int, rows: int) -> None:
    """Raise `ModelError` where the tokenizer of `folder` has ids beyond the embedding table.

    `highest_id` is the tokenizer's, `rows` how many ids the table has a vector for.
    """
    if highest_id >= rows:
        raise ModelError(
            f"{folder}: the tokenizer has ids up to {highest_id}, and the embedding table "
            f"{rows} rows: one of them is another model's"
        )
