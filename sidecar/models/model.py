"""A loaded artifact: texts to rows, rows to floats."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sidecar.encoder.architecture import Float32, Pooling
from sidecar.models import manifest as manifests
from sidecar.models.compute import forward, session_of
from sidecar.models.digests import Digests
from sidecar.models.intact import Files, checked_meanwhile, loss_told
from sidecar.models.layout import Layout
from sidecar.models.manifest import GRAPH, TOKENIZER, Manifest, Speed
from sidecar.models.prompts import Prompts
from sidecar.models.rows import Row, Text, capped
from sidecar.models.tokenizer import Tokenizer
from sidecar.models.trust import Owner, refuse_untrusted


class Model:
    """One model, ready to serve.

    `forward` and `tokenize` may be called from many threads at once. `reason` is why it has its
    quantization; `verified` is the proof that the library gives the same in FP32, or None;
    `prompting` holds the prompts put before its texts: those of the artifact, unless overridden.
    """

    def __init__(self, manifest: Manifest, layout: Layout, tokenizer: Path, limit: int) -> None:
        """Load the graph of `layout`, and the `tokenizer` file, truncating at `limit` tokens."""
        self._manifest = manifest
        self._layout = layout
        self._session = session_of(layout.graph, manifest.quantization)
        self._wide = (
            session_of(layout.graph, manifest.quantization, layout.threads)
            if layout.threads > 1
            else self._session
        )
        self._tokenizer = Tokenizer(tokenizer, limit)
        description = manifest.description
        self.name = manifest.name
        self.task = description.task
        self.dimensions = manifest.dimensions
        self.max_tokens = limit
        self.model_max_tokens = description.max_tokens
        self.normalize = description.normalize
        self.prompting = Prompts(
            by_name=description.prompts, default_name=description.default_prompt_name
        )
        # Averaging divides by the number of tokens; an empty bag of tokens gives the zero vector.
        self.least_tokens = 0 if Pooling.BAG in description.pooling else 1
        self.intra_op_threads = layout.threads
        self.verified = manifest.verified
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
        return self._tokenizer.rows(texts)

    def forward(self, row: Row) -> Float32:
        """Return float32 [dimensions]: the pooled vector, not normalised; or [1], a score."""
        return forward(self._session, self._manifest.description.activation, row)

    def forward_parallel(self, row: Row) -> Float32:
        """Return the same as `forward`, byte for byte, on `intra_op_threads` threads."""
        return forward(self._wide, self._manifest.description.activation, row)

    def describe(self) -> dict[str, Any]:
        """Return what `status` reports about this model."""
        description = self._manifest.description
        own = {
            "task": self.task,
            "device": "cpu",
            "reason": self.reason,
            "max_tokens": self.max_tokens,
            "model_max_tokens": self.model_max_tokens,
            "normalize": self.normalize,
            **self.prompting.told(),
            "similarity_fn_name": description.similarity_fn_name,
            "activation": description.activation if self.task == "rerank" else None,
        }
        alone = {"threads": self.intra_op_threads, "speed": _as_maps(self._layout.speed)}
        manifest = asdict(self._manifest)
        del manifest["files"]
        return {**manifest, **own, "alone": alone}


def load(
    folder: Path,
    layout: Layout | None = None,
    manifest: Manifest | None = None,
    *,
    max_tokens: int = 0,
    digests: Digests | None = None,
) -> Model:
    """Load the model in the artifact at `folder`, using its `layout` if given.

    `manifest` defaults to the artifact's own. Texts are truncated at `max_tokens` if that is less
    than the model's own limit, and not 0. All files loaded are compared with what was written (see
    `intact`), except for those that `digests` remembers. Raises `DamagedError`, `UntrustedError`,
    and `ModelError` for what cannot be read.
    """
    manifest = manifest or manifests.read(folder)
    layout = layout or Layout(folder / GRAPH)
    limit = capped(manifest.description.max_tokens, max_tokens)
    with loss_told(folder / manifests.FILE):  # another daemon may be replacing it
        refuse_untrusted(folder / manifests.FILE, owner=Owner.of_this_process())
    with checked_meanwhile(*_loaded_from(folder, layout, manifest), digests=digests):
        return Model(manifest, layout, folder / TOKENIZER, limit)


def _loaded_from(folder: Path, layout: Layout, manifest: Manifest) -> list[tuple[Path, Files]]:
    """Return the files that are opened: of an artifact with a layout, only the tokenizer."""
    own = layout.graph.parent
    if own == folder:
        return [(folder, manifest.files)]
    tokenizer = {name: stored for name, stored in manifest.files.items() if name == TOKENIZER}
    return [(own, layout.files), (folder, tokenizer)]


def _as_maps(speed: Mapping[str, Speed]) -> dict[str, dict[str, float]]:
    return {name: asdict(each) for name, each in speed.items()}
