"""Every finding of the doctor: its symptom and its severity."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client_lib import Forbidden
from sidecar.config import Config, ConfigError, resolve_each
from sidecar.host import Host
from sidecar.models.description import Description
from sidecar.models.manifest import Manifest, Quality, Speed
from sidecar.models.verification import Verification
from sidecar.operate.doctor import examine as examination
from sidecar.operate.doctor import models
from sidecar.operate.doctor.access import Folder, Place, User
from sidecar.operate.doctor.daemon import Answer
from sidecar.operate.doctor.examine import examine
from sidecar.operate.doctor.facts import Case, Facts
from sidecar.operate.doctor.finding import Finding, Section, Severity, error
from sidecar.operate.doctor.guard import Guard
from sidecar.operate.doctor.libraries import Library, Torch, read_libraries
from sidecar.operate.doctor.memory import Swap, needed_bytes
from sidecar.operate.doctor.models import Found
from sidecar.operate.doctor.processor import Usage
from sidecar.operate.doctor.units import Systemd
from sidecar.plan import Plan

START = "It does not start, or crashes at start"
REACH = "It cannot be reached, or does not answer"
QUANTIZED = "Quantization is not applied"
SPEED = "It is slower than expected"
ACCURACY = "Accuracy is lost"
UNREAD = "It could not be examined"

OK, NOTE, WARNING, ERROR = Severity
MB = 10**6
SOCKET = Path("/run/sidecar/sidecar.sock")
ENGINE = next(each.installed for each in read_libraries() if each.name == "onnxruntime")
PROOF = Verification(versions={"sentence-transformers": "6.2"}, texts=9, outputs=9)

MANIFEST = Manifest(
    name="small", dimensions=64, requested="int8", quantization="int8", weight_bits=7,
    kernel="MatMulInteger", kept=(), quality=Quality(mean=0.999, p1=0.998, min=0.99, texts=99),
    speed={"none": Speed(9.0, 90.0, 30.0), "int8": Speed(4.0, 40.0, 10.0)}, verified=PROOF,
    bytes_fp32=90 * MB, bytes_weights=23 * MB, seconds=1.0, source_sha256="",
    versions={"onnxruntime": str(ENGINE)}, files={},
    description=Description(
        task="embed", family="bert", pooling=(), normalize=True, max_tokens=128, prompts={},
        default_prompt_name=None, activation="identity",
    ),
)  # fmt: skip
MODEL = Found(
    name="small", folder=Path("/models/small"), artifact=Path("/cache/small"), manifest=MANIFEST,
    source_bytes=90 * MB,
)  # fmt: skip
UNPREPARED = replace(MODEL, manifest=None)
SERVICE = {
    "Id": "sidecar.service", "LoadState": "loaded", "ActiveState": "active",
    "SubState": "running", "NRestarts": "0", "MemoryMax": "infinity",
}  # fmt: skip
INSTALLED = Systemd(252, [SERVICE])
STATUS: dict[str, Any] = {
    "version": "1", "pid": 7, "state": "serving", "up_seconds": 60, "healthy": True, "threads": 4,
    "requests": {"completed": 5}, "memory": {"pss_bytes": 150 * MB},
    "queue": {"bounds": {"rows": 100}, "interactive": {"rows": 1}, "bulk": {"rows": 2}},
    "costs": {"small": {"fixed_ms": 1.0, "per_token_ms": 0.09}},
    "models": [
        {
            "name": "small", "quantization": "int8", "requested": "int8", "kernel": "MatMulInteger",
            "quality": {"mean": 0.999, "min": 0.99},
            "verified": {"versions": {"sentence-transformers": "6.2"}},
        }
    ],
}  # fmt: skip
WELL = Facts(
    settings=resolve_each({}, {}, None)[0],
    wrong=(),
    environ={},
    config=Config(),
    host=Host(
        cores=4, memory_bytes=4 * 10**9, isa=frozenset({"avx2", "avx_vnni"}), cpu_model="CPU",
        cuda=None,
    ),
    plan=Plan("int8", "", 4, 8, "cpu"),
    refusal="",
    usage=Usage(machine=4, affinity=4, load=0.5, steal_percent=0.0),
    swap=Swap(0, 0),
    libraries=[Library("onnxruntime", "==1.32.*", "1.32.1")],
    intruders=(),
    import_failure=None,
    torch=Torch(None),
    models=[MODEL],
    systemd=Systemd(0),
    shipped={},
    user=User(1000, frozenset({1000})),
    place=Place(SOCKET, "socket", 0o660, "sidecar-client", may_connect=True),
    system_place=Place(SOCKET, "socket", 0o660, "sidecar-client", may_connect=True),
    socket_folder=Folder(SOCKET.parent, exists=True, writable=True, free=10**12),
    cache=Folder(Path("/cache"), exists=True, writable=True, free=10**12),
    answer=Answer(STATUS),
    closed=None,
    failures=(),
)  # fmt: skip


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the lengths that speed was measured on, as these artifacts have no tokenizer."""
    monkeypatch.setattr(models, "probe_lengths", lambda _: [50, 150])


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that examines a healthy host with some facts changed."""

    def examined(unread: tuple[Finding, ...] = (), **changes: Any) -> list[Section]:
        def read(_: Case, guard: Guard) -> Facts:
            guard.failures.extend(unread)
            return replace(WELL, **changes)

        monkeypatch.setattr(examination, "read_facts", read)
        case = Case(flags={}, environ={}, env_file=None, plan=_never, precision=_never)
        return examine(case)

    return examined


def _never(*_: object) -> Any:
    raise AssertionError("the facts are read already")


def status(**changes: Any) -> Answer:
    return Answer({**STATUS, **changes})


def told(**changes: Any) -> Answer:
    """Return the answer of a daemon whose model has some fields changed."""
    return status(models=[{**STATUS["models"][0], **changes}])


def test_of_a_host_that_is_well_everything_is_told_in_order(sections: Any) -> None:
    """On a healthy host every check is OK, in order, under the symptom it explains."""
    assert [
        (section.symptom, [(f.check, f.severity) for f in section.findings])
        for section in sections()
    ] == [
        (START, [(c, OK) for c in ("settings", "libraries", "model", "cache", "memory", "memory",
                                   "units")]),
        (REACH, [(c, OK) for c in ("socket", "allow-lists", "daemon", "requests")]),
        (QUANTIZED, [("quantization", OK)]),
        (SPEED, [(c, OK) for c in ("cores", "load", "instructions", "threads", "torch", "swap",
                                   "queue", "speed")]),
        (ACCURACY, [(c, OK) for c in ("verification", "accuracy", "engine")]),
    ]  # fmt: skip


def test_what_is_well_is_told_in_figures(sections: Any) -> None:
    """The findings of a healthy host show models, sizes, users and other figures."""
    found = [finding.found for section in sections() for finding in section.findings]
    needed = needed_bytes([23 * MB]) / 1e6
    for part in (
        "onnxruntime 1.32.1, and 0 others",
        "small: /cache/small, complete, 23.0 MB of weights",
        "/cache, 1,000.0 GB free; nothing to prepare",
        f"this host grants 4,000 MB; serving takes about {needed:,.0f} MB",
        "the daemon holds 150 MB of 4,000 MB",
        "user 1000 may connect: /run/sidecar/sidecar.sock has mode 0660, group sidecar-client",
        "anyone who can open the socket",
        "version 1, pid 7, serving, up for 60 s",
        "5 completed, none failed",
        "small is in int8 (MatMulInteger), as configured",
        "4 of 4 cores granted",
        "load 0.5 on 4 cores, steal 0 %",
        "4 inference threads on 4 granted cores",
        "torch is not installed; not needed",
        "1 interactive, 2 bulk texts queued",
        "small: a text of 100 tokens takes 10.00 ms on one thread; 10.00 ms when it was prepared",
        "small matches sentence-transformers 6.2 in FP32",
        "closeness to FP32 on the built-in probes: mean 0.9990, worst 0.9900; floor 0.99",
        f"small was prepared with onnxruntime {ENGINE}",
    ):
        assert sum(part in text for text in found) == 1, part


NO_DAEMON = Answer(None, Forbidden("user 1000 is not among them"))
WRONG_SETTINGS = resolve_each({}, {"SIDECAR_THREADS": "many"}, None)
HIDDEN = Host(cores=4, memory_bytes=4 * 10**9, isa=frozenset(), cpu_model="CPU", cuda=None)
CASES = {
    "settings wrong": (
        {"wrong": WRONG_SETTINGS[1]}, START, "settings", ERROR, "SIDECAR_THREADS=many",
    ),
    "settings misspelt": (
        {"environ": {"SIDECAR_THREAD": "2"}}, START, "settings", WARNING, "SIDECAR_THREAD is not",
    ),
    "settings unknown": (
        {"environ": {"SIDECAR_OTHER_PROGRAM": "2"}}, START, "settings", NOTE, "is not a setting",
    ),
    "settings contradict": (
        {"config": Config(max_inputs=20_000)}, START, "settings", WARNING, "always refused",
    ),
    "settings closed to the unit": (
        {"systemd": INSTALLED, "closed": Path("/root")}, START, "settings", WARNING, "read /root",
    ),
    "plan": ({"refusal": "fp16 needs CUDA", "plan": None}, START, "plan", ERROR, "fp16 needs CUDA"),
    "libraries missing": (
        {"libraries": [Library("onnxruntime", "==1.32.*", None)]},
        START, "libraries", ERROR, "onnxruntime is not installed",
    ),
    "another project's package": (
        {"intruders": ["sidecar"]}, START, "libraries", ERROR, "sidecar has overwritten",
    ),
    "libraries that end the process": (
        {"import_failure": "killed by SIGILL"}, START, "libraries", ERROR, "SIGILL",
    ),
    "model": ({"models": [Found(name="m", problem="no model")]}, START, "model", ERROR, "no model"),
    "model unprepared": ({"models": [UNPREPARED]}, START, "model", NOTE, "is not prepared yet"),
    "model's limit": (
        {"config": Config(max_tokens=64)},
        START, "model", NOTE, "truncates small's texts at 64 tokens",
    ),
    "model closed to the unit": (
        {"systemd": INSTALLED, "models": [replace(MODEL, closed=Path("/home/me"))]},
        START, "model", WARNING, "cannot read /home/me",
    ),
    "cache closed": (
        {"models": [UNPREPARED], "cache": replace(WELL.cache, writable=False)},
        START, "cache", ERROR, "cannot write to /cache",
    ),
    "cache of others": (
        {"cache": replace(WELL.cache, refusal="everybody may write to it")},
        START, "cache", ERROR, "everybody may write",
    ),
    "memory too little": (
        {"host": replace(WELL.host, memory_bytes=100 * MB)},
        START, "memory", ERROR, "this host grants 100 MB; serving takes",
    ),
    "memory of the unit": (
        {"systemd": Systemd(252, [{**SERVICE, "MemoryMax": "100000000"}])},
        START, "memory", ERROR, "MemoryMax of the unit grants 100 MB; serving takes",
    ),
    "memory to prepare": (
        {"models": [UNPREPARED], "host": replace(WELL.host, memory_bytes=400 * MB)},
        START, "memory", ERROR, "preparing takes about 565 MB",
    ),
    "memory held": (
        {"answer": status(memory={"pss_bytes": 3900 * MB})},
        START, "memory", WARNING, "the daemon holds 3,900 MB of 4,000 MB",
    ),
    "units": (
        {"systemd": Systemd(252, [{**SERVICE, "ActiveState": "failed", "Result": "oom-kill"}])},
        START, "units", ERROR, "oom-kill",
    ),
    "units missing": ({"systemd": Systemd(252)}, START, "units", NOTE, "no Sidecar unit"),
    "socket": (
        {"place": replace(WELL.place, may_connect=False)},
        REACH, "socket", ERROR, "user 1000 may not connect",
    ),
    "socket elsewhere": (
        {"place": Place(Path("/run/user/1000/s"), "nothing")},
        REACH, "socket", WARNING, "but a socket at /run/sidecar/sidecar.sock",
    ),
    "socket's folder": (
        {
            "place": Place(SOCKET, "nothing"),
            "socket_folder": replace(WELL.socket_folder, writable=False),
        },
        REACH, "socket", WARNING, "cannot create a socket in /run/sidecar",
    ),
    "allow-lists": (
        {"config": Config(allow_users=frozenset({7}))},
        REACH, "allow-lists", WARNING, "do not admit user 1000",
    ),
    "daemon that waits for a client": (
        {
            "systemd": Systemd(252, [{
                "Id": "sidecar.socket", "LoadState": "loaded", "ActiveState": "active",
                "SubState": "listening", "Listen": f"{Config().socket} (Stream)",
            }]),
            "answer": None,
        },
        REACH, "daemon", NOTE, "systemd listens",
    ),
    "daemon that refuses": ({"answer": NO_DAEMON}, REACH, "daemon", WARNING, "access denied: user"),
    "daemon that is not healthy": (
        {"answer": status(healthy=False)}, REACH, "daemon", ERROR, "not healthy",
    ),
    "requests": (
        {"answer": status(requests={"completed": 3, "failed": {"overloaded": 1}})},
        REACH, "requests", WARNING, "1 of 4 requests ended with overloaded",
    ),
    "quantization": (
        {"plan": replace(WELL.plan, quantization="int4")},
        QUANTIZED, "quantization", WARNING, "not int4",
    ),
    "quantization of some layers": (
        {"answer": told(kept=["layer.5.up"])}, QUANTIZED, "quantization", NOTE, "layer.5.up",
    ),
    "cores": ({"usage": replace(WELL.usage, machine=8)}, SPEED, "cores", NOTE, "4 of 8 cores"),
    "load": ({"usage": replace(WELL.usage, load=9.0)}, SPEED, "load", WARNING, "load 9.0 on 4"),
    "instructions": ({"host": HIDDEN}, SPEED, "instructions", WARNING, "no AVX2"),
    "threads": (
        {"plan": replace(WELL.plan, threads=8)}, SPEED, "threads", WARNING, "8 inference threads",
    ),
    "threads of other pools": (
        {"environ": {"OMP_NUM_THREADS": "8"}}, SPEED, "threads", WARNING, "OMP_NUM_THREADS=8",
    ),
    "threads of the daemon": (
        {"answer": status(threads=2)},
        SPEED, "threads", NOTE, "the daemon has 2 inference threads, these settings give 4",
    ),
    "torch": (
        {"models": [replace(MODEL, slow="a family that no graph computes")]},
        SPEED, "torch", ERROR, "small needs torch",
    ),
    "swap": ({"swap": Swap(10**9, 5 * MB)}, SPEED, "swap", NOTE, "5 MB of 1,000 MB swap"),
    "queue": (
        {"answer": status(queue={"bounds": {"rows": 100}, "bulk": {"rows": 90}})},
        SPEED, "queue", WARNING, "0 interactive, 90 bulk texts queued, of at most 100",
    ),
    "speed": (
        {"answer": status(costs={"small": {"fixed_ms": 1.0, "per_token_ms": 0.9}})},
        SPEED, "speed", WARNING, "small: a text of 100 tokens takes 91.00 ms",
    ),
    "verification": (
        {"answer": told(verified=None)}, ACCURACY, "verification", WARNING, "small is unverified",
    ),
    "accuracy": (
        {"answer": told(quality={"mean": 0.9949, "min": 0.99})},
        ACCURACY, "accuracy", WARNING, "floor 0.995",
    ),
    "prompts": (
        {"answer": told(prompts_missing=["query"])},
        ACCURACY, "prompts", WARNING, "small: no prompt goes before queries",
    ),
    "engine": (
        {"models": [replace(MODEL, manifest=replace(MANIFEST, versions={"onnxruntime": "1.2.3"}))]},
        ACCURACY, "engine", WARNING, "small was prepared with onnxruntime 1.2.3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_finding_is_made_under_its_symptom(sections: Any, name: str) -> None:
    """Each finding appears once, under its symptom, with its severity and its advice."""
    changes, symptom, check, severity, part = CASES[name]
    (finding,) = (
        finding
        for section in sections(**changes)
        if section.symptom == symptom
        for finding in section.findings
        if finding.check == check and part in finding.found
    )
    assert finding.severity is severity
    assert finding.advice or severity is NOTE


def checks(examined: list[Section]) -> list[str]:
    return [finding.check for section in examined for finding in section.findings]


@pytest.mark.parametrize(
    ("missing", "unjudged"),
    [
        ({"plan": None}, {"quantization", "threads", "torch"}),
        ({"host": None}, {"cores", "load", "instructions", "threads", "torch", "memory"}),
        ({"usage": None}, {"cores", "load"}),
        ({"swap": None}, {"swap"}),
        ({"libraries": None}, {"libraries"}),
        ({"torch": None}, {"torch"}),
        ({"models": None}, {"model", "cache", "speed", "engine"}),
        (
            {"models": None, "answer": Answer(None, Forbidden("user 1000"))},
            {"model", "cache", "requests", "queue", "speed", "engine", "quantization",
             "verification", "accuracy", "memory"},
        ),
        ({"place": None}, {"socket"}),
        ({"cache": None}, {"cache"}),
        (
            {"answer": None},
            {"daemon", "requests", "queue", "speed"},
        ),
    ],
)  # fmt: skip
def test_what_could_not_be_read_is_not_judged(
    sections: Any, missing: dict[str, Any], unjudged: set[str]
) -> None:
    """Checks that need a missing fact are skipped; all others still run."""
    examined = sections(**missing)
    assert set(checks(sections())) - set(checks(examined)) == unjudged
    found = [finding.found for section in examined for finding in section.findings]
    assert not any("the check failed" in text for text in found)


def test_without_the_folder_the_socket_is_judged_all_the_same(sections: Any) -> None:
    """The socket is judged even if the facts about its folder are missing."""
    place = Place(SOCKET, "nothing")
    closed = replace(WELL.socket_folder, writable=False)
    assert checks(sections(place=place, socket_folder=closed)).count("socket") == 2
    assert checks(sections(place=place, socket_folder=None)).count("socket") == 1


def test_what_other_users_cannot_read_matters_to_units_alone(sections: Any) -> None:
    """Paths closed to other users are reported only if a unit is installed."""
    closed = {"closed": Path("/root"), "models": [replace(MODEL, closed=Path("/root"))]}
    assert checks(sections(**closed)) == checks(sections())
    missing = Systemd(252, [{**SERVICE, "LoadState": "not-found"}])
    assert not [
        finding
        for section in sections(**closed, systemd=missing)
        for finding in section.findings
        if "cannot read" in finding.found
    ]


def test_what_could_not_be_looked_at_comes_first(sections: Any) -> None:
    """Facts that could not be read come first, in a section that is absent otherwise."""
    unread = (error("load", "not finished within 60 s", "check whether a disk hangs"),)
    first, *others = sections(unread=unread, usage=None)
    assert (first.symptom, first.findings) == (UNREAD, unread)
    assert [section.symptom for section in others] == [START, REACH, QUANTIZED, SPEED, ACCURACY]
    assert all(unread[0] not in section.findings for section in others)
    assert sections()[0].symptom == START


def test_a_check_that_fails_is_an_error_under_its_symptom(sections: Any) -> None:
    """A check that raises is an error under its own symptom, and the other checks still run."""
    broken = sections(answer=status(queue={"bounds": {"rows": "many"}}))
    (finding,) = (f for s in broken if s.symptom == SPEED for f in s.findings if f.check == "queue")
    assert finding.severity is ERROR
    assert "the check failed: TypeError" in finding.found
    assert checks(broken) == checks(sections())
    assert UNREAD not in [section.symptom for section in broken]


def test_a_step_has_a_minute(monkeypatch: pytest.MonkeyPatch, sections: Any) -> None:
    """Each step is given a minute, so that a dead disk cannot block the examination."""
    given: list[float] = []

    class Watched(Guard):
        def __init__(self, seconds: float) -> None:
            given.append(seconds)
            super().__init__(seconds)

    monkeypatch.setattr(examination, "Guard", Watched)
    sections()
    assert given == [60.0]
    assert threading.active_count() < 50


def test_every_model_is_judged(sections: Any) -> None:
    """A second, unprepared model counts for the cache and for memory."""
    reranker = replace(UNPREPARED, name="ranker", source_bytes=300 * MB)
    tight = replace(WELL.cache, free=500 * MB)
    examined = sections(models=[MODEL, reranker], cache=tight)
    found = [finding.found for section in examined for finding in section.findings]
    assert "ranker is not prepared yet: the first start will do it" in found
    assert any("0.5 GB free; too little to prepare" in text for text in found)
    assert any("preparing takes about 1,300 MB, once" in text for text in found)
    # A prepared model needs its weights, an unprepared one their estimated size in INT8.
    needed = needed_bytes([23 * MB, round(0.27 * 300 * MB)])
    assert any(f"serving takes about {needed / 1e6:,.0f} MB" in text for text in found)


def test_a_model_with_a_problem_takes_no_memory(sections: Any) -> None:
    """A model that cannot be served is not counted for memory."""
    broken = Found(name="broken", problem="no model folder", source_bytes=10**9)
    examined = sections(models=[MODEL, broken])
    found = [finding.found for section in examined for finding in section.findings]
    assert any(f"about {needed_bytes([23 * MB]) / 1e6:,.0f} MB" in text for text in found)


def test_kept_results_take_memory_beside_the_models(sections: Any) -> None:
    """The result cache's SIDECAR_CACHE_BYTES are added to the memory needed."""
    examined = sections(config=Config(cache_bytes=10**9))
    found = [finding.found for section in examined for finding in section.findings]
    needed = needed_bytes([23 * MB]) + 10**9
    assert any(f"serving takes about {needed / 1e6:,.0f} MB" in text for text in found)


