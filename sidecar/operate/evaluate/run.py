"""Runs a model in each of its precisions on judged data, and compares each with FP32."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np

from client_lib.wire.roles import ROLES, role_prompt_name
from sidecar.models.closeness import summary
from sidecar.models.manifest import Quality
from sidecar.models.model import Model
from sidecar.models.torch_model import TorchModel
from sidecar.operate.evaluate.compare import difference
from sidecar.operate.evaluate.data import Data, Prompts
from sidecar.operate.evaluate.evaluation import REFERENCE, Figure, Outcome
from sidecar.operate.evaluate.metrics import Metric, Outputs, metrics_of, row_products

_CHUNK = 128  # texts read and tokenized at a time
_TINY = np.float32(1e-12)  # keeps a zero vector zero, as the daemon does

AnyModel: TypeAlias = Model | TorchModel
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage, how many of its texts are done, and out of how many."""


def evaluate(
    data: Data, models: Mapping[str, AnyModel], threads: int, progress: Progress
) -> Iterator[Outcome]:
    """Yield an outcome for each of `models`, keyed by plan; that of `REFERENCE` first.

    Holds the outputs of two plans in memory at most, float32 [inputs, dimensions] each. The models
    must suit the data's task. Raises `DataError` for a corpus that cannot be read again.
    """
    reference = models[REFERENCE]
    exact = _outputs(data, reference, threads, partial(progress, REFERENCE))
    theirs = metrics_of(data, exact)
    yield Outcome(REFERENCE, tuple(Figure(m.name, m.value, None) for m in theirs), None)
    for plan, model in models.items():
        if plan != REFERENCE:
            own = _outputs(data, model, threads, partial(progress, plan))
            figures = _compared(theirs, metrics_of(data, own))
            yield Outcome(plan, figures, _closeness(data, exact, own))
            del own  # before the next one is computed


def _compared(theirs: Sequence[Metric], own: Sequence[Metric]) -> tuple[Figure, ...]:
    return tuple(
        Figure(mine.name, mine.value, difference(exact, mine))
        for exact, mine in zip(theirs, own, strict=True)
    )


def _outputs(
    data: Data, model: AnyModel, threads: int, progress: Callable[[int, int], None]
) -> Outputs:
    """Return the outputs of `model` for the inputs of `data`; vectors have unit length."""
    outputs = np.empty((len(data), model.dimensions), np.float32)
    inputs, done = data.inputs(prompts_of(model)), 0
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(inputs, _CHUNK)):
            for output in pool.map(model.forward, model.tokenize(chunk)):
                length = np.linalg.norm(output) if data.task == "embed" else 1
                outputs[done] = output / np.maximum(length, _TINY)
                done += 1
            progress(done, len(data))
    return outputs


def prompts_of(model: AnyModel) -> Prompts:
    """Return the prompts by role, as the daemon applies them."""

    def text(name: str | None) -> str:
        return model.prompts.get(name or model.default_prompt_name or "", "")

    query, document = (text(role_prompt_name(role, model.prompts)) for role in ROLES)
    return Prompts(query, document, text(None))


def _closeness(data: Data, exact: Outputs, own: Outputs) -> Quality:
    if data.task == "embed":
        return summary(row_products(exact, own).astype(np.float32))
    return summary(1 - np.abs(exact - own)[:, 0])
