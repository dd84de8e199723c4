"""A model as it is served: its precision, how close to FP32 that is, and what goes before texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.models.prompts import goes_without
from sidecar.operate.doctor.finding import Finding, note, ok, warning

_WORST = 0.9
_ORDER = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model as `status`, or its artifact's manifest, tells of it; sizes in bytes.

    `mean` and `least` are its closeness to FP32 on the probes, `floor` the least mean at which
    it may serve as configured now. `verified_by` is the version of sentence-transformers that
    its FP32 was proven equal to, None where it was not.
    """

    name: str
    quantization: str
    floor: float
    requested: str | None = None
    kernel: str = ""
    kept: tuple[str, ...] = ()
    mean: float | None = None
    least: float | None = None
    rank_agreement: float | None = None
    bytes_fp32: int = 0
    bytes_weights: int = 0
    fell_back: str | None = None
    verified_by: str | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any], floor: float) -> "Served":
        """Return the model in one of the maps of a status's `models`, or a manifest's."""
        quality = told.get("quality") or {}
        return cls(
            name=str(told.get("name")),
            quantization=str(told.get("quantization")),
            floor=floor,
            requested=told.get("requested"),
            kernel=str(told.get("kernel", "")),
            kept=tuple(told.get("kept") or ()),
            mean=quality.get("mean"),
            least=quality.get("min"),
            rank_agreement=quality.get("rank_agreement"),
            bytes_fp32=int(told.get("bytes_fp32") or 0),
            bytes_weights=int(told.get("bytes_weights") or 0),
            fell_back=told.get("fell_back"),
            verified_by=_verified_by(told.get("verified")),
        )


def check_quantization(served: Served, configured: str) -> Iterator[Finding]:
    """Whether a model is in the quantization that is planned."""
    found = f"{served.name} is in {served.quantization} ({served.kernel}){_sizes(served)}"
    if configured in {served.quantization, "auto"}:
        yield ok("quantization", f"{found}, as configured")
    elif served.requested == configured or served.fell_back:
        why = served.fell_back or f"{configured} throughout stays under {served.floor}"
        advice = (
            "calibrate on texts like yours: `sidecar prepare MODEL --output DIR --calibration FILE`"
        )
        yield warning("quantization", f"{found}, not {configured}: {why}", advice)
    elif "sentence-transformers" in served.kernel:
        advice = "only known families are quantized (README, Models): choose a model of one"
        yield warning("quantization", f"{found}, not {configured}: no graph computes it", advice)
    else:
        advice = "restart or reload the daemon, or set USE_QUANTIZATION and QUANTIZATION_CONFIG"
        yield warning("quantization", f"{found}, not {configured}", advice)
    if served.kept:
        found = f"{served.name}: {len(served.kept)} layers stayed in FP32: {', '.join(served.kept)}"
        yield note("quantization", found, "calibrating on texts like yours may free them")


def check_accuracy(served: Served) -> Iterator[Finding]:
    """Whether a model is as close to FP32 as it has to be."""
    if served.quantization == "none":
        yield ok("accuracy", f"{served.name} computes in FP32")
        return
    if served.mean is None or served.least is None:
        advice = "prepare it again with `sidecar prepare`"
        yield warning("accuracy", f"{served.name} was never compared with FP32", advice)
        return
    found = (
        f"{served.name}: closeness to FP32 {served.mean:.4f} in the mean, {served.least:.4f} at "
        f"worst, on the built-in probes; floor {served.floor:g}"
    )
    if served.mean < served.floor:
        advice = "prepare it again: layers then stay in FP32 until it passes; or lower the floor"
        yield warning("accuracy", found, advice)
    elif served.least < _WORST or (served.rank_agreement or 1.0) < _ORDER:
        advice = "measure your own task; more closeness: int8, a higher floor, your texts"
        yield note("accuracy", found, advice)
    else:
        yield ok("accuracy", found)


def check_verified(served: Served) -> Iterator[Finding]:
    """Whether it was proven that a model gives what sentence-transformers gives in FP32."""
    if served.verified_by is None:
        yield warning(
            "verification",
            f"{served.name} is unverified: nothing proves that its vectors or scores are those of "
            "sentence-transformers",
            f"install the extra `server`: `sidecar verify {served.name}` compares, and the next "
            "start keeps the proof; an artifact has to be prepared again from its source",
        )
        return
    library = f"sentence-transformers {served.verified_by}"
    yield ok("verification", f"{served.name} equals {library} in FP32, by token ids and outputs")


def _verified_by(told: Mapping[str, Any] | None) -> str | None:
    return str(told["versions"]["sentence-transformers"]) if told else None


def check_prompts(name: str, missing: Sequence[str]) -> Iterator[Finding]:
    """Whether the model `name` has the prompts that it needs; `missing` are the roles that lack."""
    if missing:
        advice = (
            "SIDECAR_PROMPTS=auto has the model card's put there; vectors of such texts that are "
            "stored already have to be computed again (docs/prompts.md)"
        )
        yield warning("prompts", f"{name}: {goes_without(missing)}", advice)


def _sizes(served: Served) -> str:
    if not served.bytes_fp32:
        return ""
    return f", {served.bytes_fp32 / 1e6:.1f} MB -> {served.bytes_weights / 1e6:.1f} MB"
