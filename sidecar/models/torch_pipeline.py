"""Load a folder's sentence-transformers pipeline, and refuse pipelines that cannot be served.

Nothing here imports torch before the first one is loaded.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.folder.describe import stated_activation
from sidecar.models.folder.prompts import loadable_prompts
from sidecar.models.prompts import Prompts
from sidecar.models.torch_weights import check_loaded

# If a folder states no limit; families without position embeddings are trained up to this.
_UNSTATED_LIMIT = 512
_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Source:
    """The folder of a model, the model's name, and its task.

    Texts are truncated at `max_tokens` if that is less than the model's own limit, and not 0.
    `prompts` default to those that the folder states.
    """

    folder: Path
    name: str
    task: Task
    max_tokens: int = 0
    prompts: Prompts | None = None


def load_pipeline(source: Source, device: str = "cpu", dtype: str = "float32") -> Any:
    """Return the library's `SentenceTransformer` or `CrossEncoder` for the folder.

    Its limit is capped by its position embeddings: the library fails on longer texts. Raises
    `ModelError` if its weights are not, tensor for tensor, those of the folder.
    """
    # Read when torch is imported: the daemon's own threads provide the parallelism.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch  # noqa: PLC0415 - seconds to import, as are the others
    import transformers  # noqa: PLC0415
    from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: PLC0415

    # Standard error is for errors.
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = CrossEncoder if source.task == "rerank" else SentenceTransformer
    # Explicit, or it would be the checkpoint's dtype. Set before the weights are read, it lets
    # transformers keep in FP32 what a family cannot do with less, as `half()` would not.
    kwargs = {"dtype": getattr(torch, dtype)}
    prompts = source.prompts or loadable_prompts(source.folder, source.task)
    pipeline = kind(
        str(source.folder),
        device=device,
        # The library requires the default one to be among them.
        prompts=dict(prompts.by_name),
        local_files_only=True,
        model_kwargs=kwargs,
    ).eval()
    if dtype == "float32":
        pipeline.float()  # static embeddings keep the dtype they are stored in
    if type(pipeline[0]).__name__ == "Transformer":
        check_loaded(source.folder, source.task, pipeline)
        pipeline.max_seq_length = _max_tokens(pipeline)
    return pipeline


def refuse_what_differs(source: Source, pipeline: Any, kinds: Sequence[str]) -> None:
    """Raise `ModelError` for a pipeline that this daemon cannot run as the library does."""
    if kinds[0] != "Transformer":
        raise ModelError(f"{source.folder}: a pipeline that begins with {kinds[0]} is unsupported")
    if any(getattr(module, "include_prompt", True) is False for module in pipeline.children()):
        raise ModelError(f"{source.folder}: pooling that leaves out the prompt is unsupported")
    if source.task == "rerank" and pipeline.num_labels != 1:
        labels = pipeline.num_labels
        raise ModelError(f"{source.folder} has {labels} labels, but a reranker has 1")
    activation = stated_activation(source.folder) if source.task == "rerank" else ""
    if activation and not activation.startswith("torch."):
        # The library does not run a folder's own code either; it would use the sigmoid instead.
        raise ModelError(f"{source.folder}: score activation {activation!r} is not one of torch's")


def _max_tokens(pipeline: Any) -> int:
    """Return the longest row: the folder's limit, capped by its position embeddings."""
    stated = pipeline.max_seq_length or _NO_LIMIT
    limit = int(stated) if stated < _NO_LIMIT else _UNSTATED_LIMIT
    for name, module in pipeline.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            padding = getattr(module, "padding_idx", None)
            # RoBERTa and its relatives count positions from after the padding index.
            limit = min(limit, module.num_embeddings - (0 if padding is None else padding + 1))
    return limit
