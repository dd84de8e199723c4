"""The settings: one frozen object, read once from flags, environment and file.

A setting is a field of `Config`. Its metadata holds its environment variable, its parser and its
description, from which the flags, `sidecar config` and the documentation are derived.
"""

import dataclasses
import grp
import json
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from client_lib.address import default_socket
from client_lib.wire.protocol import Limits
from sidecar import defaults
from sidecar.lines import numbered_lines

QUANTIZATIONS = ("auto", "int8", "int4", "fp16", "none")
DEVICES = ("auto", "cpu", "cuda")
_LEVELS = ("debug", "info", "warning", "error")
_LOG_TARGETS = ("auto", "stdout", "journal")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_PREFIX = "SIDECAR_"
_SYSTEM_CACHE = Path("/var/cache/sidecar")
_LIMITS = Limits()
_ALIKE = 0.85  # similarity ratio: tolerates a letter or two
_PROMPTS = "must be auto, a JSON object of prompts by name, or the path of a file that holds one"

_Read: TypeAlias = Callable[[str], Any]


class ConfigError(ValueError):
    """A setting is invalid; the one-line message names it and what it accepts."""


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"must be one of {', '.join(_TRUE + _FALSE)}")


def _one_of(known: tuple[str, ...]) -> _Read:
    def read(text: str) -> str:
        if text.lower() not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return text.lower()

    return read


def _whole(least: int) -> _Read:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return int(text)

    return read


def _zero_or(least: int) -> _Read:
    def read(text: str) -> int:
        if not text.isdecimal() or 0 < int(text) < least:
            raise ValueError(f"must be 0 or a whole number of at least {least}")
        return int(text)

    return read


def _number(least: float, most: float) -> _Read:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return value

    return read


def _ids_of(resolve: Callable[[str], int]) -> _Read:
    """Return a parser of comma-separated names or numbers; empty text gives the empty set.

    An empty entry between commas, say from an unset shell variable, is an error: if it were
    ignored, the list could end up empty and let everybody in.
    """

    def read(text: str) -> frozenset[int]:
        words = [word.strip() for word in text.split(",")] if text else []
        if "" in words:
            raise ValueError("has an empty entry: separate names or numbers with single commas")
        return frozenset(_id_of(word, resolve) for word in words)

    return read


def _id_of(word: str, resolve: Callable[[str], int]) -> int:
    try:
        return int(word) if word.isdecimal() else resolve(word)
    except KeyError:
        raise ValueError(f"must be numbers or names known to this host, not {word!r}") from None


def _optional_name(text: str) -> str | None:
    return text or None


def _path(text: str) -> Path:
    if not text:
        raise ValueError("must be a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("no such home directory: use an absolute path") from None


def _prompts(text: str) -> Literal["auto"] | dict[str, str]:
    if text.lower() == "auto":
        return "auto"
    try:
        prompts = json.loads(text if text.startswith("{") else _file(text)) if text else {}
        json.dumps(prompts, ensure_ascii=False).encode()  # raises for a lone surrogate
    except ValueError as error:
        raise ValueError(f"{_PROMPTS}: {error}") from None
    if not isinstance(prompts, dict) or not all(isinstance(each, str) for each in prompts.values()):
        raise ValueError(f"{_PROMPTS}: every prompt must be a string")
    return prompts


def _file(path: str) -> str:
    """Return the text of the file at `path`. Raises `ValueError` if it cannot be read."""
    try:
        return Path(path).expanduser().read_text("utf-8-sig")
    except (OSError, RuntimeError) as error:  # RuntimeError: no such home directory
        raise ValueError(getattr(error, "strerror", None) or str(error)) from None


def _default_cache(environ: Mapping[str, str] = os.environ) -> Path:
    # Set by systemd to the directory it created for the service.
    if given := environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0])
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base) / "sidecar"
    try:
        return Path("~/.cache/sidecar").expanduser()
    except RuntimeError:  # no HOME, and no passwd entry for this user
        return _SYSTEM_CACHE


