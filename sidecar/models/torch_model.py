"""Models run by sentence-transformers: those without a graph here, and on CUDA all but static ones.

Rows run one by one and unpadded, as everywhere. So there is no mask, and
`scaled_dot_product_attention` may use its fastest kernel. Rows are deliberately not batched: a
matrix library picks its kernel by the number of rows, so the last bits of a text's vector could
depend on its neighbours, and "the same text gives the same bytes" takes precedence over throughput.

This needs the extra `server`. Nothing here imports torch before the first such model is loaded: a
daemon that serves known families on a CPU does not need it.
"""

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32
from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.folder.prompts import stated_prompts
from sidecar.models.manifest import Quality, Speed
from sidecar.models.oracle.compare import compare
from sidecar.models.oracle.pipeline import answers_of
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row, Text, capped
from sidecar.models.torch_pipeline import Source, load_pipeline, refuse_what_differs

if TYPE_CHECKING:
    from sidecar.models.verification import Verification

# What plans and events call torch's precisions.
QUANTIZATIONS = {"float32": "none", "float16": "fp16", "bfloat16": "bf16"}
_OUTPUTS: dict[Task, str] = {"embed": "sentence_embedding", "rerank": "scores"}
# Only every fourth text's outputs are compared: the modules are the library's own.
_VERIFIED_EVERY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was measured before serving a model for which half precision was requested.

    `quality` is how close half precision is to FP32, and `speed` is that of FP32 ("none") and of
    half precision on the same device; None and empty if there was nothing to compare. `fell_back`
    is why FP32 serves instead, or None. Sizes in bytes, times in seconds.
    """

    requested: str
    quality: Quality | None
    speed: Mapping[str, Speed]
    fell_back: str | None
    bytes_fp32: int
    seconds: float


class TorchModel:
    """A sentence-transformers pipeline with the interface that serving expects.

    `forward` may be called from many threads at once; so may `tokenize`, which handles one text at
    a time. `verified` is the proof that the rows and calls here give what the pipeline gives in
    FP32. `proof` is set if half precision was requested; `reason` is why it has its precision.
    """

    least_tokens = 1  # the library's transformers reject an empty row

    def __init__(self, source: Source, pipeline: Any, device: str, dtype: str) -> None:
        self._modules = list(pipeline.children())
        self._kinds = [type(module).__name__ for module in self._modules]
        refuse_what_differs(source, pipeline, self._kinds)
        embeds = source.task == "embed"
        self.name, self.task = source.name, source.task
        self.device, self.dtype = device, dtype
        self.normalize = self._kinds[-1] == "Normalize"
        if self.normalize:  # each request decides, after the forward
            self._modules.pop()
        self.dimensions = int(pipeline.get_embedding_dimension()) if embeds else 1
        self.model_max_tokens = int(pipeline.max_seq_length)
        self.max_tokens = capped(self.model_max_tokens, source.max_tokens)
        self.prompting = source.prompts or stated_prompts(source.folder, source.task)
        self._activate = None if embeds else pipeline.activation_fn
        self._similarity: str | None = pipeline.similarity_fn_name if embeds else None
        # Requests name no prompt for a pair: the model's default applies, as in the library.
        self._prompt = None if embeds else pipeline.prompts.get(pipeline.default_prompt_name)
        self._preprocess = pipeline.preprocess
        # The library sets its tokenizer's limits on every call.
        self._tokenizing = threading.Lock()
        sample = self._encode(probe_inputs(self.task)[0])
        self._has_types = "token_type_ids" in sample
        self._constants = {k: v for k, v in sample.items() if isinstance(v, str | int)}
        self.weight_bytes = sum(p.numel() * p.element_size() for p in pipeline.parameters())
        self.intra_op_threads = 1
        self.verified: Verification | None = None
        self.proof: Proof | None = None
        self.reason: str | None = None

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prompts by name."""
        return self.prompting.by_name

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt of requests that name none."""
        return self.prompting.default_name

    def tokenize(self, texts: Sequence[Text]) -> list[Row]:
        """Return a row for each text or, for a reranker, each (query, document) pair."""
        return [self._row(text) for text in texts]

    def forward(self, row: Row) -> Float32:
        """Return float32 [dimensions]: the pooled vector, not normalised; or [1], a score."""
        import torch  # noqa: PLC0415 - only where this path is taken

        with torch.inference_mode():
            transformer, *behind = self._modules
            features = transformer(self._features(row))
            features["attention_mask"] = torch.ones_like(features["input_ids"])
            for module in behind:
                features = module(features)
            outputs = features[_OUTPUTS[self.task]].float()
            if self._activate is not None:
                outputs = self._activate(outputs)
        vector: Float32 = outputs[0].cpu().numpy()
        return vector

    def forward_parallel(self, row: Row) -> Float32:
        """Return the same as `forward`: there is no other way to compute it."""
        return self.forward(row)

    @property
    def quantization(self) -> str:
        """The precision that it serves in: none, fp16 or bf16."""
        return QUANTIZATIONS[self.dtype]

    @property
    def kernel(self) -> str:
        """What multiplies: torch, in which dtype and on which device."""
        return f"torch {self.dtype} on {self.device}, by sentence-transformers"

    def describe(self) -> dict[str, Any]:
        """Return what `status` reports about this model."""
        return {
            "name": self.name,
            "task": self.task,
            "device": self.device,
            "reason": self.reason,
            "quantization": self.quantization,
            "kernel": self.kernel,
            "dimensions": self.dimensions,
            "max_tokens": self.max_tokens,
            "model_max_tokens": self.model_max_tokens,
            "normalize": self.normalize,
            **self.prompting.told(),
            "similarity_fn_name": self._similarity,
            "activation": self._activate and type(self._activate).__name__.lower(),
            "bytes_weights": self.weight_bytes,
            "modules": self._kinds,
            "verified": self.verified and asdict(self.verified),
            **(asdict(self.proof) if self.proof else {}),
        }

    def _row(self, text: Text) -> Row:
        encoded = self._encode(text)
        ids = encoded["input_ids"][0].numpy()
        types = encoded["token_type_ids"][0].numpy() if self._has_types else np.zeros_like(ids)
        return Row(ids, types, truncated=self._is_cut(encoded, len(ids)))

    def _encode(self, text: Text) -> Any:
        with self._tokenizing:
            return self._preprocess([text], prompt=self._prompt)

    def _is_cut(self, encoded: Any, tokens: int) -> bool:
        encodings = getattr(encoded, "encodings", None)
        if encodings:
            return bool(encodings[0].overflowing)
        # A slow tokenizer does not report truncation: at the limit, a truncated text looks like one
        # that just fits.
        return tokens >= self.max_tokens

    def _features(self, row: Row) -> dict[str, Any]:
        features = {**self._constants, "input_ids": self._tensor(row.ids)}
        if self._has_types:
            features["token_type_ids"] = self._tensor(row.token_types)
        return features

    def _tensor(self, values: NDArray[np.int64]) -> Any:
        import torch  # noqa: PLC0415 - only where this path is taken

        return torch.from_numpy(values[np.newaxis]).to(self.device)


def load(source: Source, *, device: str = "cpu", dtype: str = "float32") -> TorchModel:
    """Load the model on `device`, "cpu" or "cuda", in torch's `dtype`, and run one row.

    Raises `ModelError` if sentence-transformers is missing or cannot compute the model, and if the
    results here would differ from the library's.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ModelError(
            f"install the extra `server` to serve {source.name} through sentence-transformers"
        )
    try:
        pipeline = load_pipeline(source, device, dtype)
        model = TorchModel(source, pipeline, device, dtype)
        model.forward(model.tokenize(probe_inputs(source.task)[:1])[0])
        if dtype == "float32":
            # Rows are truncated and modules called here, so that is verified, too.
            answers = answers_of(pipeline, source.task, every=_VERIFIED_EVERY)
            model.verified = compare(answers, model)
        pipeline.max_seq_length = model.max_tokens
    except ModelError:
        raise
    except Exception as error:  # whatever a model's own code raises
        what = " ".join(str(error).split())
        raise ModelError(f"sentence-transformers cannot load {source.name}: {what}") from error
    return model
