"""Disk and memory that run out while a model is prepared: no fault of the model's."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.host import read_host
from sidecar.models.errors import TemporaryError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NEEDS = (
    "it takes about 250 MB and three times the model's weights in FP32. Free some, raise the "
    "limit, or prepare it on a larger host with `sidecar prepare` and serve the artifact"
)


def is_full(error: OSError) -> bool:
    """Whether `error` says that a disk, or this user's part of it, is full."""
    return error.errno in _FULL


@contextmanager
def scarcity_told(name: str, place: Path) -> Iterator[None]:
    """Raise `TemporaryError` where the block, which prepares `name` in `place`, runs short."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        advice = "free some, or name another folder with SIDECAR_CACHE_DIR, or `prepare --output`"
        needs = "the model's weights in FP32 and the artifact have to fit"
        raise TemporaryError(
            f"{name} cannot be prepared in {place} ({error.strerror}): {needs}; {advice}"
        ) from error
    except MemoryError as error:
        raise TemporaryError(f"preparing {name} ran out of memory: {_NEEDS}") from error


def killed(name: str) -> TemporaryError:
    """Return what is told where the process that prepared `name` was sent SIGKILL."""
    granted = f"{read_host().memory_bytes / 2**20:,.0f} MiB are granted here"
    return TemporaryError(
        f"preparing {name} was killed, most likely for lack of memory: {_NEEDS} ({granted})"
    )
