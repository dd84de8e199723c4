"""Replay of the fuzzer's corpus of peers, and tests of the stage that detects faults.

`python -m bench fuzz` finds more inputs, and `--keep` keeps those that reach new code.
"""

import time

import numpy as np
import pytest

from bench.fuzz import CORPUS
from bench.fuzzing import corpus
from bench.fuzzing.script import Read, Send, script
from bench.fuzzing.stage import Stage
from client_lib.wire.codec import encode
from sidecar.serving.admission.peer import Peer

HELLO = Send(encode({"op": "hello", "id": 0, "version": 1}))


def asking(text):
    """Return the script of a peer that says hello, sends a request, and reads both replies."""
    return [HELLO, Read(), Send(encode({"op": "embed", "id": 1, "input": [text]})), Read()]


@pytest.fixture
def patient(monkeypatch):
    """Let peers wait longer for their replies than the fuzzer does."""
    monkeypatch.setattr("bench.fuzzing.stage._MOMENT_SECONDS", 20)


@pytest.mark.slow
def test_the_corpus_brings_about_no_fault_and_leaves_nothing_behind(tiny, monkeypatch):
    """No kept input causes a traceback, leaves anything behind or disturbs other peers."""
    monkeypatch.setattr("bench.fuzzing.stage._MOMENT_SECONDS", 0)
    model = tiny()
    model.forward = lambda _: np.ones(model.dimensions, np.float32)  # any text has a vector
    inputs = corpus.read(CORPUS)
    assert len(inputs) > 100
    with Stage([model]) as stage:
        for data in inputs:
            assert stage.play(script(data)).faults == [], data


def test_a_peer_on_the_stage_is_answered(tiny, patient):
    """A peer on the stage is answered, and the bytes of its replies are counted."""
    with Stage([tiny()]) as stage:
        hello = stage.play([HELLO, Read()])
        embed = stage.play(asking("abc"))
    assert (hello.faults, embed.faults) == ([], [])
    assert embed.reply_bytes > hello.reply_bytes + 8 * 4


def test_a_traceback_is_a_fault(tiny, patient):
    """A traceback is a fault, even if only one request fails."""
    with Stage([tiny()]) as stage:
        (fault,) = stage.play(asking("poison!")).faults
        assert stage.play(asking("abc")).faults == []
    assert fault.startswith("request.failed: ")
    assert "ValueError: this text is poison" in fault


@pytest.mark.slow
def test_the_end_of_inference_is_a_fault(tiny, patient):
    """An exception that ends inference is a fault."""
    with Stage([tiny()]) as stage:
        faults = stage.play(asking("the end~")).faults
    assert "worker.crashed: SystemExit(3)" in faults


@pytest.mark.slow
def test_what_is_still_held_after_a_peer_is_a_fault(tiny, monkeypatch):
    """Reserved bytes that remain after a peer has left are a fault, and only that peer's."""
    monkeypatch.setattr("bench.fuzzing.stage._PATIENCE_SECONDS", 0.5)
    with Stage([tiny()]) as stage:
        reservation = stage._context.accounts.requests.try_reserve(Peer(pid=1, uid=1, gid=1), 7)
        (fault,) = stage.play([HELLO, Read()]).faults
        assert stage.play([HELLO, Read()]).faults == []  # the next peer is not blamed
        reservation.release()
    assert fault.startswith("not over in 0.5 s: ")


@pytest.mark.slow
def test_a_turn_of_the_loop_is_timed(tiny, patient):
    """The longest iteration of the loop includes slow code on it, but not pauses between peers."""
    model = tiny()
    tokenize = model.tokenize

    def slowly(texts):
        time.sleep(0.03)
        return tokenize(texts)

    with Stage([model]) as stage:
        model.tokenize = slowly
        assert stage.play(asking("abc")).longest >= 0.03
        time.sleep(0.5)  # the loop is stopped between two peers
        assert stage.play([HELLO, Read()]).longest < 0.5
