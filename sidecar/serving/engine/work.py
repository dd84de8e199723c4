"""What a request wants computed, once its model is known. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from client_lib.wire.errors import BadRequest
from client_lib.wire.messages import Embed, Rerank
from sidecar.models.rows import Row, Text
from sidecar.serving.postprocess import Postprocess
from sidecar.serving.registry import ServedModel, prompt_text
from sidecar.serving.scheduler.job import Key, key_of

# The objects of a row and its place in the queue, without what they reference.
_ROW_BYTES = 512
_FOR_UNIT_VECTORS = ("int8", "uint8")


@dataclass(frozen=True, slots=True)
class PromptedTexts:
    """Texts that share a `prompt`, which is prepended when they are tokenized."""

    texts: Sequence[Text]
    prompt: str = ""

    @property
    def characters(self) -> int:
        """Their total length, with the prompts; of pairs, only the documents count."""
        own = sum(len(text) if isinstance(text, str) else len(text[1]) for text in self.texts)
        return own + len(self.prompt) * len(self.texts)


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A request's texts, part by part, one row per text.

    The first `inputs` rows are the caller's inputs, and have the caller's indexes.
    """

    request: Embed | Rerank
    model: ServedModel
    parts: tuple[PromptedTexts, ...]
    inputs: int
    finish: Postprocess

    @classmethod
    def texts_of(cls, model: ServedModel, request: Embed) -> "WorkItem":
        """Return the work of embedding texts with their prompt.

        Raises `BadRequest` for a prompt that the model does not have, more dimensions than it has,
        or a precision that its vectors do not fit.
        """
        prompt = prompt_text(model, name=request.prompt_name, role=request.role)
        normalize = model.normalize if request.normalize is None else request.normalize
        if request.precision in _FOR_UNIT_VECTORS and not normalize:
            raise BadRequest(
                f"precision {request.precision} has a fixed range and requires vectors of "
                "length 1: set normalize to true"
            )
        finish = Postprocess(_dimensions(model, request.dimensions), normalize)
        return cls(
            request, model, (PromptedTexts(request.input, prompt),), len(request.input), finish
        )

    @classmethod
    def pairs_of(cls, model: ServedModel, request: Rerank) -> "WorkItem":
        """Return the work of scoring (query, document) pairs with a cross-encoder."""
        pairs = [(request.query, document) for document in request.documents]
        return cls(
            request, model, (PromptedTexts(pairs),), len(pairs), Postprocess(1, normalize=False)
        )

    @classmethod
    def documents_of(cls, model: ServedModel, request: Rerank) -> "WorkItem":
        """Return the work of ranking documents with an embedding model.

        The query comes last, so that a document's row has the document's index.
        """
        documents = PromptedTexts(request.documents, prompt_text(model, role="document"))
        query = PromptedTexts((request.query,), prompt_text(model, role="query"))
        finish = Postprocess(model.dimensions, normalize=True)
        return cls(request, model, (documents, query), len(request.documents), finish)

    @property
    def timeout(self) -> float | None:
        """How long the caller waits for the reply, in seconds; None if it set no limit."""
        milliseconds = self.request.timeout_ms
        return None if milliseconds is None else milliseconds / 1000

    @property
    def row_bytes(self) -> int:
        """The approximate bytes per row besides its tokens: objects, text, result."""
        characters = sum(part.characters for part in self.parts)
        texts = sum(len(part.texts) for part in self.parts)
        return _ROW_BYTES + characters // texts + 4 * self.finish.dimensions

    def key(self, row: Row) -> Key:
        """Return the key that determines the result of one of its rows."""
        return key_of(self.model, self.finish, row)

    def refuse_empty(self, rows: Sequence[Row]) -> None:
        """Raise `BadRequest` for the first text that has too few tokens for the model.

        A tokenizer that adds no tokens of its own finds none in "", blanks or control characters.
        """
        for index, row in enumerate(rows):
            if row.tokens < self.model.least_tokens:
                raise self._refusal(index, f"has no tokens for {self.model.name}: leave it out")

    def truncated(self, rows: Sequence[Row]) -> tuple[int, ...]:
        """Return the indexes of the inputs whose `rows` were truncated.

        Raises `BadRequest`, for the first one, if the request does not allow truncation.
        """
        cut = tuple(index for index, row in enumerate(rows) if row.truncated)
        if cut and not self.request.truncate:
            limit = f"the {self.model.max_tokens}-token limit of {self.model.name}"
            advice = "shorten it, split it, or set truncate=true"
            raise self._refusal(cut[0], f"exceeds {limit}: {advice}")
        return tuple(index for index in cut if index < self.inputs)

    def _refusal(self, index: int, reason: str) -> BadRequest:
        own = index < self.inputs
        which = f"text {index}" if own else "the query"
        return BadRequest(f"{which} {reason}", index=index if own else None)


def _dimensions(model: ServedModel, requested: int | None) -> int:
    if requested is not None and requested > model.dimensions:
        raise BadRequest(f"dimensions is {requested}; {model.name} has {model.dimensions}")
    return requested or model.dimensions
