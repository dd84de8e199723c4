"""The weights of a model's folder, in the shapes that the graph builder takes."""

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

# transformers' order, and sentence-transformers' for modules of its own.
_WHOLE = ("model.safetensors", "pytorch_model.bin")


def open_weights(folder: Path) -> Store:
    """Return the tensors of the module in `folder`, of the file that the library prefers.

    Tensors are read whenever they are asked for, so the files have to stay as they are.
    Raises `ModelError`, naming the file, where there is none or it cannot be read.
    """
    return Shards([_open(path) for path in weight_files(folder)])


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights of the module in `folder`, of several its shards.

    Raises `ModelError` where there are none, and for a shard that is not there.
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

    Its layers are read whenever they are asked for, so the files have to stay as they are.

    Raises `UnknownArchitectureError` where a tensor is missing, unknown, or of another shape than
    the config says, and `ModelError` for files that cannot be read and values that are no numbers.
    """
    try:
        return _read(folder, description)
    except ValueError as error:  # shapes that do not stack, and what no family here computes
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
