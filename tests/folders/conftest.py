"""Where folders are written, and patches to open them without extra processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .case import Case
from .generator import write

_NO_MEMORY = {"rss_bytes": 0, "pss_bytes": 0}


@dataclass(frozen=True, slots=True)
class Workshop:
    """A directory for the folders of cases and the cache of prepared artifacts."""

    root: Path

    @property
    def cache(self) -> Path:
        """The artifact cache."""
        return self.root / "cache"

    def write(self, case: Case) -> Path:
        """Write a case's folder under a new number and return its path."""
        return write(case, self.root / f"folder-{len(list(self.root.glob('folder-*')))}")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return a session-wide workshop; skip without sentence-transformers."""
    pytest.importorskip("sentence_transformers")
    return Workshop(tmp_path_factory.mktemp("folders"))


@pytest.fixture(autouse=True)
def quiet_library() -> Iterator[None]:
    """Limit the library to one thread and silence its output for hundreds of model loads."""
    import torch
    import transformers

    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)  # the models are tiny: more threads would only wait for each other
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()
    transformers.logging.set_verbosity(verbosity)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def nobody_to_correct_it(in_one_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the check against the library, so that only our own reading of a folder is tested.

    Also skip timing artifacts on more threads, which takes a second per folder and changes no byte,
    and measuring this process's memory. Both are tested elsewhere.
    """
    monkeypatch.setattr("sidecar.models.announcements.read_memory", lambda: _NO_MEMORY)
    monkeypatch.setattr("sidecar.models.library.layout_of", lambda *_: None)
    for module in ("sidecar.models.library", "sidecar.models.oracle.ask"):
        monkeypatch.setattr(f"{module}.has_library", lambda: False)
