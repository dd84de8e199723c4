"""A smaller vocabulary for test models: less to write, read and quantize."""

import json
from pathlib import Path

WORDS = 4_000
"""Words kept of the default model's vocabulary: letters and the most frequent words."""


def with_few_words(tokenizer: Path) -> str:
    """Return the default model's tokenizer.json, limited to the first `WORDS` words."""
    fields = json.loads(tokenizer.read_text("utf-8"))
    vocabulary = fields["model"]["vocab"]
    fields["model"]["vocab"] = {word: at for word, at in vocabulary.items() if at < WORDS}
    return json.dumps(fields)
