"""The bodies that are taken: what OpenAI, Cohere and Jina document, as far as it means anything.

A field that is not known is refused: what it asks for would not be done.
"""

import re
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec

from client_lib.wire.messages import Priority
from client_lib.wire.roles import Role
from sidecar.gateway.refusals import Refusal

# No vector is that wide, and no list that long; a number of any length would be read.
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_PATH, _FIELD = re.compile(r" - at `\$\.?(.*)`$"), re.compile(r"field `(.*?)`")
_TOKENS = re.compile(r"Expected `str`, got `(?:int|array)` - at `\$\.input\[")


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every request may have. `user` is for the caller's own records."""

    texts: ClassVar[str]
    model: str | None = None
    truncate: bool = True
    priority: Priority = "interactive"
    user: str | None = None


class EmbeddingsBody(_Body):
    """The body of `POST /v1/embeddings`, as OpenAI's; the last three fields are Sidecar's own."""

    texts: ClassVar[str] = "input"
    input: str | Annotated[list[str], msgspec.Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: _Count | None = None
    prompt_name: str | None = None
    role: Role | None = None
    normalize: bool | None = None


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """A document, where it is not a string."""

    text: str


class RerankBody(_Body):
    """The body of `POST /v1/rerank`, as Cohere's and Jina's."""

    texts: ClassVar[str] = "documents"
    query: str
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1)]
    top_n: _Count | None = None
    return_documents: bool = False


B = TypeVar("B", bound=_Body)


def parse(kind: type[B], data: bytes) -> B:
    """Return the body in `data`. Raises `Refusal` (400), naming the field that is wrong."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        raise Refusal(400, f"the body cannot be read: {error}", code="invalid_json") from None


def _invalid(said: str) -> Refusal:
    if found := _PATH.search(said):
        param = found[1] or None
    else:
        param = field[1] if (field := _FIELD.search(said)) else None
    advice = "; token ids are not taken: send the text itself" if _TOKENS.match(said) else ""
    return Refusal(400, said + advice, param=param, code="bad_request")
