"""A daemon's metrics, as read by Prometheus' own parsers and checked for its conventions."""

import asyncio
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as classic_families

from client_lib.wire.codec import encode
from client_lib.wire.messages import Embed, Metrics, Rerank
from sidecar.serving.telemetry.prometheus import exposition

DOCUMENT = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
READERS = {"openmetrics": open_families, "prometheus": classic_families}
MODEL = {
    "name": "mini", "task": "embed", "quantization": "int8", "device": "cpu",
    "bytes_weights": 23, "bytes_fp32": 91, "quality": {"mean": 0.999, "p1": 0.995, "min": 0.99},
}  # fmt: skip


@pytest.fixture
async def busy(make_dialogue):
    """A session whose peer has sent various requests, one of them invalid."""
    dialogue = await make_dialogue()
    await dialogue.ask(Embed(id=1, input=("one", "two", "three")))
    await dialogue.ask(Embed(id=2, input=("four",), priority="bulk"))
    await dialogue.ask(Rerank(id=3, query="one", documents=("on", "no")))
    await dialogue.ask(Embed(id=4, input=("a",), model="unknown"))
    return dialogue


async def metrics_of(dialogue, request_id, form="openmetrics"):
    reply = await dialogue.ask(Metrics(id=request_id, format=form))
    assert reply["ok"], reply
    return reply


def samples_of(text, form="openmetrics"):
    """Return the samples' values by name and labels, without `socket`."""
    found = {}
    for family in READERS[form](text):
        for sample in family.samples:
            assert sample.labels.pop("socket") == "unused"
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, "twice"
            found[key] = sample.value
    return found


def histogram(base):
    """Return a distribution as in `status`, with values below, at and above all bounds."""
    buckets = [[2.0**-10, 1], [4.0, base], [8.0, 2 * base], [2.0**21, 5]]
    return {"sum": 1_000.0 * base, "buckets": buckets}


def answered(base):
    phases = enumerate(("queue_ms", "tokenize_ms", "compute_ms", "total_ms"), base)
    sizes = {"texts": base + 10, "tokens": base + 11, "cached": base + 12, "shared": base + 13}
    return {**sizes, **{name: histogram(number) for number, name in phases}}


# No two figures are equal, so that mixing up any two of them fails.
STATUS = {
    "version": "9.8.7", "socket": "unused", "state": "draining", "healthy": False, "threads": 3,
    "models": [
        MODEL,
        {"name": "ranks", "task": "rerank", "quality": {"mean": 0.9, "p1": 0.8, "min": 0.7}},
    ],
    "queue": {
        "interactive": {"rows": 31, "tokens": 32, "bytes": 33, "cost_ms": 34.0},
        "bulk": {"rows": 41, "tokens": 42, "bytes": 43, "cost_ms": 44.0},
        "bounds": {"rows": 51, "tokens": 52, "bytes": 53},
    },
    "cache": {"bytes": 61, "max_bytes": 62, "rows": 63},
    "requests": {"completed": 1, "failed": {}, "in_flight": 5, "untaken": 6},
    "peers": [{"connections": 4}, {"connections": 7}],
    "memory": {"pss_bytes": 71, "rss_bytes": 72, "at_start": {"pss_bytes": 73, "rss_bytes": 74}},
    "process": {
        "started": 81, "cpu_seconds": 82, "virtual_bytes": 83, "open_files": 84, "max_files": 85,
        "threads": 86,
    },
    "statistics": {
        "recent": {},
        "since_start": {
            "requests": {
                "embed": {"interactive": answered(100), "bulk": answered(200)},
                "rerank": {"bulk": answered(300)},
            },
            "failed": {"embed": {"cancelled": 91, "overloaded": 92}},
            "not_admitted": {"bulk": {"overloaded": 93, "too_large": 94}},
            "refused": {"forbidden": 95},
            "batches": {"bulk": {"rows": histogram(96), "tokens": histogram(97)}},
        },
    },
}  # fmt: skip


