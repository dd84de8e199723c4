"""The weights of a model's folder, in the shapes that the graph builder takes."""

from collections import deque
from collections.abc import Callable
from pathlib import Path, PurePath

from sidecar.encoder.architecture import Encoder, Float32, Head, UnsupportedModelError
from sidecar.encoder.families import FAMILIES
from sidecar.encoder.static import static_encoder
from sidecar.models.description import Description
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.files import read_json, reading
from sidecar.models.folder.formats import Pickled, Safetensors, Shards, Store
from sidecar.models.folder.pipeline import first_of, pipeline_of
from sidecar.models.folder.static import read_table
from sidecar.models.folder.steps import head_of

# transformers' order, and sentence-transformers' for modules of its own.
_WHOLE = ("model.safetensors", "pytorch_model.bin")


def open_weights(folder: Path) -> Store:
    """Return the tensors of the module in `folder`, of the file that the library prefers.

    Tensors are read whenever they are asked for, so the files have to stay as they are.
    Raises `ModelError`, naming the file, where there is none or it cannot be read.
    """
    with reading(folder):
        for name in _WHOLE:
            index = folder / f"{name}.index.json"
            if (folder / name).is_file():
                return _open(folder / name)
            if index.is_file():
                return Shards([_open(shard) for shard in _shards(index)])
    raise ModelError(f"{folder} has no weights: neither {' nor '.join(_WHOLE)}, whole or in shards")


def _open(path: Path) -> Store:
    return Safetensors(path) if path.suffix == ".safetensors" else Pickled(path)


def _shards(index: Path) -> list[Path]:
    """Return the files that an index lists, in the order in which the library reads them."""
    listed = read_json(index.parent, index.name)
    by_tensor = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(by_tensor, dict) or not by_tensor:
        raise ModelError(f"{index} has no weight_map from tensors to files")
    return [_shard(index, str(name)) for name in sorted(set(by_tensor.values()), key=str)]


def _shard(index: Path, name: str) -> Path:
    # As it is written: in the hub's cache every file is a link to one outside its folder.
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ModelError(f"{index} names a shard outside its folder: {name}")
    if not (index.parent / name).is_file():
        raise ModelError(f"{index} names a shard that is not there: {name}")
    return index.parent / name


def read_encoder(folder: Path, description: Description) -> Encoder:
    """Return the model's weights as float32 in the shape that the graph builder takes.

    Its layers are read whenever they are asked for, so the file has to stay as it is.

    Raises `ModelError` where a tensor is missing or not a floating-point one.
    """
    try:
        encoder = _read(folder, description)
        deque(encoder.layers, maxlen=0)  # what is missing is missed here
    except UnsupportedModelError as error:
        raise UnknownArchitectureError(f"{folder}: {error}") from None
    except (KeyError, ValueError) as error:
        raise ModelError(f"{folder}: {error}") from error
    return encoder


def _read(folder: Path, description: Description) -> Encoder:
    if description.task == "rerank":
        return _read_family(first_of(folder).folder, description.family, None)
    pipeline = pipeline_of(folder)
    head = head_of(pipeline, open_weights)
    if pipeline.is_static:
        own = pipeline.first.folder
        return static_encoder(read_table(own, open_weights(own)), head)
    return _read_family(pipeline.first.folder, description.family, head)


def _read_family(folder: Path, name: str, head: Head | None) -> Encoder:
    family = FAMILIES[name]
    tensor = _tensors(open_weights(folder), family.prefix)
    return family.read(read_json(folder, "config.json"), tensor, head)


def _tensors(weights: Store, prefix: str) -> Callable[[str], Float32]:
    names = weights.names()

    def tensor(name: str) -> Float32:
        for full in (name, prefix + name):
            if full in names:
                return weights.tensor(full)
        raise KeyError(f"tensor {name!r} is missing")

    return tensor
