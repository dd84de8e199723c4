"""The README's comparison: one row per contender, from the results of `serve` and `many`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.report import told

_DIGITS = 3
_NOT_MEASURED = "-"
_HEAD = (
    "",
    "texts/s, 16 clients",
    "one query, ms",
    "mean cosine to FP32",
    "memory of 8 processes, MB",
)
_COSINES = "Cosine to FP32 on mixed lengths"


@dataclass(frozen=True, slots=True)
class _Row:
    """What is shown of a contender: `many` and `lone` are its names with and without company."""

    name: str
    many: str
    lone: str
    load: str = "mixed, 16 clients"
    processes: str | None = None


_ROWS = (
    _Row("Sidecar, int8", "Sidecar", "Sidecar", processes="Sidecar, one daemon in INT8"),
    _Row(
        "sentence-transformers, FP32, in process",
        "sentence-transformers FP32, batches of 16",
        "sentence-transformers FP32, one at a time",
        processes="sentence-transformers FP32 in each",
    ),
    _Row(
        "onnxruntime, dynamic INT8, by hand in process (one caller)",
        "onnxruntime dynamic INT8, one at a time",
        "onnxruntime dynamic INT8, one at a time",
        load="mixed, 1 client",
    ),
    _Row(
        "infinity, onnxruntime INT8",
        "infinity, onnxruntime INT8",
        "infinity, onnxruntime INT8",
    ),
    _Row("llama.cpp, q8_0", "llama.cpp, q8_0", "llama.cpp, q8_0"),
    _Row(
        "mosec, sentence-transformers FP32",
        "mosec, sentence-transformers FP32",
        "mosec, sentence-transformers FP32",
    ),
)


def of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the comparison as a result of its own; it has no table without `serve` and `many`."""
    serve, many = results.get("serve"), results.get("many")
    rows = list(_rows(serve, many)) if serve and many else []
    table = {"title": _title(serve), "head": _HEAD, "rows": rows}
    return {
        "command": serve["command"] if serve else "python -m bench serve",
        "title": table["title"],
        "figures": {},
        "tables": [table],
        "charts": [],
    }


def _title(serve: Mapping[str, Any] | None) -> str:
    """Return what was measured, and where."""
    memory = "memory by `python -m bench many`"
    if serve is None:
        return memory
    host = serve["host"]
    model, _, _ = serve["title"].partition(",")
    return f"{model} on {host['cpu']}, {host['cores']} cores ({', '.join(host['isa'])}); {memory}"


def _rows(serve: Mapping[str, Any], many: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    cosines = next(table["rows"] for table in serve["tables"] if table["title"] == _COSINES)
    means = {name: mean for name, mean, *_ in cosines}
    for row in _ROWS:
        yield (
            row.name,
            _median(serve, f"{row.many}: {row.load}"),
            _median(serve, f"{row.lone}: a lone query of 8 words, p50"),
            means.get(row.many, _NOT_MEASURED),
            _median(many, f"8 processes: {row.processes}"),
        )


def _median(result: Mapping[str, Any], side: str) -> str:
    found = result["sides"].get(side)
    return told(found["median"], _DIGITS) if found else _NOT_MEASURED