def test_every_figure_is_that_of_the_status():
    """Every gauge and counter has the value of the status, in its unit, and there are no others."""
    expected = {
        ("sidecar_build_info", ("version", "9.8.7")): 1,
        ("sidecar_healthy",): 0,
        ("sidecar_inference_threads",): 3,
        ("sidecar_peers",): 2,
        ("sidecar_connections",): 11,
        ("sidecar_requests_in_flight",): 5,
        ("sidecar_model_weight_bytes", ("model", "mini")): 23,
        ("sidecar_model_fp32_weight_bytes", ("model", "mini")): 91,
        ("sidecar_cache_bytes",): 61,
        ("sidecar_cache_limit_bytes",): 62,
        ("sidecar_cache_texts",): 63,
        ("sidecar_proportional_memory_bytes",): 71,
        ("process_resident_memory_bytes",): 72,
        ("sidecar_start_proportional_memory_bytes",): 73,
        ("process_start_time_seconds",): 81,
        ("process_cpu_seconds_total",): 82,
        ("process_virtual_memory_bytes",): 83,
        ("process_open_fds",): 84,
        ("process_max_fds",): 85,
        ("sidecar_request_errors_total", ("code", "cancelled"), ("op", "embed")): 91,
        ("sidecar_request_errors_total", ("code", "overloaded"), ("op", "embed")): 92,
        ("sidecar_requests_not_admitted_total", ("code", "overloaded"), ("lane", "bulk")): 93,
        ("sidecar_requests_not_admitted_total", ("code", "too_large"), ("lane", "bulk")): 94,
        ("sidecar_refusals_total", ("code", "forbidden")): 95,
    }
    for state in ("starting", "serving", "reloading", "draining", "stopped"):
        expected["sidecar_state", ("sidecar_state", state)] = state == "draining"
    for model in STATUS["models"]:
        labels = {"model": model["name"], "task": model["task"]}
        labels |= {name: model.get(name, "") for name in ("quantization", "device")}
        expected["sidecar_model_info", *sorted(labels.items())] = 1
        suffix = {"embed": "cosine", "rerank": "score_closeness"}[model["task"]]
        for statistic, value in model["quality"].items():
            labels = (("model", model["name"]), ("statistic", statistic))
            expected[f"sidecar_model_quality_{suffix}", *labels] = value
    for lane, start in (("interactive", 31), ("bulk", 41)):
        for number, unit in enumerate(("texts", "tokens", "bytes"), start):
            expected[f"sidecar_queue_{unit}", ("lane", lane)] = number
        expected["sidecar_queue_work_seconds", ("lane", lane)] = (start + 3) / 1000
    for number, unit in enumerate(("texts", "tokens", "bytes"), 51):
        expected[f"sidecar_queue_limit_{unit}",] = number
    for op, lane, base in (("embed", "interactive", 100), ("embed", "bulk", 200),
                           ("rerank", "bulk", 300)):  # fmt: skip
        labels = (("lane", lane), ("op", op))
        for number, name in enumerate(("texts", "tokens", "cached_texts", "shared_texts"), 10):
            expected[f"sidecar_{name}_total", *labels] = base + number
    found = samples_of(exposition(STATUS, "openmetrics")[1])
    plain = {key: value for key, value in found.items() if not key[0].endswith(_OF_HISTOGRAMS)}
    assert plain == expected


_OF_HISTOGRAMS = ("_bucket", "_count", "_sum")


def test_every_distribution_is_that_of_the_status():
    """Every histogram has the sum, the count and the cumulative buckets of the status."""
    found = samples_of(exposition(STATUS, "openmetrics")[1])
    expected = {}
    times = [2.0**octave for octave in range(-1, 17)]
    for op, lane, base in (("embed", "interactive", 100), ("embed", "bulk", 200),
                           ("rerank", "bulk", 300)):  # fmt: skip
        for number, phase in enumerate(("queue", "tokenize", "compute", "total"), base):
            labels = {"op": op, "lane": lane, "phase": phase}
            name = "sidecar_request_duration_seconds"
            expected |= samples_of_histogram(name, labels, number, times, 1000)
    rows, tokens = [1, 2, 4, 8, 16], [2**octave for octave in range(3, 15)]
    for name, number, bounds in (("texts", 96, rows), ("tokens", 97, tokens)):
        expected |= samples_of_histogram(f"sidecar_batch_{name}", {"lane": "bulk"}, number, bounds)
    assert {k: v for k, v in found.items() if k[0].endswith(_OF_HISTOGRAMS)} == expected


