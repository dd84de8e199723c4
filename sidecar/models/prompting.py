"""The prompts of one model: what its folder or artifact states, overridden by the setting."""

from pathlib import Path

import structlog

from sidecar.models import manifest as manifests
from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.folder import prompts as stated
from sidecar.models.prompts import Prompts, Setting, goes_without
from sidecar.models.source import display_name

log = structlog.get_logger()


def prompts_of(folder: Path, name: str, task: Task, setting: Setting) -> Prompts:
    """Return the prompts of the model `name` in `folder`, a source or an artifact.

    `setting` takes precedence over what is stated there. A reranker has no prompts by name. Raises
    `ModelError`, naming the file, if the default prompt does not exist.
    """
    file, prompts, names = _stated(folder, task)
    if task == "embed":
        prompts = prompts.under(setting, (display_name(name), *names))
    default = prompts.default_name
    if default is not None and default not in prompts.by_name:
        known = ", ".join(prompts.by_name) or "none"
        where = "there, or in SIDECAR_PROMPTS" if task == "embed" else "there"
        raise ModelError(
            f"{file}: default_prompt_name {default!r} is not one of its prompts ({known}): add it "
            f"{where}"
        )
    return prompts if task == "embed" else Prompts(by_name={})


def warn_of_missing(name: str, prompts: Prompts) -> None:
    """Log a warning if the model `name` needs prompts that it is served without."""
    if prompts.missing:
        log.warning(
            "model.prompts_missing",
            model=name,
            task="embed",
            roles=list(prompts.missing),
            message=f"{name}: {goes_without(prompts.missing)}; set SIDECAR_PROMPTS=auto",
        )


def _stated(folder: Path, task: Task) -> tuple[Path, Prompts, tuple[str, ...]]:
    """Return the file that states prompts, the prompts, and other names of the model."""
    if not manifests.is_artifact(folder):
        return folder / stated.FILE, stated.stated_prompts(folder, task), ()
    manifest = manifests.read(folder)
    own = manifest.description
    prompts = Prompts(by_name=own.prompts, default_name=own.default_prompt_name)
    return folder / manifests.FILE, prompts, (manifest.name,)