def _setting(variable: str, read: _Read, about: str, **default: Any) -> Any:
    return field(metadata={"variable": variable, "read": read, "about": about}, **default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings. Rows are texts or query-document pairs; units are bytes and seconds."""

    use_quantization: bool = _setting(
        "USE_QUANTIZATION", _boolean, "whether to quantize the models", default=True
    )
    quantization: str = _setting(
        "QUANTIZATION_CONFIG",
        _one_of(QUANTIZATIONS),
        f"quantization: {', '.join(QUANTIZATIONS)}",
        default="int8",
    )
    int8_floor: float = _setting(
        "SIDECAR_INT8_FLOOR",
        _number(0, 1),
        "minimum mean closeness to FP32 for serving int8 or fp16",
        default=0.995,
    )
    int4_floor: float = _setting(
        "SIDECAR_INT4_FLOOR",
        _number(0, 1),
        "minimum mean closeness to FP32 for serving int4",
        default=0.97,
    )
    device: str = _setting(
        "SIDECAR_DEVICE",
        _one_of(DEVICES),
        f"compute device: {', '.join(DEVICES)}",
        default="auto",
    )
    socket: Path = _setting(
        "SIDECAR_SOCKET",
        _path,
        "the Unix socket to listen on",
        default_factory=default_socket,
    )
    embedding_model: str = _setting(
        "SIDECAR_EMBEDDING_MODEL",
        str,
        "folder, artifact or hub id of the embedding model",
        default="all-MiniLM-L6-v2",
    )
    reranker_model: str | None = _setting(
        "SIDECAR_RERANKER_MODEL",
        _optional_name,
        "folder, artifact or hub id of a cross-encoder; if unset, the embedding model reranks",
        default=None,
    )
    prompts: Literal["auto"] | dict[str, str] = _setting(
        "SIDECAR_PROMPTS",
        _prompts,
        "prompts that override the folder's: JSON, a JSON file, or auto for known models",
        default_factory=dict,
    )
    cache_dir: Path = _setting(
        "SIDECAR_CACHE_DIR", _path, "where prepared models are kept", default_factory=_default_cache
    )
    threads: int = _setting(
        "SIDECAR_THREADS",
        _whole(0),
        "inference threads; 0: all cores available to the process, or one on CUDA",
        default=0,
    )
    max_tokens: int = _setting(
        "SIDECAR_MAX_TOKENS",
        _zero_or(8),  # a pair has up to four special tokens
        "truncate texts to this many tokens if the model accepts more; 0: the model's own limit",
        default=0,
    )
    max_queue_rows: int = _setting(
        "SIDECAR_MAX_QUEUE_ROWS",
        _whole(1),
        "maximum queued rows per lane",
        default=defaults.QUEUE_ROWS,
    )
    max_queue_tokens: int = _setting(
        "SIDECAR_MAX_QUEUE_TOKENS",
        _whole(1),
        "maximum queued tokens per lane",
        default=defaults.QUEUE_TOKENS,
    )
    max_queue_bytes: int = _setting(
        "SIDECAR_MAX_QUEUE_BYTES",
        _whole(1),
        "maximum bytes held by each lane's queue",
        default=defaults.QUEUE_BYTES,
    )
    max_memory_bytes: int = _setting(
        "SIDECAR_MAX_MEMORY_BYTES",
        _whole(0),
        "process memory that peers cannot make it exceed; 0: the limit of host and cgroup",
        default=0,
    )
    max_peer_share: float = _setting(
        "SIDECAR_MAX_PEER_SHARE",
        _number(0, 1),
        "fraction of its user's share of each of these limits that one process may use",
        default=defaults.PEER_SHARE,
    )
    cache_bytes: int = _setting(
        "SIDECAR_CACHE_BYTES",
        _whole(0),
        "size of the cache of results for repeated texts, bytes; 0: no cache",
        default=0,
    )
    allow_users: frozenset[int] = _setting(
        "SIDECAR_ALLOW_USERS",
        _ids_of(lambda name: pwd.getpwnam(name).pw_uid),
        "users who may connect, by name or number; everyone, if this and the groups are empty",
        default=frozenset(),
    )
    allow_groups: frozenset[int] = _setting(
        "SIDECAR_ALLOW_GROUPS",
        _ids_of(lambda name: grp.getgrnam(name).gr_gid),
        "groups whose members may connect, by name or number",
        default=frozenset(),
    )
    max_connections: int = _setting(
        "SIDECAR_MAX_CONNECTIONS",
        _whole(1),
        "maximum connections per process",
        default=defaults.CONNECTIONS_PER_PROCESS,
    )
    stall_seconds: float = _setting(
        "SIDECAR_STALL_SECONDS",
        _number(0.1, 86_400),
        "time a peer has to finish a frame it started, and to read a reply",
        default=defaults.STALL_SECONDS,
    )
    max_inputs: int = _setting(
        "SIDECAR_MAX_INPUTS", _whole(1), "maximum texts per request", default=_LIMITS.max_inputs
    )
    max_text_bytes: int = _setting(
        "SIDECAR_MAX_TEXT_BYTES",
        _whole(1_024),
        "maximum bytes per text, in UTF-8",
        default=_LIMITS.max_text_bytes,
    )
    max_frame_bytes: int = _setting(
        "SIDECAR_MAX_FRAME_BYTES",
        _whole(1_024),
        "maximum bytes per request",
        default=_LIMITS.max_frame_bytes,
    )
    drain_seconds: float = _setting(
        "SIDECAR_DRAIN_SECONDS",
        _number(0, 86_400),
        "time to finish accepted work after SIGTERM",
        default=defaults.DRAIN_SECONDS,
    )
    hang_seconds: float = _setting(
        "SIDECAR_HANG_SECONDS",
        _number(1, 86_400),
        "exit if one text computes for longer, or none is taken off the queue for that long; under "
        "a systemd watchdog, half of WatchdogSec applies instead",
        default=defaults.HANG_SECONDS,
    )
    log_level: str = _setting(
        "SIDECAR_LOG_LEVEL",
        _one_of(_LEVELS),
        f"minimum level of events: {', '.join(_LEVELS)}",
        default="info",
    )
    log_target: str = _setting(
        "SIDECAR_LOG_TARGET",
        _one_of(_LOG_TARGETS),
        "where events go: auto (the journal if standard output goes there), stdout, journal",
        default="auto",
    )
    log_sample: float = _setting(
        "SIDECAR_LOG_SAMPLE",
        _number(0, 1),
        "fraction of successful requests and batches whose events are written",
        default=1.0,
    )
    slow_ms: float = _setting(
        "SIDECAR_SLOW_MS",
        _number(0, 86_400_000),
        "a request or batch that takes this long is slow, and always written, ms",
        default=1_000.0,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One resolved setting: its value and the source of that value."""

    field: Field[Any]
    value: Any
    source: str

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return str(self.field.metadata["variable"])


def resolve(
    flags: Mapping[str, str], environ: Mapping[str, str], env_file: Path | None
) -> list[Setting]:
    """Return every setting with its source: flag, environment, file or default, in that order.

    `flags` holds the text of each given flag, by field name. Raises `ConfigError` for a value
    that cannot be parsed and for a file that names an unknown setting.
    """
    settings, wrong = resolve_each(flags, environ, env_file)
    if wrong:
        raise wrong[0]
    return settings


def resolve_each(
    flags: Mapping[str, str], environ: Mapping[str, str], env_file: Path | None
) -> tuple[list[Setting], list[ConfigError]]:
    """Return the settings and every error; a setting with an error has its default."""
    from_file, wrong = read_env_lines(env_file) if env_file else ({}, [])
    settings = []
    for f in dataclasses.fields(Config):
        try:
            settings.append(_resolve_one(f, flags, environ, from_file))
        except ConfigError as error:
            settings.append(_resolve_one(f, {}, {}, {}))
            wrong.append(error)
    return settings, wrong


def to_config(settings: list[Setting]) -> Config:
    """Return the settings as a `Config`."""
    return Config(**{setting.field.name: setting.value for setting in settings})


def flag_of(name: str) -> str:
    """Return the flag that sets the field `name`."""
    return "--" + name.replace("_", "-")


def variables() -> frozenset[str]:
    """Return the environment variables of all settings."""
    return frozenset(f.metadata["variable"] for f in dataclasses.fields(Config))


def similar(name: str) -> str | None:
    """Return the variable that `name` seems to misspell, if any."""
    import difflib  # noqa: PLC0415 - only needed once a name is misspelt

    matches = difflib.get_close_matches(name, variables(), n=1, cutoff=_ALIKE)
    return matches[0] if matches else None


def read_env_file(path: Path) -> dict[str, str]:
    """Return the `KEY=value` lines of `path`; allows comments, blank lines and quotes.

    Raises `ConfigError`, with the line number, for a malformed line and for a `SIDECAR_*` name
    that is not a setting: in the environment it may belong to another program, but in our own
    file it is a typo.
    """
    values, wrong = read_env_lines(path)
    if wrong:
        raise wrong[0]
    return values


def read_env_lines(path: Path) -> tuple[dict[str, str], list[ConfigError]]:
    """Return the valid lines of `path`, and the `ConfigError` for each invalid one."""
    try:
        lines = list(numbered_lines(path, lambda message: ConfigError(f"--env-file {message}")))
    except ConfigError as error:
        return {}, [error]
    values: dict[str, str] = {}
    wrong: list[ConfigError] = []
    for number, line in lines:
        try:
            key, value = _assignment(line, f"{path}:{number}")
        except ConfigError as error:
            wrong.append(error)
        else:
            values[key] = value
    values.pop("", None)
    return values, wrong


def _assignment(line: str, where: str) -> tuple[str, str]:
    text = line.strip().removeprefix("export ")
    if not text or text.startswith(("#", ";")):
        return "", ""
    key, equals, value = text.partition("=")
    if not equals or not key.strip().isidentifier():
        raise ConfigError(f"{where}: expected KEY=value")
    _refuse_unknown(key.strip(), where)
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return key.strip(), value[1:-1] if quoted else value


def _refuse_unknown(name: str, where: str) -> None:
    if name.startswith(_PREFIX) and name not in variables():
        meant = similar(name)
        advice = f"did you mean {meant}?" if meant else "see `sidecar config`"
        raise ConfigError(f"{where}: {name} is not a setting; {advice}")


def _resolve_one(
    f: Field[Any],
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    from_file: Mapping[str, str],
) -> Setting:
    variable = f.metadata["variable"]
    if f.name in flags:
        return _read(f, flags[f.name], flag_of(f.name), "flag")
    if variable in environ:
        return _read(f, environ[variable], variable, "environment")
    if variable in from_file:
        return _read(f, from_file[variable], variable, "env file")
    default = f.default_factory() if callable(f.default_factory) else f.default
    return Setting(f, default, "default")


def _read(f: Field[Any], text: str, spelled: str, source: str) -> Setting:
    try:
        return Setting(f, f.metadata["read"](text.strip()), source)
    except ValueError as error:
        raise ConfigError(f"{spelled}={' '.join(text.splitlines())}: {error}") from None
