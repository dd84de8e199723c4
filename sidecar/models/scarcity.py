"""Disk or memory that runs out while a model is prepared, which is not the model's fault."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.host import read_host
from sidecar.models.errors import TemporaryError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NEEDS = (
    "it takes about 250 MB plus three times the model's weights in FP32. Free some, raise the "
    "limit, or prepare it on a larger host with `sidecar prepare` and serve the artifact"
)


def is_full(error: OSError) -> bool:
    """Whether `error` means that a disk, or this user's quota on it, is full."""
    return error.errno in _FULL


@contextmanager
def scarcity_told(name: str, place: Path) -> Iterator[None]:
    """Raise `TemporaryError` if the block, which prepares `name` in `place`, runs out of either."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        advice = "free some, or choose another folder with SIDECAR_CACHE_DIR or `prepare --output`"
        needs = "the model's weights in FP32 and the artifact must fit"
        raise TemporaryError(
            f"{name} cannot be prepared in {place} ({error.strerror}): {needs}; {advice}"
        ) from error
    except MemoryError as error:
        raise TemporaryError(f"preparing {name} ran out of memory: {_NEEDS}") from error


def killed(name: str) -> TemporaryError:
    """Return the error to raise if the process that prepared `name` was sent SIGKILL."""
    limit = f"the limit here is {read_host().memory_bytes / 2**20:,.0f} MiB"
    return TemporaryError(
        f"preparing {name} was killed, most likely for lack of memory: {_NEEDS} ({limit})"
    )
