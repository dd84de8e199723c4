"""The code blocks of the adapters' pages run as they are."""

import gc
import re
from pathlib import Path

import pytest

from ...client_lib.adapters.texts import TEXTS

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[3] / "docs" / "adapters"
PAGES = [page for page in sorted(FOLDER.glob("*.md")) if page.name != "README.md"]


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
    assert page.stem in (FOLDER / "README.md").read_text()
