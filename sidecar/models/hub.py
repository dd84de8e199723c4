"""Models from the Hugging Face hub: download the files that a pipeline needs.

A repository holds the same weights in many formats. Only the one that sentence-transformers would
read is downloaded: safetensors, or torch's if there is no other. Failures are reported in one line.
"""

import glob
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sidecar.models.errors import ModelError, TemporaryError
from sidecar.models.folder.config import modules_in
from sidecar.models.scarcity import is_full

_LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may read it"
_WITHOUT = "give the path of a model folder, or prepare it on a host with network access"
# Configurations, vocabularies, SentencePiece models, chat templates.
_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja"})
# In order of preference; shards are numbered.
_WEIGHTS = (
    ("model.safetensors",),
    ("model-*.safetensors",),
    ("pytorch_model.bin",),
    ("pytorch_model-*.bin",),
)
_ADAPTERS = ("adapter_model.safetensors",)


def fetch(name: str) -> Path:
    """Return the folder of the model `name`, or `name@revision`, downloading it if necessary.

    If the hub cannot be reached, an earlier download serves. If there is none, raises `ModelError`,
    whose message says in one line what to do.
    """
    # Imported late: a daemon whose models are all local never needs it.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    repository, revision = _parts(name)
    try:
        files = needed(*_listed(repository, revision))
        patterns = [glob.escape(file) for file in files]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - the hub's own, its transport's, the disk's
        if isinstance(error, OSError) and is_full(error):
            raise TemporaryError(f"{name} cannot be downloaded: {error}") from None
        return _fetched_before(name, error)


def find(name: str) -> Path:
    """Return the folder of an earlier download, without asking the hub.

    Raises `ModelError` if there is none.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    repository, revision = _parts(name)
    try:
        # Without a pattern, the library would miss the formats that were not downloaded.
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns="config.json", local_files_only=True
            )
        )
    except (OSError, ValueError) as error:
        raise ModelError(_advice(name, error)) from None


def needed(names: Iterable[str], modules: Iterable[str]) -> list[str]:
    """Return which of a repository's files to download; `modules` are the folders of its modules.

    Only files in the repository's root, and in or below a module's folder, are considered.
    """
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(str(PurePosixPath(name).parent), []).append(name)
    wanted = {".", *(str(PurePosixPath(module)) for module in modules)}
    return [
        file
        for folder, files in by_folder.items()
        if folder in wanted or wanted.intersection(_parents(folder))
        for file in _in_folder(files)
    ]


def _parents(folder: str) -> set[str]:
    return {str(parent) for parent in PurePosixPath(folder).parents} - {"."}


def _in_folder(files: list[str]) -> list[str]:
    """Return the files needed from one folder: one format of the weights, and all small files."""
    found = ([file for file in files if _matches(file, names)] for names in _WEIGHTS)
    weights = next(filter(None, found), [])
    others = [file for file in files if PurePosixPath(file).suffix in _SUFFIXES]
    return [*others, *weights, *(file for file in files if _matches(file, _ADAPTERS))]


def _matches(file: str, patterns: Iterable[str]) -> bool:
    return any(PurePosixPath(PurePosixPath(file).name).match(pattern) for pattern in patterns)


def _listed(repository: str, revision: str | None) -> tuple[list[str], list[str]]:
    """Return the names of a repository's files, and the folders of its modules."""
    from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415

    # Without a network, `list_repo_files` would retry for half a minute.
    siblings = HfApi().model_info(repository, revision=revision).siblings or []
    names = [sibling.rfilename for sibling in siblings]
    if "modules.json" not in names:
        return names, []
    modules = Path(hf_hub_download(repository, "modules.json", revision=revision))
    return names, [path for _, path in modules_in(modules.parent)]


def _parts(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _fetched_before(name: str, error: Exception) -> Path:
    """Return an earlier download, or raise a `ModelError` about the first `error`."""
    try:
        return find(name)
    except ModelError:
        raise ModelError(_advice(name, error)) from None


def _advice(name: str, error: Exception) -> str:
    """Return one line: why the model is not available from the hub, and what to do about it."""
    from huggingface_hub import errors  # noqa: PLC0415

    repository, revision = _parts(name)
    reasons: dict[type[Exception], str] = {
        errors.GatedRepoError: f"{repository} is gated on the hub: accept its conditions at "
        f"https://huggingface.co/{repository}, then {_LOGIN}",
        errors.RepositoryNotFoundError: f"{repository} is neither a folder nor on the hub; if it "
        f"is private there, {_LOGIN}",
        errors.RevisionNotFoundError: f"{repository} has no revision {revision} on the hub",
        errors.HFValidationError: f"{name} is neither a folder nor a valid hub name; {_WITHOUT}",
    }
    found = next((reasons[kind] for kind in reasons if isinstance(error, kind)), None)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return found or f"{name} is neither a folder nor available from the hub ({reason}); {_WITHOUT}"
