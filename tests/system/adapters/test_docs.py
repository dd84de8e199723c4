"""The code blocks of the adapters' pages run as they are."""

import gc
import re
from pathlib import Path

import pytest

from ...client_lib.adapters.texts import TEXTS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "integrations"
ADAPTERS = ROOT / "client_lib" / "adapters"
PAGES = [
    FOLDER / f"{name}.md" for name in ("chroma", "haystack", "lancedb", "langchain", "llama-index")
]


def test_every_adapter_has_a_page() -> None:
    """The pages are those of the adapters' modules, and the index names each of them."""
    modules = {page.stem.replace("-", "_") for page in PAGES}
    shared = {"__init__", "base", "connections"}
    assert modules == {path.stem for path in ADAPTERS.glob("*.py")} - shared
    index = (FOLDER / "index.md").read_text()
    assert [page for page in PAGES if f"({page.name})" not in index] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_pasted(
    page: Path,
    socket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The code of each page runs against the default socket and finds the right document."""
    monkeypatch.setenv("SIDECAR_SOCKET", socket)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(block, page.name, "exec"), {"__name__": "pasted"})
    gc.collect()  # closes what the page leaves open
    assert TEXTS[0] in capsys.readouterr().out
