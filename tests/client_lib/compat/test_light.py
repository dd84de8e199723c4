"""What is imported when, and what happens without optional packages."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from client_lib.compat import progress, similarity
from client_lib.compat.output import converted


def test_the_import_is_as_light_as_the_client() -> None:
    """Importing `client_lib.compat` loads neither torch nor tqdm nor the library."""
    code = "import sys, client_lib.compat; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "tqdm", "transformers", "sentence_transformers", "sidecar"}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a package appear not to be installed."""

    def hide(name: str) -> None:
        for module in [*sys.modules]:
            if module.split(".")[0] == name:
                monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)
        for room in (similarity, progress):
            monkeypatch.setattr(room, "find_spec", lambda asked: None if asked == name else asked)

    return hide


def test_without_tqdm_a_bar_names_the_extra(without: Any, caplog: Any) -> None:
    """Without tqdm, a requested bar names the extra, and an optional one is left out."""
    without("tqdm")
    with pytest.raises(ImportError, match=r"pip install 'embedding-sidecar-client\[compat\]'"):
        progress.with_bar([1], 1, show=True)
    with caplog.at_level("INFO", logger="client_lib.compat.progress"):
        assert progress.with_bar([1], 1, show=None) == [1]


def test_without_torch_arrays_are_all_there_is(without: Any) -> None:
    """Without torch, similarities are arrays, and requesting a tensor raises an error."""
    rows = np.eye(2, dtype=np.float32)
    without("torch")
    scores = similarity.similarity("cosine", rows, rows)
    assert isinstance(scores, np.ndarray)
    assert np.array_equal(scores, rows)
    assert isinstance(similarity.similarity_pairwise("dot", rows, rows), np.ndarray)
    with pytest.raises(ImportError, match="needs torch"):
        converted(rows, None, to_numpy=True, to_tensor=True)
