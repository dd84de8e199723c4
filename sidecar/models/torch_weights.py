"""What transformers made of a folder's weights: every parameter is from there, none at random.

It initialises at random what a checkpoint lacks, and says so in its log; a vector of that model
would be another one at each start.
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

# What transformers sets on a parameter that it loaded, or tied to one.
_LOADED = "_is_hf_initialized"
# A tensor of a numbered layer: what other names stand for may be a head of the training's.
_LAYER = re.compile(r"(^|\.)(layers?|blocks?|h)\.[0-9]+\.")


def check_loaded(folder: Path, task: Task, pipeline: Any) -> None:
    """Raise `ModelError` where the `pipeline` is not, tensor for tensor, what `folder` holds.

    It names tensors that are missing, that hold NaN or infinity, layers that its class leaves
    out, and whatever a native class leaves out of a model with code of its own; token ids without
    a row, and a tokenizer without a vocabulary.
    """
    transformer = next(iter(pipeline.children()))
    model = transformer.model
    missing = _missing(transformer, task)
    if missing:
        raise ModelError(f"{folder} lacks {named(missing)}, which would be random")
    left = _left_out(folder, model)
    if left and read_config(folder).get("auto_map"):
        raise ModelError(
            f"{folder} is for code of its own (auto_map), which is not run, and "
            f"{type(model).__name__} does not use its {named(left)}"
        )
    if layers := [name for name in left if _LAYER.search(name)]:
        raise ModelError(f"{folder} holds {named(layers)}, of a layer that config.json lacks")
    _check_finite(folder, pipeline)
    _check_rows(folder, transformer.tokenizer, model)


def _missing(transformer: Any, task: Task) -> list[str]:
    parameters = transformer.model.named_parameters()
    missing = [name for name, parameter in parameters if not getattr(parameter, _LOADED, False)]
    # The pooler behind an embedder's first token: computed, and not looked at.
    unused = task == "embed" and _output(transformer) == "last_hidden_state"
    return [name for name in missing if not (unused and name.startswith("pooler."))]


def _output(transformer: Any) -> str:
    return str(transformer.modality_config["text"]["method_output_name"])


def _left_out(folder: Path, model: Any) -> list[str]:
    prefix = f"{model.base_model_prefix}."
    used = {canonical(name, prefix) for name in model.state_dict()}
    try:
        names = open_weights(transformer_of(folder)).names()
    except ModelError:  # in a format that only transformers reads
        return []
    stored = {name: canonical(name, prefix) for name in names}
    left = [name for name, own in stored.items() if own not in used]
    return sorted(name for name in left if not is_known_to_be_unused(stored[name]))


def _check_finite(folder: Path, pipeline: Any) -> None:
    import torch  # noqa: PLC0415 - only where this path is taken

    for name, parameter in pipeline.named_parameters():
        if not torch.isfinite(parameter.sum(dtype=torch.float64)):
            raise ModelError(f"{folder}: parameter {name!r} holds NaN or infinity")


def _check_rows(folder: Path, tokenizer: Any, model: Any) -> None:
    try:
        rows = int(model.get_input_embeddings().num_embeddings)
        vocabulary = tokenizer.get_vocab()
    except (AttributeError, NotImplementedError):  # some have no table, some no vocabulary
        return
    if vocabulary.keys() <= set(tokenizer.all_special_tokens):
        # The library makes such a tokenizer where it finds no file: every text is unknown to it.
        raise ModelError(f"{folder} has no tokenizer.json and no vocabulary of another name")
    check_vocabulary(folder, max(vocabulary.values()), rows)
