"""Where a model's artifact is stored in the cache."""

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
    """Return where the artifact of the model in `folder` is stored, or will be, in `cache`.

    The path depends on the contents of the folder's files, the precision, the processor that the
    speed was measured on, and the versions that determine what is written; not on the folder's
    location, name or times. With `remember`, `cache` keeps the digests of the folder's files.
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
    # The folder's name is only a label: the same model may have been prepared under another.
    made = sorted(path for path in cache.glob(f"*-{behind}") if manifests.is_artifact(path))
    return made[0] if made else cache / f"{folder.name}-{behind}"
