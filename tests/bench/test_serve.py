"""The parts of `python -m bench serve`: crowds of clients, and servers to start and stop."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench import loads
from bench.callers import Ask, crowd, in_batches
from bench.peers.peer import CannotServeError, Service, Setting
from bench.peers.server import serving

TEXTS = [f"text {i}" for i in range(40)]

# Answers with a text's length, and has a worker that ignores SIGTERM.
SERVER = """
import base64, json, os, signal, struct, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[2], "w").write(str(os.getpid()))
    time.sleep(600)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        vector = base64.b64encode(struct.pack("<f", len(asked))).decode()
        body = json.dumps({"data": [{"embedding": vector}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def vector_of(text: str) -> np.ndarray:
    return np.array([len(text), float(text.rsplit(maxsplit=1)[-1])], np.float32)


@pytest.mark.parametrize("clients", [1, 16, 64])
def test_a_crowd_asks_for_each_text_once_and_keeps_their_order(clients: int) -> None:
    """A crowd requests each text once and keeps the order, even with more clients than texts."""
    asked: list[str] = []

    @contextmanager
    def connect() -> Iterator[Ask]:
        def ask(text: str) -> np.ndarray:
            asked.append(text)
            return vector_of(text)

        yield ask

    visit = crowd(connect, TEXTS, clients)

    assert sorted(asked) == sorted(TEXTS)
    assert np.array_equal(visit.vectors, [vector_of(text) for text in TEXTS])
    assert all(0 < each <= visit.seconds for each in visit.times)


def test_a_server_that_fails_ends_its_crowd() -> None:
    """A failing server ends the crowd with its error, without a client left waiting."""

    @contextmanager
    def connect() -> Iterator[Ask]:
        def ask(text: str) -> np.ndarray:
            if text == TEXTS[7]:
                raise RuntimeError("503")
            return vector_of(text)

        yield ask

    with pytest.raises(RuntimeError, match="503"):
        crowd(connect, TEXTS, 16)


def test_a_text_in_a_batch_takes_as_long_as_the_batch() -> None:
    """The time of a text in a batch is that of the whole batch."""
    visit = in_batches(lambda texts: np.stack(list(map(vector_of, texts))), TEXTS, 16)

    assert np.array_equal(visit.vectors, [vector_of(text) for text in TEXTS])
    assert [len(set(visit.times[i : i + 16])) for i in (0, 16, 32)] == [1, 1, 1]
    assert visit.seconds == pytest.approx(sum(visit.times[::16]))


def test_no_text_of_a_load_is_there_twice(tmp_path: Path) -> None:
    """The texts of a load are unique, even if the source has equal prefixes."""
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"text": "{"word " * 80}{i % 5}"}}\n' for i in range(50)))

    found = loads.read(file, 20)

    assert {lengths: len(texts) for lengths, texts in found.items()} == {
        "mixed": 5, "uniform": 1, "query": 1,
    }  # fmt: skip


@pytest.mark.slow
class TestServer:
    @pytest.fixture
    def setting(self, tmp_path: Path) -> Setting:
        return Setting(folder=tmp_path, max_tokens=8, cores=1, workshop=tmp_path)

    @pytest.fixture
    def service(self, tmp_path: Path) -> Service:
        note = str(tmp_path / "worker")
        return Service("fake", lambda python, port, _: (str(python), "-c", SERVER, str(port), note))

    def test_all_its_processes_are_gone_afterwards(
        self, service: Service, setting: Setting
    ) -> None:
        """All processes of a server are ended, even after an error or if they ignore SIGTERM."""

        def measure() -> None:
            with serving(service, Path(sys.executable), setting) as server:
                with server.awake():
                    assert crowd(server.connect, ["a", "bc"], 2).vectors.tolist() == [[1], [2]]
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measure()

        worker = int((setting.workshop / "worker").read_text())
        assert not Path(f"/proc/{worker}").exists() or state(worker) == "Z"

    def test_it_sleeps_in_between(self, service: Service, setting: Setting) -> None:
        """A server is stopped by SIGSTOP, workers included, while it is not measured."""
        with serving(service, Path(sys.executable), setting) as server:
            worker = int((setting.workshop / "worker").read_text())
            assert state(worker) == "T"
            with server.awake():
                assert state(worker) != "T"
            assert state(worker) == "T"

    def test_its_last_words_are_told_where_it_does_not_start(self, setting: Setting) -> None:
        """A server that does not start raises an error with its last output."""
        service = Service("broken", lambda python, *_: (str(python), "-c", "1 / 0"))

        with (
            pytest.raises(RuntimeError, match=r"ended with 1: .* ZeroDivisionError"),
            serving(service, Path(sys.executable), setting),
        ):
            pass

    def test_a_model_that_it_cannot_serve_starts_nothing(self, setting: Setting) -> None:
        """A peer that cannot serve the model says so before a process is started."""

        def command(*_: object) -> list[str]:
            raise CannotServeError("no graph for it")

        with (
            pytest.raises(CannotServeError, match="no graph"),
            serving(Service("other", command), Path(sys.executable), setting),
        ):
            pass


def state(pid: int) -> str:
    """Return a process's state, after a moment for signals to take effect."""
    time.sleep(0.05)
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