def test_the_units_limit_goes_before_the_hosts(sections: Any) -> None:
    """The unit's memory limit overrides the host's, also if the host could not be read."""
    limited = Systemd(252, [{**SERVICE, "MemoryMax": "2000000000"}])
    for host in (WELL.host, None):
        examined = sections(systemd=limited, host=host)
        held = [f.found for s in examined for f in s.findings if "holds" in f.found]
        assert held == ["the daemon holds 150 MB of 2,000 MB"]


def test_without_a_daemon_the_artifacts_tell_of_quantization_and_closeness(sections: Any) -> None:
    """Without a daemon, intact and trusted artifacts are judged by their manifests."""
    for manifest, severity in (
        (MANIFEST, OK),
        (replace(MANIFEST, quality=Quality(mean=0.9, p1=0.8, min=0.7, texts=9)), WARNING),
    ):
        models = [replace(MODEL, manifest=manifest)]
        examined = sections(models=models, answer=NO_DAEMON)
        (judged,) = (f for s in examined for f in s.findings if f.check == "accuracy")
        assert judged.severity is severity
        assert checks(examined).count("quantization") == 1
        assert checks(examined).count("verification") == 1
        for spoilt in ({"damage": ("model.onnx is missing",)}, {"refusals": ("anybody's",)}):
            examined = sections(models=[replace(models[0], **spoilt)], answer=NO_DAEMON)
            assert not {"accuracy", "quantization", "verification"} & set(checks(examined))


