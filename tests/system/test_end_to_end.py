"""The shipped units under a real systemd: activation, restarts, reload, sandbox, journal."""

import json
import random
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Self

import numpy as np
import pytest

from client_lib import Client
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare import PrepareRequest, prepare

from .machine import UNITS, Machine

pytestmark = pytest.mark.slow

PATIENCE = 120
SERVICE, SOCKET = "sidecar.service", "sidecar.socket"
TEXTS = [f"text {i} " + "copper conducts heat better than steel " * (i % 7) for i in range(40)]
Alone = Mapping[str, list[bytes]]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine")) as running:
        yield running


@pytest.fixture(scope="module")
def alone(
    machine: Machine, make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Alone:
    """Copy two small models to the machine; return each text's vector by each, computed alone."""
    folder = tmp_path_factory.mktemp("artifacts")
    precision = Precision("int8", weight_bits=7, floor=0.0)
    vectors: dict[str, list[bytes]] = {}
    for name, family in (("one", "bert"), ("two", "distilbert")):
        output = folder / name
        source = make_model(family)
        prepare(PrepareRequest(folder=source, name=name, precision=precision, output=output))
        _copy(output, machine.path(f"/opt/models/{name}"))
        model = load(output)
        computed = [model.forward(model.tokenize([text])[0]) for text in TEXTS]
        vectors[name] = [
            (v / np.sqrt(np.square(v).sum(dtype=np.float32))).tobytes() for v in computed
        ]
    return vectors


def _copy(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target)
    for path in (target, *target.iterdir()):
        path.chmod(0o755)  # the service runs as another user


class Installed:
    """The service of one test, and its clients."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.socket = machine.path("/run/sidecar/sidecar.sock")

    def configure(self, model: str, **others: str) -> None:
        settings = {"SIDECAR_EMBEDDING_MODEL": f"/opt/models/{model}", **others}
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        self.machine.path("/etc/default/sidecar").write_text(lines)

    def client(self, *, retries: bool = True) -> Client:
        return Client(self.socket, timeout=PATIENCE, retries=retries)

    @property
    def pid(self) -> int:
        return int(self.machine.show(SERVICE, "MainPID"))

    def kill(self, number: signal.Signals) -> None:
        self.machine.run("kill", f"-{number.value}", str(self.pid))


@pytest.fixture
def installed(machine: Machine, alone: Alone) -> Iterator[Installed]:
    """The service, configured for model `one` and activated by its first client."""
    fresh = Installed(machine)
    fresh.configure("one")
    machine.systemctl("start", SOCKET)
    yield fresh
    machine.systemctl("stop", SOCKET, SERVICE)
    machine.systemctl("reset-failed")
    shutil.rmtree(machine.path(f"/run/systemd/system/{SERVICE}.d"), ignore_errors=True)
    machine.systemctl("daemon-reload")


class Load:
    """Clients that send requests until the block ends, and check every vector."""

    def __init__(self, installed: Installed, alone: Alone, *, retries: bool = True) -> None:
        self._installed, self._alone, self._retries = installed, alone, retries
        self._over = Event()
        self._pool = ThreadPoolExecutor(5)
        self._answered: list[str] = []

    def __enter__(self) -> Self:
        self._clients = [self._pool.submit(self._ask, seed) for seed in range(5)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.result(PATIENCE)
        self._pool.shutdown()

    def _ask(self, seed: int) -> None:
        chance = random.Random(seed)
        with self._installed.client(retries=self._retries) as client:
            while not self._over.is_set():
                picks = [chance.randrange(len(TEXTS)) for _ in range(chance.choice((1, 1, 9)))]
                reply = client.embed([TEXTS[i] for i in picks])
                right = [self._alone[reply.model][i] for i in picks]
                assert [vector.tobytes() for vector in reply.vectors] == right
                self._answered.append(reply.model)

    def wait(self, model: str, answers: int = 50) -> None:
        """Wait until `model` has given `answers` more answers."""
        begun = len(self._answered)
        while self._answered[begun:].count(model) < answers:
            for client in self._clients:
                if client.done():
                    client.result()


def test_the_first_client_starts_the_service(installed: Installed, alone: Alone) -> None:
    """The first client activates the service, and is answered once the model is loaded."""
    machine = installed.machine
    assert machine.show(SERVICE, "ActiveState") == "inactive"
    with installed.client(retries=False) as client:
        assert client.embed(TEXTS[3]).vectors[0].tobytes() == alone["one"][3]
    machine.until(SERVICE, ActiveState="active", StatusText="Serving one", NRestarts="0")
    assert machine.show(SERVICE, "User") != "root"
    assert "/cache/private/sidecar" in machine.run("readlink", "-f", "/var/cache/sidecar")


def test_a_killed_service_loses_no_request(installed: Installed, alone: Alone) -> None:
    """After kill -9 under load, systemd restarts the service, and clients see no error."""
    with Load(installed, alone) as clients:
        clients.wait("one")
        installed.kill(signal.SIGKILL)
        clients.wait("one")
    installed.machine.until(SERVICE, ActiveState="active", NRestarts="1")


def test_a_hung_service_is_restarted_by_the_watchdog(installed: Installed, alone: Alone) -> None:
    """The watchdog restarts a stopped process, and the next one answers its clients."""
    machine = installed.machine
    drop_in(machine, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    with Load(installed, alone) as clients:
        clients.wait("one")
        installed.kill(signal.SIGSTOP)
        clients.wait("one", answers=500)
    machine.until(SERVICE, ActiveState="active", NRestarts="1")
    journal = machine.run("journalctl", "--unit", SERVICE, "--output=cat")
    assert "Watchdog timeout" in journal


def drop_in(machine: Machine, text: str, unit: str = SERVICE) -> None:
    folder = machine.path(f"/run/systemd/system/{unit}.d")
    folder.mkdir(parents=True)
    (folder / "test.conf").write_text(text)
    machine.systemctl("daemon-reload")


def test_a_reload_swaps_models_under_load(installed: Installed, alone: Alone) -> None:
    """`systemctl reload` applies the edited file; clients without retries see no error."""
    machine = installed.machine
    with Load(installed, alone, retries=False) as clients:
        clients.wait("one")
        pid = installed.pid
        for model in ("two", "one", "two"):
            installed.configure(model)
            machine.systemctl("reload", SERVICE)
            clients.wait(model)
            machine.until(SERVICE, ActiveState="active", StatusText=f"Serving {model}")
    assert (installed.pid, machine.show(SERVICE, "NRestarts")) == (pid, "0")


def test_a_reload_that_fails_is_said_and_ends_nothing(installed: Installed) -> None:
    """A failed reload is reported in status line and journal, and the old model keeps serving."""
    machine = installed.machine
    with installed.client() as client:
        client.ping()
        installed.configure("one", SIDECAR_THREADS="many")
        machine.systemctl("reload", SERVICE)
        reason = "SIDECAR_THREADS=many: must be a whole number of at least 0"
        machine.until(
            SERVICE, ActiveState="active", StatusText=f"Serving one; not reloaded: {reason}"
        )
        assert client.embed("a text").model == "one"
    (event,) = machine.events("server.reload_failed", f"_PID={installed.pid}")
    assert event["REASON"] == reason


def test_a_stop_finishes_what_was_accepted(installed: Installed, alone: Alone) -> None:
    """Stopping finishes accepted requests, exits with 0, and leaves the socket to reactivate it."""
    machine = installed.machine
    with Load(installed, alone) as clients:
        clients.wait("one")
        machine.systemctl("stop", SERVICE)
        clients.wait("one")
    machine.until(SERVICE, ActiveState="active", Result="success", NRestarts="0")
    machine.systemctl("stop", SOCKET, SERVICE)
    assert machine.show(SERVICE, "ExecMainStatus") == "0"
    assert machine.show(SERVICE, "ActiveState") == "inactive"


def test_a_wrong_configuration_is_not_tried_again(installed: Installed) -> None:
    """An invalid configuration exits with 78, without restarts, and clients fail at once."""
    machine = installed.machine
    installed.configure("one", SIDECAR_THREADS="many")
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(PATIENCE)
        waiting.connect(str(installed.socket))
        assert waiting.recv(1) == b""
    machine.until(SOCKET, ActiveState="inactive")
    machine.until(SERVICE, ActiveState="failed", ExecMainStatus="78", NRestarts="0")
    journal = machine.run("journalctl", "--unit", SERVICE, "--output=cat")
    assert journal.count("Main process exited, code=exited, status=78/CONFIG") == 1
    installed.configure("one")
    machine.systemctl("start", SOCKET)
    with installed.client() as client:
        assert client.embed("a text").model == "one"


ASK = """
from client_lib import Client
with Client("/run/sidecar/sidecar.sock") as client:
    client.embed("a text")
    print(*(peer["uid"] for peer in client.status()["peers"]))
"""


def test_peers_are_told_apart_by_user(installed: Installed) -> None:
    """Members of the group are served under their own uid; other users cannot connect."""
    machine = installed.machine
    group = int(machine.run("getent", "group", "sidecar-client").split(":")[2])
    ask = ("/opt/sidecar/bin/python", "-c", ASK)
    for uid in (4242, 4343):
        assert machine.run(*ask, uid=uid, gid=group) == str(uid)
        assert machine.events("request.completed", f"PEER_UID={uid}", f"_PID={installed.pid}")
    with pytest.raises(AssertionError, match="Permission denied"):
        machine.run("/opt/sidecar/bin/python", "-c", CONNECT, uid=4242, gid=4242)


CONNECT = """
import socket
socket.socket(socket.AF_UNIX).connect("/run/sidecar/sidecar.sock")
"""

FACTS = """
import importlib.util, json
from dataclasses import asdict
from sidecar.host import read_host
from sidecar.plan import make_plan
host = read_host()
plan = make_plan(use_quantization=True, quantization="int8", threads=0, host=host, device="cpu")
facts = {"plan": asdict(plan), "isa": sorted(host.isa), "cpu": host.cpu_model}
if importlib.util.find_spec("torch"):
    import torch
    facts["torch"] = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    # oneDNN compiles a convolution and a GELU at run time.
    torch.nn.Sequential(torch.nn.Conv1d(8, 8, 3), torch.nn.GELU())(torch.ones(1, 8, 64))
print(json.dumps(facts))
"""


def test_the_sandbox_hides_nothing_of_the_processor(machine: Machine) -> None:
    """Inside the sandbox, Sidecar and torch see the same instructions and threads as outside."""
    script = machine.path("/opt/sidecar/facts.py")
    script.write_text(FACTS)
    command = "/opt/sidecar/bin/python /opt/sidecar/facts.py"
    changes = {
        "Type": "oneshot", "Restart": "no", "ExecStart": command, "ExecStopPost": "",
        "StandardOutput": "truncate:/run/facts.json",
    }  # fmt: skip
    unit = (UNITS / SERVICE).read_text().replace("Requires=sidecar.socket\n", "")
    machine.path("/run/systemd/system/facts.service").write_text(unit)
    lines = [f"{name}=\n{name}={value}\n" for name, value in changes.items()]
    drop_in(machine, "[Service]\n" + "".join(lines), "facts.service")
    machine.systemctl("start", "facts.service")
    inside = json.loads(machine.path("/run/facts.json").read_text())
    assert inside == json.loads(machine.run(*command.split()))
    assert inside["isa"]


def test_metrics_are_written_while_the_service_runs(installed: Installed) -> None:
    """The metrics timer runs only with the service, and reading metrics never activates it."""
    machine, timer, writer = installed.machine, "sidecar-metrics.timer", "sidecar-metrics.service"
    folder = machine.path("/var/lib/prometheus/node-exporter")
    folder.mkdir(parents=True, exist_ok=True)
    machine.systemctl("enable", timer)
    machine.systemctl("start", writer, check=False)
    assert machine.show(SERVICE, "ActiveState") == "inactive"
    with installed.client() as client:
        client.embed(TEXTS[:3])
        machine.until(timer, ActiveState="active")
        machine.systemctl("start", writer)
    written = folder / "sidecar.prom"
    assert 'model="one",quantization="int8"' in written.read_text()
    assert written.stat().st_mode & 0o777 == 0o644
    machine.systemctl("stop", SOCKET, SERVICE)
    machine.until(timer, ActiveState="inactive")
    machine.systemctl("disable", timer)


def test_an_instance_serves_a_model_of_its_own(installed: Installed) -> None:
    """sidecar@two runs alongside sidecar, with its own socket, settings file and model."""
    machine = installed.machine
    settings = "SIDECAR_EMBEDDING_MODEL=/opt/models/two\n"
    machine.path("/etc/default/sidecar-two").write_text(settings)
    machine.systemctl("enable", "--now", "sidecar@two.socket")
    with installed.client() as one, Client(machine.path("/run/sidecar/two.sock")) as two:
        assert [client.embed("a text").model for client in (one, two)] == ["one", "two"]
    machine.until("sidecar@two.service", ActiveState="active", StatusText="Serving two")
    machine.systemctl("stop", "sidecar@two.socket", "sidecar@two.service")
