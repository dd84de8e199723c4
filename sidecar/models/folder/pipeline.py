"""The pipeline of modules that sentence-transformers runs, as the folder lists it."""

from pathlib import Path

from sidecar.encoder.architecture import Pooling
from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.files import read_json

_POOLINGS = {
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_cls_token": Pooling.CLS,
    "mean": Pooling.MEAN,
    "cls": Pooling.CLS,
}


def modules_of(folder: Path) -> dict[str, str]:
    """Return sentence-transformers' modules, type -> path; none for a plain transformers folder."""
    listed = read_json(folder, "modules.json", optional=True)
    found = {str(m["type"]).rpartition(".")[2]: str(m["path"]) for m in listed or []}
    unknown = set(found) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        message = f"{folder}: module {', '.join(sorted(unknown))} is not supported"
        raise UnknownArchitectureError(message)
    return found


def pooling_of(folder: Path) -> Pooling:
    """Return how the Pooling module in `folder` pools."""
    config = read_json(folder, "config.json")
    flags = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    modes = flags or [str(config.get("pooling_mode"))]
    if len(modes) != 1 or modes[0] not in _POOLINGS or config.get("include_prompt") is False:
        raise UnknownArchitectureError(f"{folder}: pooling {', '.join(modes)} is not supported")
    return _POOLINGS[modes[0]]