def test_without_a_daemon_prompts_are_those_of_the_folders(sections: Any) -> None:
    """Missing prompts come from the model folders only if no daemon answers."""
    lacking = replace(MODEL, missing=("query",))
    examined = sections(models=[lacking], answer=NO_DAEMON)
    (finding,) = (f for s in examined for f in s.findings if f.check == "prompts")
    assert finding.found.startswith("small: no prompt goes before queries")
    assert "prompts" not in checks(sections(models=[lacking]))


@pytest.mark.parametrize(
    ("quantization", "floors", "said"),
    [
        ("int8", {"int8_floor": 0.98}, "floor 0.98"),
        ("int4", {"int4_floor": 0.96}, "floor 0.96"),
        ("fp16", {"int8_floor": 0.98}, "floor 0.98"),
    ],
)
def test_closeness_is_held_against_the_floor_of_its_quantization(
    sections: Any, quantization: str, floors: dict[str, float], said: str
) -> None:
    """Closeness is compared with the floor configured for the model's quantization."""
    answer = told(quantization=quantization, quality={"mean": 0.97, "min": 0.95})
    examined = sections(answer=answer, config=Config(**floors))
    (finding,) = (f for s in examined for f in s.findings if f.check == "accuracy")
    assert finding.found.endswith(said)
    assert finding.severity is (WARNING if quantization != "int4" else OK)


