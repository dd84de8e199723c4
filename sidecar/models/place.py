"""Where the artifact of a model lies in the cache."""

import hashlib
from pathlib import Path

from sidecar import __version__
from sidecar.encoder import runtime
from sidecar.host import read_host
from sidecar.models import manifest as manifests
from sidecar.models.digests import Digests, fingerprint
from sidecar.models.manifest import FORMAT
from sidecar.models.precision import Precision


def cached_path(folder: Path, precision: Precision, cache: Path, *, remember: bool = True) -> Path:
    """Return where the artifact of the model in `folder` lies, or will lie, in `cache`.

    The name changes with what the folder's files hold, the precision, the processor that its
    speed was measured on, and the versions that decide what is written; not with where the
    folder is, what it is called or when it was copied there. `cache` remembers the digests of
    its files, if it is to `remember` anything.
    """
    host, digests = read_host(), Digests(cache)
    facts = (
        fingerprint(folder, digests),
        repr(precision),
        f"{host.cpu_model} {sorted(host.isa)}",
        f"{FORMAT} {__version__} {runtime.version()}",
    )
    if remember:
        digests.remember()
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    behind = f"{precision.quantization}-{key}"
    # The folder's name is for people: the same model may have been prepared by another one.
    made = sorted(path for path in cache.glob(f"*-{behind}") if manifests.is_artifact(path))
    return made[0] if made else cache / f"{folder.name}-{behind}"