def samples_of_histogram(name, labels, base, bounds, per=1):
    counts = {2.0**-10: 1, 4.0: base, 8.0: 2 * base, 2.0**21: 5}
    samples = {
        (f"{name}_sum", *sorted(labels.items())): 1_000.0 * base / per,
        (f"{name}_count", *sorted(labels.items())): sum(counts.values()),
    }
    for bound in [*bounds, float("inf")]:
        text = "+Inf" if bound == float("inf") else str(float(bound) / per)
        key = (f"{name}_bucket", *sorted({**labels, "le": text}.items()))
        samples[key] = sum(count for value, count in counts.items() if value <= bound)
    return samples


def test_the_same_is_said_in_both_formats():
    """OpenMetrics and Prometheus texts have the same samples."""
    of_one, of_other = (samples_of(exposition(STATUS, form)[1], form) for form in READERS)
    assert of_one == of_other


async def status_with(dialogue, **model):
    return {**await dialogue.context.status(dialogue.session._peer), "models": [{**MODEL, **model}]}


@pytest.mark.parametrize("form", READERS)
async def test_a_parser_reads_what_was_counted(busy, form):
    """Parsers of both formats read the counted requests, errors and state."""
    reply = await metrics_of(busy, 5, form)
    assert ("openmetrics" in reply["content_type"]) == (form == "openmetrics")
    found = samples_of(reply["text"], form)
    texts = {key[1:]: value for key, value in found.items() if key[0] == "sidecar_texts_total"}
    assert texts == {
        (("lane", "interactive"), ("op", "embed")): 3,
        (("lane", "bulk"), ("op", "embed")): 1,
        (("lane", "interactive"), ("op", "rerank")): 3,  # an embedder also computes the query
    }
    errors = ("sidecar_request_errors_total", ("code", "unknown_model"), ("op", "embed"))
    assert found[errors] == 1
    assert found["sidecar_healthy",] == 1
    assert found["sidecar_state", ("sidecar_state", "serving")] == 1
    assert found["sidecar_state", ("sidecar_state", "draining")] == 0


async def test_counters_rise_with_requests(busy):
    """Counters rise with each request, and never fall."""
    before = samples_of((await metrics_of(busy, 5))["text"])
    await busy.ask(Embed(id=6, input=("five", "six")))
    after = samples_of((await metrics_of(busy, 7))["text"])
    labels = (("lane", "interactive"), ("op", "embed"))
    for key in after:
        if key[0].endswith(("_total", "_count", "_bucket", "_sum")):
            assert after[key] >= before.get(key, 0), key
    assert after["sidecar_texts_total", *labels] == before["sidecar_texts_total", *labels] + 2


async def test_histograms_say_what_the_status_says(busy):
    """Duration histograms agree with the status in sum, count and buckets."""
    status = await busy.context.status(busy.session._peer)
    found = samples_of(exposition(status, "openmetrics")[1])
    name = "sidecar_request_duration_seconds"
    answered = status["statistics"]["since_start"]["requests"]["embed"]["interactive"]
    for phase in ("queue", "tokenize", "compute", "total"):
        labels = (("lane", "interactive"), ("op", "embed"), ("phase", phase))
        expected = answered[f"{phase}_ms"]
        assert found[f"{name}_sum", *labels] == pytest.approx(expected["sum"] / 1000)
        assert found[f"{name}_count", *labels] == expected["count"] == 1
        bounds = {
            float(dict(key[1:])["le"]): value
            for key, value in found.items()
            if key[0] == f"{name}_bucket" and set(labels) < set(key[1:])
        }
        assert bounds[float("inf")] == 1
        assert all((value == 1) == (bound >= expected["buckets"][0][0] / 1000)
                   for bound, value in bounds.items())  # fmt: skip


