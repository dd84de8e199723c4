"""Made-up results in the format of `python -m bench refresh`."""

from typing import Any


def result(**changes: Any) -> dict[str, Any]:
    """Return a result with two tables, a figure and a chart, updated by `changes`."""
    return {
        "command": "python -m bench start --rounds 2",
        "date": "2024-02-29",
        "title": "a model, 2 texts",
        "sides": {"ours": {"unit": "ms", "median": 2.0, "values": [1.0, 2.0, 3.0]}},
        "figures": {"ratio": 2.25},
        "failed": [],
        "skipped": {},
        "tables": [
            {"title": "first", "head": ["", "ms"], "rows": [["ours", "2"]]},
            {"title": "second", "head": ["", "MB"], "rows": [["ours", "30"]]},
        ],
        "charts": [chart()],
        "host": {"cpu": "a processor", "cores": 2, "isa": ["avx2"], "load_average": 0.25},
        **changes,
    }


def chart() -> dict[str, Any]:
    points = [{"x": x, "median": x, "low": 0.5 * x, "high": 2.0 * x} for x in (1, 2, 4)]
    return {
        "name": "times",
        "title": "How long it takes",
        "about": "Longer, the more there is",
        "x": "texts",
        "y": "ms",
        "series": {"another": points, "Sidecar": points},
        "log_x": True,
        "log_y": False,
    }
