"""The Python code of docs/integrations/compat.md and migrate.md runs as written."""

import re
from pathlib import Path
from typing import Any

import pytest

from client_lib import Client
from client_lib.compat.base import Remote

from ..fake_daemon import FakeDaemon
from .test_refusals import EMBEDDER, RERANKER, script

DOCS = Path(__file__).parents[3] / "docs" / "integrations"
MODELS = [
    {**EMBEDDER, "name": "all-MiniLM-L6-v2"}, {**RERANKER, "name": "BAAI/bge-reranker-base"},
]  # fmt: skip


def blocks() -> list[Any]:
    """Return the code blocks that need only a daemon."""
    found = [
        pytest.param(block, id=f"{page}-{number}")
        for page in ("compat.md", "migrate.md")
        for number, block in enumerate(
            re.findall(
                r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE
            )
        )
        if "sentence_transformers import" not in block
    ]
    assert len(found) == 3
    return found


@pytest.mark.parametrize("block", blocks())
def test_the_code_of_the_pages_runs(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    """Each block runs against a daemon with those models, and a `search` that it defines works."""
    fake.script = script(MODELS)
    monkeypatch.setenv("SIDECAR_SOCKET", str(fake.socket))
    space: dict[str, Any] = {}
    imports = "from client_lib.compat import CrossEncoder, SentenceTransformer\n"
    try:
        exec(imports + block, space)
        if "search" in space:
            found = space["search"]("a cat", ["a dog", "a cat sleeps", "snow"])
            assert len(found) == 3
            assert "a cat sleeps" in str(found[0])
    finally:
        for value in space.values():
            if isinstance(value, Client | Remote):
                value.close()
