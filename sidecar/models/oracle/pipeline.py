"""Ask a loaded sentence-transformers pipeline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32
from sidecar.models.description import Task
from sidecar.models.oracle.answers import Answers
from sidecar.models.oracle.texts import Probe, id_probes, output_probes

# Packages that determine an answer; their versions are recorded.
_PACKAGES = ("sentence-transformers", "transformers", "tokenizers", "torch")
_LONGEST = 10**6  # models without a limit state infinity, 10**30, or nothing


def answers_of(pipeline: Any, task: Task, *, every: int = 1) -> Answers:
    """Return the answers of `pipeline`, a `SentenceTransformer` or `CrossEncoder`, to the probes.

    Outputs are computed for only one in `every` of the texts meant for them.
    """
    from importlib.metadata import version  # noqa: PLC0415 - a daemon by our graph never asks

    prompts = () if task == "rerank" else tuple(pipeline.prompts)
    limit = int(min(pipeline.max_seq_length or _LONGEST, _LONGEST))
    ids_of = id_probes(task, prompts, _added_tokens(pipeline.tokenizer), limit)
    outputs_of = output_probes(task)[::every]
    features = [_features(pipeline, probe) for probe in ids_of]
    return Answers(
        versions={name: version(name) for name in _PACKAGES},
        ids_of=tuple(ids_of),
        ids=tuple(ids for ids, _ in features),
        token_types=tuple(types for _, types in features),
        outputs_of=tuple(outputs_of),
        outputs=_outputs(pipeline, task, outputs_of),
    )


def _added_tokens(tokenizer: Any) -> list[str]:
    """Return the special and added tokens, ordered by their ids."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    get = getattr(backend, "get_added_tokens_decoder", None)
    decoder = get() if get else tokenizer.added_tokens_decoder
    return [str(token.content) for _, token in sorted(decoder.items())]


def _features(pipeline: Any, probe: Probe) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the probe's token ids and types, int64 [tokens] each."""
    prompt = pipeline._resolve_prompt(None, probe.prompt_name)  # noqa: SLF001 - as `encode` does
    features = pipeline.preprocess([probe.text], prompt=prompt)
    ids = features["input_ids"].numpy().reshape(-1).astype(np.int64)
    types = features.get("token_type_ids")
    types = np.zeros_like(ids) if types is None else types.numpy().reshape(-1).astype(np.int64)
    mask = features.get("attention_mask")
    kept = np.ones(len(ids), bool) if mask is None else mask.numpy().reshape(-1) != 0
    return ids[kept], types[kept]


def _outputs(pipeline: Any, task: Task, probes: Sequence[Probe]) -> Float32:
    """Return the library's own vectors or scores, one text at a time, float32 [probes, outputs]."""
    run = pipeline.predict if task == "rerank" else pipeline.encode
    outputs = [
        run([probe.text], batch_size=1, show_progress_bar=False, convert_to_numpy=True)
        for probe in probes
    ]
    return np.concatenate(outputs).astype(np.float32).reshape(len(probes), -1)
