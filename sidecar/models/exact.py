"""A model folder in FP32: the source of every quantization, and what it is compared with."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from onnx import ModelProto, TensorProto

from sidecar.encoder.architecture import Encoder
from sidecar.encoder.graph import build
from sidecar.encoder.recipes import Float32Recipe
from sidecar.encoder.runtime import Session
from sidecar.models.compute import forward
from sidecar.models.description import Description
from sidecar.models.folder.describe import describe
from sidecar.models.folder.pipeline import STATIC, first_of
from sidecar.models.folder.prompts import loadable_prompts
from sidecar.models.folder.settings import read_settings
from sidecar.models.folder.static import static_tokenizer
from sidecar.models.folder.tokenizer import assemble
from sidecar.models.folder.weights import read_encoder
from sidecar.models.manifest import GRAPH, TOKENIZER, WEIGHTS
from sidecar.models.oracle.ask import Reference, inquiry
from sidecar.models.oracle.compare import DiffersError, compare
from sidecar.models.tokenizer import Tokenizer
from sidecar.models.verification import Verification
from sidecar.models.vocabulary import check_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """A model in FP32.

    `graph` is the path of its graph; its weights (`weight_bytes` bytes) and tokenizer lie beside
    it. `verified` is the proof that sentence-transformers gives the same results, None if it could
    not be asked.
    """

    description: Description
    encoder: Encoder
    tokenizer: Tokenizer
    graph: Path
    weight_bytes: int
    verified: Verification | None


def read_exact(folder: Path, scratch: Path) -> Exact:
    """Read the model in `folder` and verify it, using the empty folder `scratch`.

    Weights are copied from file to file: they are in memory as a whole only during a forward.
    Raises `ModelError` if the folder cannot be read, and `UnknownArchitectureError` if no graph
    here gives what the library gives.
    """
    description = describe(folder)
    with inquiry(folder, description.task, scratch) as ask:
        encoder = read_encoder(folder, description)
        size = _write_graph(encoder, scratch)
        asked = time.perf_counter()
        reference = ask()
    (scratch / TOKENIZER).write_text(
        tokenizer_of(folder, description.max_tokens, reference), "utf-8"
    )
    tokenizer = Tokenizer(scratch / TOKENIZER, description.max_tokens)
    check_vocabulary(folder, tokenizer.highest_id, len(encoder.embeddings.word))
    verified = None
    if reference is not None:
        ours = _Float32(folder, description, tokenizer, scratch / GRAPH)
        verified = _verify(folder, reference, ours)
        verified = replace(verified, seconds=round(time.perf_counter() - asked, 3))
    return Exact(
        description=description,
        encoder=encoder,
        tokenizer=tokenizer,
        graph=scratch / GRAPH,
        weight_bytes=size,
        verified=verified,
    )


def weight_bytes(graph: ModelProto) -> int:
    """Return the size of `graph`'s weights in bytes."""
    return sum(map(_bytes_of, graph.graph.initializer))


def _bytes_of(tensor: TensorProto) -> int:
    stored = {entry.key: entry.value for entry in tensor.external_data}
    return int(stored["length"]) if stored else len(tensor.raw_data)


def _write_graph(encoder: Encoder, scratch: Path) -> int:
    with (scratch / WEIGHTS).open("wb") as weights:
        graph = build(encoder, Float32Recipe(), weights)
    (scratch / GRAPH).write_bytes(graph.SerializeToString())
    return weight_bytes(graph)


def tokenizer_of(folder: Path, max_tokens: int, reference: Reference | None) -> str:
    """Return the tokenizer of the model in `folder` as JSON: the library's, or our own reading."""
    if reference and reference.tokenizer:
        return reference.tokenizer
    first = first_of(folder)
    if first.kind == STATIC:
        return static_tokenizer(first.folder)
    return assemble(first.folder, read_settings(folder), max_tokens)


class _Float32:
    """The model as it would be served in FP32."""

    def __init__(
        self, folder: Path, description: Description, tokenizer: Tokenizer, graph: Path
    ) -> None:
        prompts = loadable_prompts(folder, description.task)
        self.task = description.task
        self.normalize = description.normalize
        self.prompts = prompts.by_name
        self.default_prompt_name = prompts.default_name
        self.tokenize = tokenizer.rows
        self.forward = partial(forward, Session(graph), description.activation)


def _verify(folder: Path, reference: Reference, ours: _Float32) -> Verification:
    try:
        return compare(reference.answers, ours)
    except DiffersError as error:
        raise DiffersError(f"{folder}: {error}") from None
