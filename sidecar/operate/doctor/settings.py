"""Settings that cannot be read, are misspelt, or contradict each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sidecar.config import Config, ConfigError, Setting, similar, variables
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning

_PREFIX = "SIDECAR_"
# The share of the queue for a user who is alone in it; the daemon's own figure.
_OF_A_USER = 0.75


def check_values(settings: Sequence[Setting], wrong: Sequence[ConfigError]) -> Iterator[Finding]:
    """Whether every setting can be read; if one cannot, a daemon exits with 78."""
    for refused in wrong:
        yield error("settings", str(refused), "correct it; `sidecar config` lists all settings")
    if not wrong:
        given = [setting.variable for setting in settings if setting.source != "default"]
        yield ok("settings", f"{len(settings)} settings; set: {', '.join(given) or 'none'}")


def check_names(names: Iterable[str]) -> Iterator[Finding]:
    """Whether variables that are not settings look like misspelt ones."""
    known = variables()
    for name in sorted(set(names) - known):
        meant = similar(name)
        if meant:
            yield warning("settings", f"{name} is not a setting", f"did you mean {meant}?")
        elif name.startswith(_PREFIX):
            advice = "remove it, unless another program uses it"
            yield note("settings", f"{name} is not a setting", advice)


def check_contradictions(config: Config, sources: Mapping[str, str]) -> Iterator[Finding]:
    """Whether settings undo each other. `sources` says where each field's value comes from."""
    chosen = sources.get("quantization") != "default" and config.quantization != "none"
    if chosen and not config.use_quantization:
        yield warning(
            "settings",
            f"USE_QUANTIZATION=false, so QUANTIZATION_CONFIG={config.quantization} has no effect",
            "remove one of the two",
        )
    if sources.get("use_quantization") != "default" and (
        config.use_quantization and config.quantization == "none"
    ):
        yield warning(
            "settings",
            "QUANTIZATION_CONFIG=none, so USE_QUANTIZATION=true has no effect",
            "remove one of the two",
        )
    most = int(config.max_peer_share * int(_OF_A_USER * config.max_queue_rows))
    if config.max_inputs > most:
        yield warning(
            "settings",
            f"SIDECAR_MAX_INPUTS={config.max_inputs} allows larger requests than one process may "
            f"queue ({most} texts): those are always refused",
            "raise SIDECAR_MAX_QUEUE_ROWS, or lower SIDECAR_MAX_INPUTS",
        )
