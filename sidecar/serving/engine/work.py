"""What a request asks to be computed, once its model is known. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from client_lib.wire.errors import BadRequest
from client_lib.wire.messages import Embed, Rerank
from sidecar.models.rows import Row, Text
from sidecar.serving.postprocess import Postprocess
from sidecar.serving.registry import ServedModel, prompt_text
from sidecar.serving.scheduler.job import Key, key_of

# The objects of a row and its place in the queue, without what they point to.
_ROW_BYTES = 512
_FOR_UNIT_VECTORS = ("int8", "uint8")


@dataclass(frozen=True, slots=True)
class PromptedTexts:
    """Texts that have the same `prompt` before them; it is put there where they are tokenized."""

    texts: Sequence[Text]
    prompt: str = ""

    @property
    def characters(self) -> int:
        """How many its texts have, with the prompt; of pairs the documents' alone count."""
        own = sum(len(text) if isinstance(text, str) else len(text[1]) for text in self.texts)
        return own + len(self.prompt) * len(self.texts)


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One row a text, part by part. The first `inputs` are the caller's, by the caller's index."""

    request: Embed | Rerank
    model: ServedModel
    parts: tuple[PromptedTexts, ...]
    inputs: int
    finish: Postprocess

    @classmethod
    def texts_of(cls, model: ServedModel, request: Embed) -> "WorkItem":
        """Return the texts with their prompt.

        Raises `BadRequest` for a prompt that the model has not, more dimensions than it has, or
        a precision that its vectors do not fit.
        """
        prompt = prompt_text(model, name=request.prompt_name, role=request.role)
        normalize = model.normalize if request.normalize is None else request.normalize
        if request.precision in _FOR_UNIT_VECTORS and not normalize:
            raise BadRequest(
                f"precision {request.precision} has a fixed range, for vectors of length 1: "
                "set normalize to true"
            )
        finish = Postprocess(_dimensions(model, request.dimensions), normalize)
        return cls(
            request, model, (PromptedTexts(request.input, prompt),), len(request.input), finish
        )

    @classmethod
    def pairs_of(cls, model: ServedModel, request: Rerank) -> "WorkItem":
        """Return (query, document) pairs for a cross-encoder."""
        pairs = [(request.query, document) for document in request.documents]
        return cls(
            request, model, (PromptedTexts(pairs),), len(pairs), Postprocess(1, normalize=False)
        )

    @classmethod
    def documents_of(cls, model: ServedModel, request: Rerank) -> "WorkItem":
        """Return the documents for an embedding model, and the query after them.

        It comes last so that a document's row has the document's index.
        """
        documents = PromptedTexts(request.documents, prompt_text(model, role="document"))
        query = PromptedTexts((request.query,), prompt_text(model, role="query"))
        finish = Postprocess(model.dimensions, normalize=True)
        return cls(request, model, (documents, query), len(request.documents), finish)

    @property
    def timeout(self) -> float | None:
        """How long the caller waits for the answer, in seconds; None where it did not say."""
        milliseconds = self.request.timeout_ms
        return None if milliseconds is None else milliseconds / 1000

    @property
    def row_bytes(self) -> int:
        """What a row of it holds, nearly, besides its tokens: objects, text, result."""
        characters = sum(part.characters for part in self.parts)
        texts = sum(len(part.texts) for part in self.parts)
        return _ROW_BYTES + characters // texts + 4 * self.finish.dimensions

    def key(self, row: Row) -> Key:
        """Return what decides the result of one of its rows."""
        return key_of(self.model, self.finish, row)

    def refuse_empty(self, rows: Sequence[Row]) -> None:
        """Raise `BadRequest`, naming the first, where a text has no tokens but needs one.

        A tokenizer that adds none of its own makes that of "", of blanks, of control characters.
        """
        for index, row in enumerate(rows):
            if row.tokens < self.model.least_tokens:
                raise self._refusal(index, f"has no tokens for {self.model.name}: leave it out")

    def truncated(self, rows: Sequence[Row]) -> tuple[int, ...]:
        """Return the indexes of the inputs whose `rows` were cut.

        Raises `BadRequest`, naming the first, where the request does not allow that.
        """
        cut = tuple(index for index, row in enumerate(rows) if row.truncated)
        if cut and not self.request.truncate:
            limit = f"the {self.model.max_tokens} tokens of {self.model.name}"
            advice = "shorten it, split it, or set truncate=true"
            raise self._refusal(cut[0], f"is longer than {limit}: {advice}")
        return tuple(index for index in cut if index < self.inputs)

    def _refusal(self, index: int, reason: str) -> BadRequest:
        own = index < self.inputs
        which = f"text {index}" if own else "the query"
        return BadRequest(f"{which} {reason}", index=index if own else None)


def _dimensions(model: ServedModel, asked: int | None) -> int:
    if asked is not None and asked > model.dimensions:
        raise BadRequest(f"dimensions is {asked}; {model.name} has {model.dimensions}")
    return asked or model.dimensions
