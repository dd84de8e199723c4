"""Where folders are written, and a way to open them that starts no process for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .case import Case
from .generator import write

_NO_MEMORY = {"rss_bytes": 0, "pss_bytes": 0}


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder for folders: those of cases, and the cache of what is prepared from them."""

    root: Path

    @property
    def cache(self) -> Path:
        """Where artifacts lie."""
        return self.root / "cache"

    def write(self, case: Case) -> Path:
        """Write a case's folder under a number of its own."""
        return write(case, self.root / f"folder-{len(list(self.root.glob('folder-*')))}")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return the folder for folders."""
    pytest.importorskip("sentence_transformers")
    return Workshop(tmp_path_factory.mktemp("folders"))


@pytest.fixture(autouse=True)
def quiet_library() -> Iterator[None]:
    """Have the library compute on one thread, and say nothing of hundreds of loadings."""
    import torch
    import transformers

    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)  # more of them only wait for each other: the models are tiny
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()
    transformers.logging.set_verbosity(verbosity)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def nobody_to_correct_it(in_one_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask no library: what is compared is how a folder is read here.

    Nor is an artifact timed on more threads, which costs a second a folder and changes no byte, or
    the memory counted that this process has by then; those have tests of their own.
    """
    monkeypatch.setattr("sidecar.models.announcements.read_memory", lambda: _NO_MEMORY)
    monkeypatch.setattr("sidecar.models.library.layout_of", lambda *_: None)
    for module in ("sidecar.models.library", "sidecar.models.oracle.ask"):
        monkeypatch.setattr(f"{module}.has_library", lambda: False)