@pytest.mark.parametrize(
    ("requested", "said"),
    [
        ("int4", "int4 in all layers stays below the floor 0.96"),
        ("int8", "int8 in all layers stays below the floor 0.98"),
    ],
)
def test_what_fell_back_is_told_with_the_floor_that_it_missed(
    sections: Any, requested: str, said: str
) -> None:
    """A model that fell back to FP32 is reported with the floor of the quantization it missed."""
    answer = told(quantization="none", requested=requested)
    config = Config(int8_floor=0.98, int4_floor=0.96)
    plan = replace(WELL.plan, quantization=requested)
    examined = sections(answer=answer, config=config, plan=plan)
    (finding,) = (f for s in examined for f in s.findings if f.check == "quantization")
    assert finding.severity is WARNING
    assert finding.found.endswith(said)


def test_speed_is_compared_where_both_figures_are(sections: Any) -> None:
    """Speed is judged only for models that were measured and that the daemon has run."""
    unmeasured = replace(MODEL, manifest=replace(MANIFEST, speed={"none": Speed(1.0, 2.0, 1.5)}))
    for changes in (
        {"models": [unmeasured]},
        {"models": [UNPREPARED]},
        {"answer": status(costs={"another": {"fixed_ms": 1.0, "per_token_ms": 0.1}})},
        {"answer": status(costs=None)},
    ):
        assert "speed" not in checks(sections(**changes)), changes
    two = [UNPREPARED, MODEL]
    assert checks(sections(models=two)).count("speed") == 1


