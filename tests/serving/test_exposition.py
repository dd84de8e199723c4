"""A daemon's metrics: what Prometheus' own parsers read, by its own conventions."""

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
from sidecar.serving.exposition import exposition

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
READERS = {"openmetrics": open_families, "prometheus": classic_families}
MODEL = {
    "name": "mini", "task": "embed", "quantization": "int8", "device": "cpu",
    "bytes_weights": 23, "bytes_fp32": 91, "quality": {"mean": 0.999, "p1": 0.995, "min": 0.99},
}  # fmt: skip


@pytest.fixture
async def busy(make_dialogue):
    """A session whose peer has asked for this and that, some of it wrongly."""
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
    """Return the values by name and labels, without `socket`."""
    found = {}
    for family in READERS[form](text):
        for sample in family.samples:
            assert sample.labels.pop("socket") == "unused"
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, "twice"
            found[key] = sample.value
    return found


async def status_with(dialogue, **model):
    return {**await dialogue.desk.status(dialogue.session._peer), "models": [{**MODEL, **model}]}


@pytest.mark.parametrize("form", READERS)
async def test_a_parser_reads_what_was_counted(busy, form):
    """In either format, announced by its content type."""
    reply = await metrics_of(busy, 5, form)
    assert ("openmetrics" in reply["content_type"]) == (form == "openmetrics")
    found = samples_of(reply["text"], form)
    texts = {key[1:]: value for key, value in found.items() if key[0] == "sidecar_texts_total"}
    assert texts == {
        (("lane", "interactive"), ("op", "embed")): 3,
        (("lane", "bulk"), ("op", "embed")): 1,
        (("lane", "interactive"), ("op", "rerank")): 3,  # an embedder computes the query, too
    }
    errors = ("sidecar_request_errors_total", ("code", "unknown_model"), ("op", "embed"))
    assert found[errors] == 1
    assert found["sidecar_healthy",] == 1
    assert found["sidecar_state", ("sidecar_state", "serving")] == 1
    assert found["sidecar_state", ("sidecar_state", "draining")] == 0


async def test_counters_rise_with_requests(busy):
    """By what was asked in between, and nothing falls."""
    before = samples_of((await metrics_of(busy, 5))["text"])
    await busy.ask(Embed(id=6, input=("five", "six")))
    after = samples_of((await metrics_of(busy, 7))["text"])
    labels = (("lane", "interactive"), ("op", "embed"))
    for key in after:
        if key[0].endswith(("_total", "_count", "_bucket", "_sum")):
            assert after[key] >= before.get(key, 0), key
    assert after["sidecar_texts_total", *labels] == before["sidecar_texts_total", *labels] + 2


async def test_histograms_say_what_the_status_says(busy):
    """The same sums and counts; the buckets grow up to the count."""
    status = await busy.desk.status(busy.session._peer)
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
    """Before and after; a reranker's closeness is no cosine."""
    found = samples_of(exposition(await status_with(busy), "openmetrics")[1])
    assert found["sidecar_model_weight_bytes", ("model", "mini")] == 23
    assert found["sidecar_model_fp32_weight_bytes", ("model", "mini")] == 91
    cosine = "sidecar_model_quality_cosine"
    assert found[cosine, ("model", "mini"), ("statistic", "p1")] == 0.995
    found = samples_of(exposition(await status_with(busy, task="rerank"), "openmetrics")[1])
    assert not [key for key in found if key[0] == cosine]
    assert found["sidecar_model_quality_score_closeness", ("model", "mini"), ("statistic", "min")]


async def test_any_name_is_a_label(busy):
    """Quotes, backslashes and line breaks are a name's own."""
    name = 'a "model"\\with\nlines'
    for form in READERS:
        found = samples_of(exposition(await status_with(busy, name=name), form)[1], form)
        assert found["sidecar_model_weight_bytes", ("model", name)] == 23


async def test_what_was_refused_is_counted(busy):
    """A frame that is no request, by its error's code."""
    busy.writer.write(encode({"op": "nonsense", "id": 5}))
    assert not (await busy.reply(5))["ok"]
    found = samples_of((await metrics_of(busy, 6))["text"])
    assert found["sidecar_refusals_total", ("code", "bad_request")] == 1


async def test_names_and_helps_follow_the_conventions(busy):
    """Units are base units at the names' ends, helps are sentences, counters end in _total."""
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
    """With the labels that its samples have, `socket` and `le` apart, and with its type."""
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
        found[name] = documented[name]  # of these nothing has been counted
    assert found == documented


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this host")
async def test_promtool_has_nothing_to_say(busy):
    """Prometheus' own lint finds no fault."""
    text = exposition(await status_with(busy), "prometheus")[1]
    command = ["promtool", "check", "metrics"]
    check = partial(subprocess.run, command, input=text, capture_output=True, text=True)
    done = await asyncio.to_thread(check)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_daemon_that_is_not_asked_does_without() -> None:
    """What writes metrics is loaded with the first request for them."""
    code = "import sys, sidecar.cli.serve; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
