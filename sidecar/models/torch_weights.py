"""Check that every parameter that transformers loaded is the folder's, and none is random.

Transformers initialises at random what a checkpoint lacks, and only logs it; that model's vectors
would differ at each start.
"""

import re
from pathlib import Path
from typing import Any

from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.folder.config import read_config, transformer_of
from sidecar.models.folder.tensors import canonical, is_known_to_be_unused, named
from sidecar.models.folder.weights import open_weights
from sidecar.models.vocabulary import check_vocabulary

# Transformers sets this on a parameter that it loaded, or tied to a loaded one.
_LOADED = "_is_hf_initialized"
_LAYER = re.compile(r"(^|\.)(layers?|blocks?|h)\.(?P<number>[0-9]+)\.")


def check_loaded(folder: Path, task: Task, pipeline: Any) -> None:
    """Raise `ModelError` if `pipeline` is not, tensor for tensor, what `folder` holds.

    It names tensors that are missing or hold NaN or infinity, layers that the model's class leaves
    out, whatever a native class leaves out of a model with code of its own, token ids without a
    row, and a tokenizer without a vocabulary.
    """
    transformer = next(iter(pipeline.children()))
    model = transformer.model
    missing = _missing(transformer, task)
    if missing:
        raise ModelError(f"{folder} lacks {named(missing)}, which would be random")
    if read_config(folder).get("auto_map") and (left := _left_out(folder, model)):
        raise ModelError(
            f"{folder} needs code of its own (auto_map), which is not run, and "
            f"{type(model).__name__} does not use its {named(left)}"
        )
    if beyond := _beyond(folder, model):
        raise ModelError(f"{folder} holds {named(beyond)}, of a layer that config.json lacks")
    _check_finite(folder, pipeline)
    _check_rows(folder, transformer.tokenizer, model)


def _missing(transformer: Any, task: Task) -> list[str]:
    parameters = transformer.model.named_parameters()
    missing = [name for name, parameter in parameters if not getattr(parameter, _LOADED, False)]
    # An embedder's pooler is computed but not used.
    unused = task == "embed" and _output(transformer) == "last_hidden_state"
    return [name for name in missing if not (unused and name.startswith("pooler."))]


def _output(transformer: Any) -> str:
    return str(transformer.modality_config["text"]["method_output_name"])


def _left_out(folder: Path, model: Any) -> list[str]:
    """Return the tensors that the model's class does not know, as reported by transformers.

    The model is loaded again for that: sentence-transformers does not pass the report on.
    """
    _, account = type(model).from_pretrained(
        str(transformer_of(folder)),
        config=model.config,
        local_files_only=True,
        output_loading_info=True,
    )
    prefix = f"{model.base_model_prefix}."
    unknown = account["unexpected_keys"]
    return sorted(name for name in unknown if not is_known_to_be_unused(canonical(name, prefix)))


def _beyond(folder: Path, model: Any) -> list[str]:
    """Return the tensors of layers numbered higher than any of the model's."""
    try:
        stored = open_weights(transformer_of(folder)).names()
    except ModelError:  # in a format that only transformers reads
        return []
    highest = max(map(_layer_of, model.state_dict()), default=-1)
    return sorted(name for name in stored if _layer_of(name) > highest)


def _layer_of(name: str) -> int:
    """Return the number of the layer that a tensor belongs to, or -1 if there is none."""
    found = _LAYER.search(name)
    return int(found["number"]) if found else -1


def _check_finite(folder: Path, pipeline: Any) -> None:
    import torch  # noqa: PLC0415 - only where this path is taken

    for name, parameter in pipeline.named_parameters():
        if parameter.dtype != torch.float32:
            continue  # how well half precision holds the folder's values is measured
        if not torch.isfinite(parameter.sum(dtype=torch.float64)):
            raise ModelError(f"{folder}: parameter {name!r} holds NaN or infinity")


def _check_rows(folder: Path, tokenizer: Any, model: Any) -> None:
    try:
        rows = int(model.get_input_embeddings().num_embeddings)
        vocabulary = tokenizer.get_vocab()
    except (AttributeError, NotImplementedError):  # some have no table, others no vocabulary
        return
    if vocabulary.keys() <= set(tokenizer.all_special_tokens):
        # If there is no file, the library creates such a tokenizer, to which every text is unknown.
        raise ModelError(f"{folder} has no tokenizer.json and no other vocabulary file")
    check_vocabulary(folder, max(vocabulary.values()), rows)
