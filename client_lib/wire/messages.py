"""The requests as frozen dataclasses, with validation.

Each field carries its own check, so that `parse_request` can name the invalid one. Unknown fields
are ignored, so that a newer client can talk to an older daemon.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from client_lib.wire.errors import BadRequest, ReplyError, TooLarge
from client_lib.wire.roles import ROLES, Role
from client_lib.wire.walk import LongText

MAX_ID = 2**63 - 1
MAX_NAME = 4_096
_QUOTED = 80  # characters of an invalid value to quote in an error
Priority: TypeAlias = Literal["interactive", "bulk"]
_PRIORITIES: tuple[Priority, ...] = get_args(Priority)
MetricsFormat: TypeAlias = Literal["openmetrics", "prometheus"]
_FORMATS: tuple[MetricsFormat, ...] = get_args(MetricsFormat)
Precision: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_Check: TypeAlias = Callable[[Any], bool]
# W3C Trace Context, level 1: version, trace id, parent id, flags. All-zero ids and version ff are
# invalid; future versions may add fields.
_IDS = r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_is_00, _is_later = (
    re.compile(pattern).fullmatch
    for pattern in (f"00-{_IDS}", f"(?!00|ff)[0-9a-f]{{2}}-{_IDS}(?:-[!-~]{{0,200}})?")
)


def _checked(check: _Check, expected: str, **default: Any) -> Any:
    return field(metadata={"check": check, "expected": expected}, **default)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(isinstance(v, str) for v in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_priority(value: Any) -> bool:
    return value in _PRIORITIES


def _is_role(value: Any) -> bool:
    return value in ROLES


def _is_precision(value: Any) -> bool:
    return value in PRECISIONS


def is_traceparent(value: Any) -> bool:
    """Whether `value` is a valid W3C traceparent."""
    return isinstance(value, str) and bool(_is_00(value) or _is_later(value))


def _is_format(value: Any) -> bool:
    return value in _FORMATS


def is_id(value: Any) -> bool:
    """Whether `value` can name a request: an integer from 0 to 2^63 - 1."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID


def _optional(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


_TEXTS = "a non-empty list of strings"
_NAME = f"a string of at most {MAX_NAME:,} characters"
_COUNT = "a whole number above 0"
_LANE = " or ".join(_PRIORITIES)
_ROLE = " or ".join(ROLES)
PRECISION_EXPECTED = f"one of {', '.join(PRECISIONS)}"
_TRACEPARENT = "a W3C traceparent, such as 00-<32 hex digits>-<16 hex digits>-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first frame of a connection, with the client's protocol version."""

    op: ClassVar[str] = "hello"
    id: int
    version: int = _checked(_is_count, _COUNT)
    client: str = _checked(_is_name, _NAME, default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Embed texts."""

    op: ClassVar[str] = "embed"
    id: int
    input: tuple[str, ...] = _checked(_is_texts, _TEXTS)
    model: str | None = _checked(_optional(_is_name), _NAME, default=None)
    prompt_name: str | None = _checked(_optional(_is_name), _NAME, default=None)
    role: Role | None = _checked(_optional(_is_role), _ROLE, default=None)
    normalize: bool | None = _checked(_optional(_is_bool), "true or false", default=None)
    dimensions: int | None = _checked(_optional(_is_count), _COUNT, default=None)
    precision: Precision = _checked(_is_precision, PRECISION_EXPECTED, default="float32")
    truncate: bool = _checked(_is_bool, "true or false", default=True)
    priority: Priority = _checked(_is_priority, _LANE, default="interactive")
    timeout_ms: int | None = _checked(_optional(_is_count), _COUNT, default=None)
    traceparent: str | None = _checked(_optional(is_traceparent), _TRACEPARENT, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerank:
    """Rank documents by their relevance to a query."""

    op: ClassVar[str] = "rerank"
    id: int
    query: str = _checked(_is_text, "a string")
    documents: tuple[str, ...] = _checked(_is_texts, _TEXTS)
    model: str | None = _checked(_optional(_is_name), _NAME, default=None)
    top_n: int | None = _checked(_optional(_is_count), _COUNT, default=None)
    truncate: bool = _checked(_is_bool, "true or false", default=True)
    priority: Priority = _checked(_is_priority, _LANE, default="interactive")
    timeout_ms: int | None = _checked(_optional(_is_count), _COUNT, default=None)
    traceparent: str | None = _checked(_optional(is_traceparent), _TRACEPARENT, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Ask for the daemon's configuration and state."""

    op: ClassVar[str] = "status"
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Ask for the daemon's metrics."""

    op: ClassVar[str] = "metrics"
    id: int
    format: MetricsFormat = _checked(_is_format, " or ".join(_FORMATS), default="openmetrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Ask for an empty reply."""

    op: ClassVar[str] = "ping"
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Cancel the request `target` of the same connection."""

    op: ClassVar[str] = "cancel"
    id: int
    target: int = _checked(is_id, "a request's id")


Request: TypeAlias = Hello | Embed | Rerank | Status | Metrics | Ping | Cancel
_BY_OP: Mapping[str, type[Request]] = {
    cls.op: cls for cls in (Hello, Embed, Rerank, Status, Metrics, Ping, Cancel)
}
# Cached, since both sides look them up for every request and `fields` filters on each call.
_FIELDS: Mapping[str, tuple[Field[Any], ...]] = {op: fields(cls) for op, cls in _BY_OP.items()}


def quoted(value: object) -> str:
    """Return `value` shortened for an error message; strings are cut before they are formatted."""
    return f"{value[:_QUOTED] if isinstance(value, str) else value!r:.{_QUOTED}}"


def parse_request(message: Mapping[str, Any]) -> Request:
    """Return the request in `message`, whose `id` must have been checked.

    Raises `BadRequest`, naming the invalid op or field and what was expected, or `TooLarge`,
    naming the text that is too long.
    """
    op = message.get("op")
    cls = _BY_OP.get(op) if isinstance(op, str) else None
    if cls is None:
        raise BadRequest(f"unknown op {quoted(op)}; expected one of {', '.join(_BY_OP)}")
    return cls(**{f.name: _value(cls.op, f, message) for f in _FIELDS[cls.op]})


def check_fields(cls: type[Request], values: Mapping[str, Any]) -> None:
    """Check some of a request's fields. Raises the `BadRequest` that the daemon would answer."""
    for f in _FIELDS[cls.op]:
        if f.name in values:
            _value(cls.op, f, values)


def _value(op: str, f: Field[Any], message: Mapping[str, Any]) -> Any:
    value = message.get(f.name, MISSING)
    if value is MISSING:
        if f.default is MISSING:
            raise BadRequest(f"{op}: field {f.name!r} is missing")
        return f.default
    if isinstance(value, list):
        value = tuple(value)
    if "check" in f.metadata and not f.metadata["check"](value):
        raise _refusal(op, f, value)
    return value


def _refusal(op: str, f: Field[Any], value: Any) -> ReplyError:
    if f.metadata["check"] is _is_text and isinstance(value, LongText):
        return _too_long(f"{op}: field {f.name!r}", value, None)
    if f.metadata["check"] is _is_texts and isinstance(value, tuple):
        for index, text in enumerate(value):
            if isinstance(text, LongText):
                return _too_long(f"{op}: text {index} of field {f.name!r}", text, index)
    return BadRequest(f"{op}: field {f.name!r} must be {f.metadata['expected']}")


def _too_long(which: str, text: LongText, index: int | None) -> TooLarge:
    message = (
        f"{which} is {text.size} bytes; the limit for one text is {text.limit} "
        "(SIDECAR_MAX_TEXT_BYTES): models read at most a few thousand tokens, so truncate or "
        "split it"
    )
    return TooLarge(message, index=index)


def request_to_map(request: Request) -> dict[str, Any]:
    """Return `request` as a map, without the fields at their default."""
    values = ((f, getattr(request, f.name)) for f in _FIELDS[request.op])
    return {"op": request.op, **{f.name: value for f, value in values if value != f.default}}