async def test_a_model_says_what_it_weighs_and_how_close_it_is(busy):
    """A model's metrics have its sizes and its closeness: a reranker's is not a cosine."""
    found = samples_of(exposition(await status_with(busy), "openmetrics")[1])
    assert found["sidecar_model_weight_bytes", ("model", "mini")] == 23
    assert found["sidecar_model_fp32_weight_bytes", ("model", "mini")] == 91
    cosine = "sidecar_model_quality_cosine"
    assert found[cosine, ("model", "mini"), ("statistic", "p1")] == 0.995
    found = samples_of(exposition(await status_with(busy, task="rerank"), "openmetrics")[1])
    assert not [key for key in found if key[0] == cosine]
    assert found["sidecar_model_quality_score_closeness", ("model", "mini"), ("statistic", "min")]


async def test_any_name_is_a_label(busy):
    """Model names with quotes, backslashes and line breaks are escaped correctly."""
    name = 'a "model"\\with\nlines'
    for form in READERS:
        found = samples_of(exposition(await status_with(busy, name=name), form)[1], form)
        assert found["sidecar_model_weight_bytes", ("model", name)] == 23


async def test_what_was_refused_is_counted(busy):
    """A frame that is not a request is counted as a refusal, by its error code."""
    busy.writer.write(encode({"op": "nonsense", "id": 5}))
    assert not (await busy.reply(5))["ok"]
    found = samples_of((await metrics_of(busy, 6))["text"])
    assert found["sidecar_refusals_total", ("code", "bad_request")] == 1


async def test_names_and_helps_follow_the_conventions(busy):
    """Names end with base units, help texts are sentences, and counters end with _total."""
    text = exposition(await status_with(busy), "openmetrics")[1]
    families = list(open_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert re.fullmatch("(sidecar|process)_[a-z0-9_]+", family.name)
        assert not re.search("_(ms|mb|kb|milliseconds|total|count|sum)$", family.name)
        assert re.fullmatch(r"[A-Z].*\.", family.documentation)
        last = family.name.rpartition("_")[2]
        assert family.unit == (last if last in {"seconds", "bytes"} else "")
        for sample in family.samples:
            assert all(re.fullmatch("[a-z_]+", label) for label in sample.labels)
            if family.type == "counter":
                assert sample.name.endswith("_total")


async def test_every_metric_is_documented(busy):
    """docs/metrics.md lists every metric with its type and labels, except `socket` and `le`."""
    rows = [line.split("|") for line in DOCUMENT.splitlines() if line.startswith("| `")]
    documented = {
        name: (kind.strip(), set(re.findall("`(.*?)`", labels)))
        for _, names, kind, labels, *_ in rows
        for name in re.findall("`(.*?)`", names)
    }
    found = {}
    for task in ("embed", "rerank"):
        text = exposition(await status_with(busy, task=task), "openmetrics")[1]
        for family in open_families(text):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            kind = family.type.replace("stateset", "state set")
            labels = {label for sample in family.samples for label in sample.labels}
            _, known = found.setdefault(family.name + suffix, (kind, set()))
            known |= labels - {"socket", "le"}
    for name in ("sidecar_requests_not_admitted_total", "sidecar_refusals_total"):
        found[name] = documented[name]  # nothing has been counted for these
    assert found == documented


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this host")
async def test_promtool_has_nothing_to_say(busy):
    """`promtool check metrics` reports nothing."""
    text = exposition(await status_with(busy), "prometheus")[1]
    command = ["promtool", "check", "metrics"]
    check = partial(subprocess.run, command, input=text, capture_output=True, text=True)
    done = await asyncio.to_thread(check)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_daemon_that_is_not_asked_does_without() -> None:
    """prometheus_client is not imported until the first request for metrics."""
    code = "import sys, sidecar.cli.serve; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