def test_a_daemon_that_tells_little_is_judged_by_that(sections: Any) -> None:
    """A status without any fields, as of an older daemon, makes no check fail."""
    examined = sections(answer=Answer({}))
    failed = [f for s in examined for f in s.findings if "the check failed" in f.found]
    assert failed == []


def test_wrong_settings_are_not_hidden_by_others(sections: Any) -> None:
    """Each wrong setting is a finding of its own."""
    wrong = [ConfigError("one"), ConfigError("two")]
    examined = sections(wrong=wrong, environ={"SIDECAR_THREAD": ""})
    assert checks(examined)[:3] == ["settings"] * 3


def test_units_are_compared_with_those_of_this_version(sections: Any, tmp_path: Path) -> None:
    """Installed units are compared with those shipped with this version."""
    unit = tmp_path / "sidecar.service"
    unit.write_text("[Service]\n")
    installed = Systemd(252, [{**SERVICE, "FragmentPath": str(unit)}])
    for text, notes in (("[Service]\n", 0), ("[Service]\nType=notify\n", 1)):
        examined = sections(systemd=installed, shipped={"sidecar.service": text})
        found = [f for s in examined for f in s.findings if "differs from this version" in f.found]
        assert len(found) == notes


def test_each_model_is_as_fast_as_its_own_rows(sections: Any) -> None:
    """A model's speed is judged by its own cost, not by that of another model."""
    fast, slow = ({"fixed_ms": 0.0, "per_token_ms": each} for each in (0.1, 0.9))
    for costs, severity in (
        ({"other": fast, "small": slow}, WARNING),
        ({"other": slow, "small": fast}, OK),
        ({"small": fast, "other": slow}, OK),
    ):
        examined = sections(answer=status(costs=costs))
        (finding,) = (f for s in examined for f in s.findings if f.check == "speed")
        assert finding.severity is severity
