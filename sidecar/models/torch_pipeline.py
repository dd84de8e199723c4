"""sentence-transformers' own pipeline of a folder, loaded; and what of such pipelines is refused.

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

# Where a folder states no limit; families without position embeddings are trained up to it.
_UNSTATED_LIMIT = 512
_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Source:
    """The folder of a model, what the model is called, and what it is for.

    Texts are cut at `max_tokens` where that is less than the model's own limit, and not 0.
    `prompts` are those that the folder states where they are None.
    """

    folder: Path
    name: str
    task: Task
    max_tokens: int = 0
    prompts: Prompts | None = None


def load_pipeline(source: Source, device: str = "cpu", dtype: str = "float32") -> Any:
    """Return the library's own `SentenceTransformer` or `CrossEncoder` of the folder.

    Its limit is what its positions bear: with a longer one, the library fails on longer texts.
    Raises `ModelError` where its weights are not, tensor for tensor, those of the folder.
    """
    # Read when torch is loaded: the daemon's own threads are the parallelism.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch  # noqa: PLC0415 - seconds to import, as are the others
    import transformers  # noqa: PLC0415
    from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: PLC0415

    # Standard error is for what went wrong.
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = CrossEncoder if source.task == "rerank" else SentenceTransformer
    # Asked for by name: without one it would be the checkpoint's. Told before the weights are
    # read, transformers leaves in FP32 what a family cannot do with less, as `half()` would not.
    kwargs = {"dtype": getattr(torch, dtype)}
    prompts = source.prompts or loadable_prompts(source.folder, source.task)
    pipeline = kind(
        str(source.folder),
        device=device,
        # The library wants the default one among them.
        prompts=dict(prompts.by_name),
        local_files_only=True,
        model_kwargs=kwargs,
    ).eval()
    if dtype == "float32":
        pipeline.float()  # a table of static vectors comes as it is stored
    if type(pipeline[0]).__name__ == "Transformer":
        check_loaded(source.folder, source.task, pipeline)
        pipeline.max_seq_length = _max_tokens(pipeline)
    return pipeline


def refuse_what_differs(source: Source, pipeline: Any, kinds: Sequence[str]) -> None:
    """Raise `ModelError` for what rows of tokens, or this daemon, cannot do as the library does."""
    if kinds[0] != "Transformer":
        raise ModelError(f"{source.folder}: a pipeline that begins with {kinds[0]} is not served")
    if any(getattr(module, "include_prompt", True) is False for module in pipeline.children()):
        raise ModelError(f"{source.folder}: pooling that leaves out the prompt is not served")
    if source.task == "rerank" and pipeline.num_labels != 1:
        labels = pipeline.num_labels
        raise ModelError(f"{source.folder}: {labels} labels are not a reranker's (1 label)")
    activation = stated_activation(source.folder) if source.task == "rerank" else ""
    if activation and not activation.startswith("torch."):
        # The library does not run a folder's own code either; it would take the sigmoid instead.
        raise ModelError(f"{source.folder}: score activation {activation!r} is not one of torch's")


def _max_tokens(pipeline: Any) -> int:
    """Return the longest row: what the folder states, and what its table of positions bears."""
    stated = pipeline.max_seq_length or _NO_LIMIT
    limit = int(stated) if stated < _NO_LIMIT else _UNSTATED_LIMIT
    for name, module in pipeline.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            padding = getattr(module, "padding_idx", None)
            # RoBERTa and its kin begin to count behind the padding's index.
            limit = min(limit, module.num_embeddings - (0 if padding is None else padding + 1))
    return limit
