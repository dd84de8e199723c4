"""What a library pipeline is asked, and how its answers are read."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sidecar.models.oracle.pipeline import answers_of
from sidecar.models.oracle.texts import id_probes, output_probes

from ...later import Later

torch = Later("torch")


class Pipeline:
    """A stand-in for the library's: ids are a text's characters between 1 and 2, with padding."""

    max_seq_length: float | None = 16
    prompts: Mapping[str, str] = {"query": "q: ", "passage": "p: "}

    def __init__(self, *, types: bool = True, mask: bool = True) -> None:
        self.types, self.mask = types, mask
        tokens = {9: "[LAST]", 3: "[FIRST]"}
        decoder = {number: SimpleNamespace(content=text) for number, text in tokens.items()}
        self.tokenizer = SimpleNamespace(added_tokens_decoder=decoder)
        self.batches: list[int] = []

    def _resolve_prompt(self, prompt: str | None, name: str | None) -> str:
        return self.prompts[name] if name else ""

    def preprocess(self, texts: list[Any], *, prompt: str) -> dict[str, Any]:
        (text,) = texts
        ids = [1, *map(ord, prompt + "".join(text)), 2]
        found = {"input_ids": torch.tensor([[*ids, 0, 0]])}
        if self.types:
            found["token_type_ids"] = torch.tensor([[5] * (len(ids) + 2)])
        if self.mask:
            found["attention_mask"] = torch.tensor([[1] * len(ids) + [0, 0]])
        return found

    def encode(self, texts: list[str], *, batch_size: int, **_: Any) -> np.ndarray:
        self.batches.append(batch_size)
        return np.array([[len(text), 1.0] for text in texts])

    predict = encode


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_answers_are_of_the_probes(task: Any) -> None:
    """Answers have ids without padding, prompts for embedders only, and outputs of single texts."""
    pipeline = Pipeline()
    answers = answers_of(pipeline, task)
    prompts = pipeline.prompts if task == "embed" else ()
    assert list(answers.ids_of) == id_probes(task, prompts, ["[FIRST]", "[LAST]"], 16)
    for probe, ids, types in zip(answers.ids_of, answers.ids, answers.token_types, strict=True):
        prompt = pipeline.prompts[probe.prompt_name] if probe.prompt_name else ""
        assert ids.tolist() == [1, *map(ord, prompt + "".join(probe.text)), 2]
        assert types.tolist() == [5] * len(ids)
    assert list(answers.outputs_of) == output_probes(task)
    assert answers.outputs.dtype == np.float32
    assert answers.outputs[:, 0].tolist() == [len(probe.text) for probe in answers.outputs_of]
    assert set(pipeline.batches) == {1}
    assert set(answers.versions) == {"sentence-transformers", "transformers", "tokenizers", "torch"}


def test_some_of_the_outputs_may_be_enough() -> None:
    """Outputs may be computed for every fourth text only, while token ids are complete."""
    few, all_of = answers_of(Pipeline(), "embed", every=4), answers_of(Pipeline(), "embed")
    assert list(few.outputs_of) == output_probes("embed")[::4]
    assert few.ids_of == all_of.ids_of


def test_what_the_library_does_not_hand_over_is_made_up_for() -> None:
    """Without types all are 0, without a mask every token counts, without a limit it is long."""
    pipeline = Pipeline(types=False, mask=False)
    pipeline.max_seq_length = None
    answers = answers_of(pipeline, "embed")
    for ids, types in zip(answers.ids, answers.token_types, strict=True):
        assert ids.tolist()[-2:] == [0, 0]
        assert types.tolist() == [0] * len(ids)
    pipeline.max_seq_length = float("inf")
    assert answers_of(pipeline, "embed").ids_of == answers.ids_of
