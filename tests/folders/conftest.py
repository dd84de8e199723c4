"""Where folders are written, and a way to open them that starts no process for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .case import Case
from .generator import write


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
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Return the folder for folders, while models are opened as the fixture below says."""
    pytest.importorskip("sentence_transformers")
    with pytest.MonkeyPatch.context() as patch, _quiet_library():
        _open_in_process(patch.setattr)
        yield Workshop(tmp_path_factory.mktemp("folders"))


@contextmanager
def _quiet_library() -> Iterator[None]:
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


def _open_in_process(replace: Callable[..., None]) -> None:
    """Leave out of `open_model` what costs seconds a folder and changes no byte of an answer.

    It prepares in a process of its own for the sake of memory, and times the artifact on more
    threads for the sake of speed; both have tests of their own. Nor is sentence-transformers
    asked: what is compared is how a folder is read here, with nobody to correct it.
    """
    from sidecar.models.prepare import prepare

    replace("sidecar.models.library.prepare_apart", prepare)
    replace("sidecar.models.library.layout_of", lambda *_: None)
    for module in ("sidecar.models.library", "sidecar.models.oracle.ask"):
        replace(f"{module}.has_library", lambda: False)
