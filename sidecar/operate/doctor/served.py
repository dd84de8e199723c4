"""A model as it is served: its precision, its closeness to FP32, its proof and its prompts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.models.prompts import goes_without
from sidecar.operate.doctor.finding import Finding, note, ok, warning

_WORST = 0.9
_ORDER = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model as described by `status` or its artifact's manifest; sizes in bytes.

    `mean` and `least` are its closeness to FP32 on the probes, `floor` the least mean at which it
    may serve as now configured. `verified_by` is the version of sentence-transformers that its FP32
    outputs were proven equal to, None if they were not.
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
    def of(cls, described: Mapping[str, Any], floor: float) -> "Served":
        """Return the model from one of a status's `models`, or from a manifest."""
        quality = described.get("quality") or {}
        return cls(
            name=str(described.get("name")),
            quantization=str(described.get("quantization")),
            floor=floor,
            requested=described.get("requested"),
            kernel=str(described.get("kernel", "")),
            kept=tuple(described.get("kept") or ()),
            mean=quality.get("mean"),
            least=quality.get("min"),
            rank_agreement=quality.get("rank_agreement"),
            bytes_fp32=int(described.get("bytes_fp32") or 0),
            bytes_weights=int(described.get("bytes_weights") or 0),
            fell_back=described.get("fell_back"),
            verified_by=_verified_by(described.get("verified")),
        )


def check_quantization(served: Served, configured: str) -> Iterator[Finding]:
    """Whether a model has the planned quantization."""
    found = f"{served.name} is in {served.quantization} ({served.kernel}){_sizes(served)}"
    if configured in {served.quantization, "auto"}:
        yield ok("quantization", f"{found}, as configured")
    elif served.requested == configured or served.fell_back:
        why = served.fell_back or f"{configured} in all layers stays below the floor {served.floor}"
        advice = (
            "calibrate on texts like yours: `sidecar prepare MODEL --output DIR --calibration FILE`"
        )
        yield warning("quantization", f"{found}, not {configured}: {why}", advice)
    elif "sentence-transformers" in served.kernel:
        advice = "only known families are quantized (docs/models.md): choose a model from one"
        yield warning(
            "quantization", f"{found}, not {configured}: there is no graph for it", advice
        )
    else:
        advice = "restart or reload the daemon, or set USE_QUANTIZATION and QUANTIZATION_CONFIG"
        yield warning("quantization", f"{found}, not {configured}", advice)
    if served.kept:
        found = f"{served.name}: {len(served.kept)} layers stayed in FP32: {', '.join(served.kept)}"
        yield note(
            "quantization", found, "calibrating on texts like yours may let them be quantized"
        )


def check_accuracy(served: Served) -> Iterator[Finding]:
    """Whether a model is close enough to FP32."""
    if served.quantization == "none":
        yield ok("accuracy", f"{served.name} computes in FP32")
        return
    if served.mean is None or served.least is None:
        advice = "prepare it again with `sidecar prepare`"
        yield warning("accuracy", f"{served.name} was never compared with FP32", advice)
        return
    found = (
        f"{served.name}: closeness to FP32 on the built-in probes: mean {served.mean:.4f}, "
        f"worst {served.least:.4f}; floor {served.floor:g}"
    )
    if served.mean < served.floor:
        advice = "prepare it again, which keeps layers in FP32 until it passes, or lower the floor"
        yield warning("accuracy", found, advice)
    elif served.least < _WORST or _order_kept(served) < _ORDER:
        advice = (
            "measure your own task; to get closer: int8, a higher floor, calibration on your texts"
        )
        yield note("accuracy", found, advice)
    else:
        yield ok("accuracy", found)


def _order_kept(served: Served) -> float:
    """Return a reranker's rank agreement with FP32; 1 for an embedder, which ranks nothing."""
    return 1.0 if served.rank_agreement is None else served.rank_agreement


def check_verified(served: Served) -> Iterator[Finding]:
    """Whether a model was proven to match sentence-transformers in FP32."""
    if served.verified_by is None:
        yield warning(
            "verification",
            f"{served.name} is unverified: nothing proves that its vectors or scores match "
            "sentence-transformers",
            f"install the extra `server`: `sidecar verify {served.name}` compares them, and the "
            "next start keeps the proof; prepare an artifact again from its source",
        )
        return
    library = f"sentence-transformers {served.verified_by}"
    yield ok("verification", f"{served.name} matches {library} in FP32, in token ids and outputs")


def _verified_by(proof: Mapping[str, Any] | None) -> str | None:
    return str(proof["versions"]["sentence-transformers"]) if proof else None


def check_prompts(name: str, missing: Sequence[str]) -> Iterator[Finding]:
    """Whether the model `name` has the prompts it needs; `missing` are the roles without."""
    if missing:
        advice = (
            "SIDECAR_PROMPTS=auto adds those of the model card; stored vectors of such texts must "
            "then be computed again (docs/prompts.md)"
        )
        yield warning("prompts", f"{name}: {goes_without(missing)}", advice)


def _sizes(served: Served) -> str:
    if not served.bytes_fp32:
        return ""
    return f", {served.bytes_fp32 / 1e6:.1f} MB -> {served.bytes_weights / 1e6:.1f} MB"
