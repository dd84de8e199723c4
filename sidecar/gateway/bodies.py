"""Request bodies: the fields of the OpenAI, Cohere and Jina APIs that apply to Sidecar.

Unknown fields are refused, since what they ask for would not be done.
"""

import re
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec

from client_lib.wire.messages import Priority
from client_lib.wire.roles import Role
from sidecar.gateway.refusals import Refusal

# Beyond any vector's width or list's length; without a bound msgspec parses integers of any size.
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_PATH, _FIELD = re.compile(r" - at `\$\.?(.*)`$"), re.compile(r"field `(.*?)`")
_TOKENS = re.compile(r"Expected `str`, got `(?:int|array)` - at `\$\.input\[")


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Fields common to all requests. `user` is accepted and ignored: it is for the caller."""

    texts: ClassVar[str]
    model: str | None = None
    truncate: bool = True
    priority: Priority = "interactive"
    user: str | None = None


class EmbeddingsBody(_Body):
    """The body of `POST /v1/embeddings`: OpenAI's, and three fields of Sidecar's own at the end."""

    texts: ClassVar[str] = "input"
    input: str | Annotated[list[str], msgspec.Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: _Count | None = None
    prompt_name: str | None = None
    role: Role | None = None
    normalize: bool | None = None


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """A document given as an object instead of a string."""

    text: str


class RerankBody(_Body):
    """The body of `POST /v1/rerank`, as in Cohere's and Jina's APIs."""

    texts: ClassVar[str] = "documents"
    query: str
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1)]
    top_n: _Count | None = None
    return_documents: bool = False


B = TypeVar("B", bound=_Body)


def parse(kind: type[B], data: bytes) -> B:
    """Parse `data` as a body of `kind`. Raises `Refusal` (400), naming the invalid field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        raise Refusal(400, f"invalid JSON body: {error}", code="invalid_json") from None


def _invalid(message: str) -> Refusal:
    if found := _PATH.search(message):
        param = found[1] or None
    else:
        param = field[1] if (field := _FIELD.search(message)) else None
    advice = "; token ids are not supported: send the text itself" if _TOKENS.match(message) else ""
    return Refusal(400, message + advice, param=param, code="bad_request")
