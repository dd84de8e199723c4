"""A smaller vocabulary for models of the tests: less to write, to read and to quantize."""

import json
from pathlib import Path

WORDS = 4_000
"""Of the default model's vocabulary the first ones: letters, and the most frequent words."""


def with_few_words(tokenizer: Path) -> str:
    """Return the default model's tokenizer.json without the words behind `WORDS`."""
    fields = json.loads(tokenizer.read_text("utf-8"))
    vocabulary = fields["model"]["vocab"]
    fields["model"]["vocab"] = {word: at for word, at in vocabulary.items() if at < WORDS}
    return json.dumps(fields)
