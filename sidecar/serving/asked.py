"""What a request asks to be computed, once its model is known. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from client_lib.wire.errors import BadRequest
from client_lib.wire.messages import Embed, Rerank
from sidecar.models.rows import Row, Text
from sidecar.serving.roster import ServedModel, prompt_text, role_prompt
from sidecar.serving.vectors import Finish


@dataclass(frozen=True, slots=True)
class Asked:
    """One row a text. The first `inputs` of `texts` are the caller's, by the caller's index."""

    model: ServedModel
    texts: Sequence[Text]
    inputs: int
    finish: Finish
    truncate: bool

    @classmethod
    def texts_of(cls, model: ServedModel, request: Embed) -> "Asked":
        """Return the texts with their prompt.

        Raises `BadRequest` for a prompt that the model has not, or more dimensions than it has.
        """
        prompt = prompt_text(model, request.prompt_name)
        texts = [prompt + text for text in request.input] if prompt else request.input
        normalize = model.normalize if request.normalize is None else request.normalize
        finish = Finish(_dimensions(model, request.dimensions), normalize)
        return cls(model, texts, len(texts), finish, request.truncate)

    @classmethod
    def pairs_of(cls, model: ServedModel, request: Rerank) -> "Asked":
        """Return (query, document) pairs for a cross-encoder."""
        pairs = [(request.query, document) for document in request.documents]
        return cls(model, pairs, len(pairs), Finish(1, normalize=False), request.truncate)

    @classmethod
    def documents_of(cls, model: ServedModel, request: Rerank) -> "Asked":
        """Return the documents for an embedding model, and the query after them.

        It comes last so that a document's row has the document's index.
        """
        prompt = role_prompt(model, "document", "passage")
        documents = [prompt + document for document in request.documents]
        query = role_prompt(model, "query") + request.query
        finish = Finish(model.dimensions, normalize=True)
        return cls(model, [*documents, query], len(documents), finish, request.truncate)

    def truncated(self, rows: Sequence[Row]) -> tuple[int, ...]:
        """Return the indexes of the inputs whose `rows` were cut.

        Raises `BadRequest`, naming the first, where the request does not allow that.
        """
        cut = tuple(index for index, row in enumerate(rows) if row.truncated)
        if cut and not self.truncate:
            raise self._too_long(cut[0])
        return tuple(index for index in cut if index < self.inputs)

    def _too_long(self, index: int) -> BadRequest:
        own = index < self.inputs
        which = f"text {index}" if own else "the query"
        limit = f"the {self.model.max_tokens} tokens of {self.model.name}"
        message = f"{which} is longer than {limit}: shorten it, split it, or set truncate=true"
        return BadRequest(message, index=index if own else None)


def _dimensions(model: ServedModel, asked: int | None) -> int:
    if asked is not None and asked > model.dimensions:
        raise BadRequest(f"dimensions is {asked}; {model.name} has {model.dimensions}")
    return asked or model.dimensions
