"""The weights of a model folder, in the form that the graph builder expects."""

from pathlib import Path, PurePath

from sidecar.encoder.architecture import Encoder, Head
from sidecar.encoder.families import FAMILIES
from sidecar.encoder.static import static_encoder
from sidecar.models.description import Description
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.config import read_config, transformer_of
from sidecar.models.folder.files import read_json, reading
from sidecar.models.folder.formats import Pickled, Safetensors, Shards, Store
from sidecar.models.folder.pipeline import pipeline_of
from sidecar.models.folder.static import read_table
from sidecar.models.folder.steps import head_of
from sidecar.models.folder.tensors import Tensors, check_encoder

# In the order of transformers, and of sentence-transformers for its own modules.
_WHOLE = ("model.safetensors", "pytorch_model.bin")


def open_weights(folder: Path) -> Store:
    """Return the tensors of the module in `folder`, from the file that the library prefers.

    Tensors are read on access, so the files must not change in the meantime.
    Raises `ModelError`, naming the file, if there are no weights or they cannot be read.
    """
    return Shards([_open(path) for path in weight_files(folder)])


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of the module in `folder`: a single file or its shards.

    Raises `ModelError` if there are none, or if a shard is missing.
    """
    with reading(folder):
        for name in _WHOLE:
            index = folder / f"{name}.index.json"
            if (folder / name).is_file():
                return [folder / name]
            if index.is_file():
                return _shards(index)
    raise ModelError(f"{folder} has no weights: neither {' nor '.join(_WHOLE)}, whole or in shards")


def _open(path: Path) -> Store:
    return Safetensors(path) if path.suffix == ".safetensors" else Pickled(path)


def _shards(index: Path) -> list[Path]:
    """Return the files that an index lists, in the library's order."""
    listed = read_json(index.parent, index.name)
    by_tensor = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(by_tensor, dict) or not by_tensor:
        raise ModelError(f"{index} has no weight_map from tensors to files")
    return [_shard(index, str(name)) for name in sorted(set(by_tensor.values()), key=str)]


def _shard(index: Path, name: str) -> Path:
    # Not resolved: in the hub's cache every file is a symlink to one outside its folder.
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ModelError(f"{index} names a shard outside its folder: {name}")
    if not (index.parent / name).is_file():
        raise ModelError(f"{index} names a shard that does not exist: {name}")
    return index.parent / name


def read_encoder(folder: Path, description: Description) -> Encoder:
    """Return the model's weights as float32, in the form that the graph builder expects.

    Layers are read on access, so the files must not change in the meantime.

    Raises `UnknownArchitectureError` if a tensor is missing, unknown, or its shape contradicts the
    config, and `ModelError` for files that cannot be read and for NaN or infinity.
    """
    try:
        return _read(folder, description)
    except ValueError as error:  # shapes that do not stack, or an `UnsupportedModelError`
        raise UnknownArchitectureError(f"{folder}: {error}") from None


def _read(folder: Path, description: Description) -> Encoder:
    if description.task == "rerank":
        return _read_layers(folder, description.family, None)
    pipeline = pipeline_of(folder)
    head = head_of(pipeline, open_weights)
    if not pipeline.is_static:
        return _read_layers(folder, description.family, head)
    own = pipeline.first.folder
    return static_encoder(read_table(own, open_weights(own)), head)


def _read_layers(folder: Path, name: str, head: Head | None) -> Encoder:
    config, family = read_config(folder), FAMILIES[name]
    where = transformer_of(folder)
    tensors = Tensors(where, open_weights(where), family.prefix, config)
    encoder = family.read(config, tensors.tensor, head)
    check_encoder(encoder, config)
    tensors.refuse_unused()
    return encoder
