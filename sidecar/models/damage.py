"""Damaged artifacts in the cache: detect them and set them aside, to be prepared again."""

import os
import shutil
import stat
from pathlib import Path

import structlog

from sidecar.models import manifest as manifests
from sidecar.models.durable import sync_folder
from sidecar.models.errors import DamagedError, ModelError
from sidecar.models.intact import check, loss_told
from sidecar.models.manifest import FILE
from sidecar.models.trust import Owner, refuse_untrusted

log = structlog.get_logger()

_SUFFIX = ".damaged"


def check_artifact(artifact: Path, *, owner: Owner | None = None) -> None:
    """Read all files of an artifact. Raises what `manifests.read` and `intact.check` raise."""
    manifest = manifests.read(artifact)
    with loss_told(artifact / FILE):  # another daemon may be replacing it
        refuse_untrusted(artifact / FILE, owner=owner or Owner.of_this_process())
    check(artifact, manifest.files, owner=owner)


def log_damaged(model: str, error: DamagedError, aside: Path | None = None) -> None:
    """Log that a cached model is damaged, and that it was renamed to `aside`, or is removed."""
    log.warning(
        "model.damaged",
        model=model,
        path=str(error.path),
        reason=error.reason,
        aside=str(aside) if aside else None,
    )


def set_aside(artifact: Path) -> Path | None:
    """Rename a damaged artifact so that it can be prepared again; return its new path.

    An artifact that was set aside before is removed. Returns None if there is nothing damaged any
    more: daemons that share a cache find the same damage, and one of them acts first. Raises
    `ModelError` if the artifact cannot be renamed.
    """
    if not os.path.lexists(artifact) or _is_whole(artifact):
        return None
    aside = artifact.with_name(artifact.name + _SUFFIX)
    try:
        _remove_own(aside)
        artifact.rename(aside)
        sync_folder(artifact.parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(
            f"{artifact} is damaged and cannot be renamed to {aside.name} ({error.strerror}): "
            "remove it, or choose another folder with SIDECAR_CACHE_DIR"
        ) from None
    return aside


def _is_whole(artifact: Path) -> bool:
    try:
        check_artifact(artifact)
    except DamagedError:
        return False
    return True


def _remove_own(folder: Path) -> None:
    """Remove a folder owned by this user; leave anything else, which then blocks the rename."""
    if not os.path.lexists(folder):
        return
    facts = folder.lstat()
    if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid():
        shutil.rmtree(folder)
