"""The settings: one frozen object, read once from flags, environment and file, here alone.

A setting is a field of `Config`; its metadata says how it is spelled as a variable, how its
text is read, and what it means. Flags, `sidecar config` and the documentation follow from it.
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
from sidecar.lines import numbered_lines

QUANTIZATIONS = ("auto", "int8", "int4", "fp16", "none")
DEVICES = ("auto", "cpu", "cuda")
_LEVELS = ("debug", "info", "warning", "error")
_LOG_TARGETS = ("auto", "stdout", "journal")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_PREFIX = "SIDECAR_"
_SYSTEM_CACHE = Path("/var/cache/sidecar")
_ALIKE = 0.85  # of 1: a letter or two of a name
_PROMPTS = "must be auto, a JSON object of prompts by name, or the path of a file with one"

_Read: TypeAlias = Callable[[str], Any]


class ConfigError(ValueError):
    """A setting is wrong; the message is one line that names it and what is known."""


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
    """Return a reader of names or numbers, separated by commas; of nothing for no text at all.

    A place between commas that is empty is a mistake, such as a variable that is not set: taken
    for nobody, it would let everybody in.
    """

    def read(text: str) -> frozenset[int]:
        words = [word.strip() for word in text.split(",")] if text else []
        if "" in words:
            raise ValueError("has an empty place: write names or numbers with a comma between")
        return frozenset(_id_of(word, resolve) for word in words)

    return read


def _id_of(word: str, resolve: Callable[[str], int]) -> int:
    try:
        return int(word) if word.isdecimal() else resolve(word)
    except KeyError:
        raise ValueError(f"must be numbers or names that this host knows, not {word!r}") from None


def _optional_name(text: str) -> str | None:
    return text or None


def _path(text: str) -> Path:
    if not text:
        raise ValueError("must be a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("there is no such home directory: write the whole path") from None


def _prompts(text: str) -> Literal["auto"] | dict[str, str]:
    if text.lower() == "auto":
        return "auto"
    try:
        stated = json.loads(text if text.startswith("{") else _file(text)) if text else {}
        json.dumps(stated, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except ValueError as error:
        raise ValueError(f"{_PROMPTS}: {error}") from None
    if not isinstance(stated, dict) or not all(isinstance(each, str) for each in stated.values()):
        raise ValueError(f"{_PROMPTS}: every prompt must be a string")
    return stated


def _file(path: str) -> str:
    """Return the text in the file at `path`. Raises `ValueError`."""
    try:
        return Path(path).expanduser().read_text("utf-8-sig")
    except (OSError, RuntimeError) as error:  # the latter where there is no such home
        raise ValueError(getattr(error, "strerror", None) or str(error)) from None


def _default_cache(environ: Mapping[str, str] = os.environ) -> Path:
    # systemd names the directory that it made for the service.
    if given := environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0])
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base) / "sidecar"
    try:
        return Path("~/.cache/sidecar").expanduser()
    except RuntimeError:  # no HOME, and a user whom this host does not know
        return _SYSTEM_CACHE


def _setting(variable: str, read: _Read, about: str, **default: Any) -> Any:
    return field(metadata={"variable": variable, "read": read, "about": about}, **default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting. Rows are texts or query-document pairs, bytes and seconds are plain."""

    use_quantization: bool = _setting(
        "USE_QUANTIZATION", _boolean, "quantize the models at all", default=True
    )
    quantization: str = _setting(
        "QUANTIZATION_CONFIG",
        _one_of(QUANTIZATIONS),
        f"which quantization: {', '.join(QUANTIZATIONS)}",
        default="int8",
    )
    int8_floor: float = _setting(
        "SIDECAR_INT8_FLOOR",
        _number(0, 1),
        "least mean closeness to FP32 at which int8, or fp16, serves",
        default=0.995,
    )
    int4_floor: float = _setting(
        "SIDECAR_INT4_FLOOR",
        _number(0, 1),
        "least mean closeness to FP32 at which int4 serves",
        default=0.97,
    )
    device: str = _setting(
        "SIDECAR_DEVICE",
        _one_of(DEVICES),
        f"what computes: {', '.join(DEVICES)}",
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
        "folder, artifact or hub id of a cross-encoder; without one the embedder reranks",
        default=None,
    )
    prompts: Literal["auto"] | dict[str, str] = _setting(
        "SIDECAR_PROMPTS",
        _prompts,
        "prompts laid over the folder's: JSON, a file of it, or auto: those of known models",
        default_factory=dict,
    )
    cache_dir: Path = _setting(
        "SIDECAR_CACHE_DIR", _path, "where prepared models are kept", default_factory=_default_cache
    )
    threads: int = _setting(
        "SIDECAR_THREADS",
        _whole(0),
        "inference threads; 0: the cores granted, one on CUDA",
        default=0,
    )
    max_tokens: int = _setting(
        "SIDECAR_MAX_TOKENS",
        _zero_or(8),  # a pair has up to four special ones
        "tokens at which texts are cut where the model takes more; 0: the model's own limit",
        default=0,
    )
    max_queue_rows: int = _setting(
        "SIDECAR_MAX_QUEUE_ROWS", _whole(1), "rows that may wait in a lane", default=16_384
    )
    max_queue_tokens: int = _setting(
        "SIDECAR_MAX_QUEUE_TOKENS", _whole(1), "tokens that may wait in a lane", default=4 * 2**20
    )
    max_queue_bytes: int = _setting(
        "SIDECAR_MAX_QUEUE_BYTES",
        _whole(1),
        "bytes that what waits in a lane may hold",
        default=256 * 2**20,
    )
    max_memory_bytes: int = _setting(
        "SIDECAR_MAX_MEMORY_BYTES",
        _whole(0),
        "memory of the process that peers cannot make it exceed; 0: what host and cgroup grant",
        default=0,
    )
    max_peer_share: float = _setting(
        "SIDECAR_MAX_PEER_SHARE",
        _number(0, 1),
        "part of its user's share of each of these that one process may have",
        default=0.5,
    )
    cache_bytes: int = _setting(
        "SIDECAR_CACHE_BYTES",
        _whole(0),
        "bytes of results to keep for texts that are asked again; 0: none",
        default=0,
    )
    allow_users: frozenset[int] = _setting(
        "SIDECAR_ALLOW_USERS",
        _ids_of(lambda name: pwd.getpwnam(name).pw_uid),
        "users who may connect, by name or number; with the groups empty, too: all",
        default=frozenset(),
    )
    allow_groups: frozenset[int] = _setting(
        "SIDECAR_ALLOW_GROUPS",
        _ids_of(lambda name: grp.getgrnam(name).gr_gid),
        "groups whose members may connect, by name or number",
        default=frozenset(),
    )
    max_connections: int = _setting(
        "SIDECAR_MAX_CONNECTIONS", _whole(1), "connections of one process", default=64
    )
    stall_seconds: float = _setting(
        "SIDECAR_STALL_SECONDS",
        _number(0.1, 86_400),
        "time to finish a frame that was begun, and to take a reply",
        default=30.0,
    )
    max_inputs: int = _setting(
        "SIDECAR_MAX_INPUTS", _whole(1), "texts in one request", default=2_048
    )
    max_text_bytes: int = _setting(
        "SIDECAR_MAX_TEXT_BYTES",
        _whole(1_024),
        "bytes of one text, in UTF-8",
        default=2**20,
    )
    max_frame_bytes: int = _setting(
        "SIDECAR_MAX_FRAME_BYTES", _whole(1_024), "bytes of one request", default=16 * 2**20
    )
    drain_seconds: float = _setting(
        "SIDECAR_DRAIN_SECONDS",
        _number(0, 86_400),
        "time to finish accepted work on SIGTERM",
        default=30.0,
    )
    hang_seconds: float = _setting(
        "SIDECAR_HANG_SECONDS",
        _number(1, 86_400),
        "time to compute one text, or to begin one that waits, else the daemon ends; with a "
        "watchdog, half of its time",
        default=30.0,
    )
    log_level: str = _setting(
        "SIDECAR_LOG_LEVEL", _one_of(_LEVELS), f"least level: {', '.join(_LEVELS)}", default="info"
    )
    log_target: str = _setting(
        "SIDECAR_LOG_TARGET",
        _one_of(_LOG_TARGETS),
        "where events go: auto (to the journal where standard output does), stdout, journal",
        default="auto",
    )
    log_sample: float = _setting(
        "SIDECAR_LOG_SAMPLE",
        _number(0, 1),
        "part of the requests and batches that succeed whose events are written",
        default=1.0,
    )
    slow_ms: float = _setting(
        "SIDECAR_SLOW_MS",
        _number(0, 86_400_000),
        "time from which on a request or batch is slow, and always written, ms",
        default=1_000.0,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it came out: its value and where that came from."""

    field: Field[Any]
    value: Any
    source: str

    @property
    def variable(self) -> str:
        """The environment variable's name."""
        return str(self.field.metadata["variable"])


def resolve(
    flags: Mapping[str, str], environ: Mapping[str, str], env_file: Path | None
) -> list[Setting]:
    """Return every setting with its source: a flag, else a variable, else the file, else default.

    `flags` holds the texts of the flags that were given, by field name. Raises `ConfigError`
    for a value that cannot be read and for a file that names an unknown setting.
    """
    settings, wrong = resolve_each(flags, environ, env_file)
    if wrong:
        raise wrong[0]
    return settings


def resolve_each(
    flags: Mapping[str, str], environ: Mapping[str, str], env_file: Path | None
) -> tuple[list[Setting], list[ConfigError]]:
    """Return what `resolve` does, and what it would raise for, each: those have their default."""
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
    """Return the settings as one object."""
    return Config(**{setting.field.name: setting.value for setting in settings})


def flag_of(name: str) -> str:
    """Return the flag that sets the field `name`."""
    return "--" + name.replace("_", "-")


def variables() -> frozenset[str]:
    """Return the names of all settings as variables."""
    return frozenset(f.metadata["variable"] for f in dataclasses.fields(Config))


def similar(name: str) -> str | None:
    """Return the variable that `name` looks like a misspelling of, if there is one."""
    import difflib  # noqa: PLC0415 - a daemon that is spelt right does without

    matches = difflib.get_close_matches(name, variables(), n=1, cutoff=_ALIKE)
    return matches[0] if matches else None


def read_env_file(path: Path) -> dict[str, str]:
    """Return the `KEY=value` lines of `path`; comments, blank lines and quotes are understood.

    Raises `ConfigError`, with the line's number, for a line of another shape and for a
    `SIDECAR_*` name that is not a setting: in the environment that may be another program's,
    in our own file it is a typing error.
    """
    values, wrong = read_env_lines(path)
    if wrong:
        raise wrong[0]
    return values


def read_env_lines(path: Path) -> tuple[dict[str, str], list[ConfigError]]:
    """Return the good lines of `path`, and what `read_env_file` would raise for each other."""
    try:
        lines = list(numbered_lines(path, lambda said: ConfigError(f"--env-file {said}")))
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
