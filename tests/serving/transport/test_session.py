import asyncio
import os
import struct
import time

import numpy as np
import pytest
from structlog.testing import capture_logs

from client_lib.wire.codec import encode
from client_lib.wire.messages import Cancel, Embed, Hello, Ping, Rerank, Status
from client_lib.wire.protocol import Limits
from sidecar.serving.admission.log_limiter import LogRateLimiter
from sidecar.serving.admission.loop_time import LoopTime
from sidecar.serving.state import State

from ..steps import cancelled_at_every_await


def embed(request_id, *texts, **fields):
    return Embed(id=request_id, input=texts, **fields)


async def test_hello_states_the_limits(make_dialogue):
    """The reply to `hello` has the limits, version, pid and server name."""
    dialogue = await make_dialogue(hello=False, limits=Limits(4096, 7, 1024))
    reply = await dialogue.ask(Hello(id=0, version=1))
    assert reply["limits"] == {"max_frame_bytes": 4096, "max_inputs": 7, "max_text_bytes": 1024}
    assert (reply["version"], reply["pid"]) == (1, os.getpid())
    assert reply["server"].startswith("sidecar/")


async def test_embed_answers_with_one_table_of_floats(make_dialogue, tiny):
    """The reply to `embed` has a float32 table, model, usage, truncated texts and timings."""
    model = tiny()
    dialogue = await make_dialogue(model)
    reply = await dialogue.ask(embed(1, "abc", "x" * 40))
    assert (reply["model"], reply["truncated"]) == ("tiny", [1])
    assert reply["usage"] == {"prompt_tokens": 35, "total_tokens": 35}
    assert (reply["vectors"]["dtype"], reply["vectors"]["shape"]) == ("float32", [2, 8])
    vectors = np.frombuffer(reply["vectors"]["data"], "<f4").reshape(2, 8)
    np.testing.assert_allclose(vectors[0], model.vector("abc"), atol=1e-6)
    assert set(reply["timings"]) == {
        "queue_ms", "tokenize_ms", "compute_ms", "total_ms", "batch_rows", "batch_tokens",
        "cached_rows", "shared_rows",
    }  # fmt: skip


async def test_a_large_reply_arrives_whole(make_dialogue, tiny, monkeypatch):
    """A large reply, which is packed on a thread, has the same bytes."""
    dialogue = await make_dialogue(tiny())
    small = await dialogue.ask(embed(1, "abc"))
    monkeypatch.setattr("sidecar.serving.transport.session._PACK_ON_A_THREAD_BYTES", 0)
    large = await dialogue.ask(embed(2, "abc"))
    assert large["vectors"] == small["vectors"]


async def test_rerank_answers_with_indexes_and_scores(make_dialogue, tiny):
    """The reply to `rerank` has the method, and indexes and scores, best first."""
    dialogue = await make_dialogue(tiny(task="rerank"))
    reply = await dialogue.ask(Rerank(id=1, query="ab", documents=("x", "ab")))
    assert reply["method"] == "cross_encoder"
    assert reply["results"] == [
        {"index": 1, "relevance_score": 2.0},
        {"index": 0, "relevance_score": 0.0},
    ]


async def test_status_tells_of_requests_and_memory(make_dialogue, tiny):
    """`status` counts completed, failed and pending requests, and reports state and memory."""
    dialogue = await make_dialogue(tiny())
    await dialogue.ask(embed(1, "a"))
    await dialogue.ask(embed(2, "a", dimensions=99))
    status = (await dialogue.ask(Status(id=3)))["status"]
    assert status["requests"] == {
        "completed": 1, "failed": {"bad_request": 1}, "in_flight": 0, "untaken": 0,
    }  # fmt: skip
    assert (status["state"], status["pid"], status["batches"]) == ("serving", os.getpid(), 1)
    assert status["memory"]["rss_bytes"] > 0


async def test_requests_are_answered_as_they_finish(make_dialogue, tiny):
    """Replies are sent as requests finish: a ping overtakes a waiting embed."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a"))
    assert (await dialogue.ask(Ping(id=2)))["ok"]
    model.gate.set()
    assert (await dialogue.reply(1))["ok"]


async def test_cancel_drops_a_request_and_says_so(make_dialogue, tiny):
    """A cancelled request fails with `cancelled`, and its id may be used again."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a", "b"))
    await model.began()
    assert (await dialogue.ask(Cancel(id=2, target=1)))["cancelled"] is True
    assert (await dialogue.reply(1))["error"]["code"] == "cancelled"
    model.gate.set()
    assert (await dialogue.ask(embed(1, "c")))["ok"]
    assert model.order == ["a", "c"]


async def test_an_id_that_was_cancelled_names_the_next_request(make_dialogue, tiny):
    """The end of a cancelled request does not affect a new one with the same id."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a"))
    await model.began()
    dialogue.send(Cancel(id=2, target=1), embed(1, "b"))
    assert (await dialogue.reply(1))["error"]["code"] == "cancelled"
    assert (await dialogue.reply(2))["cancelled"] is True
    await dialogue.ask(Ping(id=3))
    assert (await dialogue.ask(Cancel(id=4, target=1)))["cancelled"] is True
    assert (await dialogue.reply(1))["error"]["code"] == "cancelled"


async def test_a_request_is_cancelled_once(make_dialogue, tiny):
    """Cancelling a request a second time reports that nothing was cancelled."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a"))
    await model.began()
    dialogue.send(Cancel(id=2, target=1), Cancel(id=3, target=1))
    assert (await dialogue.reply(2))["cancelled"] is True
    assert (await dialogue.reply(3))["cancelled"] is False
    assert (await dialogue.reply(1))["error"]["code"] == "cancelled"
    assert (await dialogue.ask(Ping(id=4)))["ok"]


@pytest.mark.parametrize("target", range(1, 5))
async def test_what_has_an_answer_cannot_be_cancelled(make_dialogue, tiny, soon, target):
    """A request whose reply is written but unread cannot be cancelled, and is answered once."""
    dialogue = await make_dialogue(tiny(name="n" * 2**20))
    dialogue.reader._transport.pause_reading()
    dialogue.send(embed(1, "a"), embed(2, "b"), embed(3, "c!"), Status(id=4))
    await soon(lambda: dialogue.context.untaken.count == 4)
    before = dialogue.session._requests
    dialogue.send(Cancel(id=10, target=target))
    await soon(lambda: dialogue.session._requests > before)
    dialogue.reader._transport.resume_reading()
    assert (await dialogue.reply(10))["cancelled"] is False
    for request_id in range(1, 5):
        assert (await dialogue.reply(request_id))["ok"] == (request_id != 3)
    assert (await dialogue.ask(Ping(id=20)))["ok"]


@pytest.mark.parametrize("wrong", ["frame", "request", "room", "done", "cancelled"])
async def test_whatever_becomes_of_a_request_its_place_is_free_again(make_dialogue, tiny, wrong):
    """Every frame and request releases its slot, whatever its outcome."""
    dialogue = await make_dialogue(tiny(), max_in_flight=2)
    for number in range(1, 6):
        match wrong:
            case "frame":
                dialogue.writer.write(encode({"id": number, "op": "nonsense"}))
            case "request":
                dialogue.send(embed(number, "a", model="another"))
            case "room":
                dialogue.send(embed(number, "a" * 2_000_000))
            case "done":
                dialogue.send(Rerank(id=number, query="a", documents=("a",)))
            case "cancelled":
                dialogue.send(embed(number, "a"), Cancel(id=10 + number, target=number))
        assert (await dialogue.reply(number))["ok"] == (wrong == "done")
    await dialogue.ask(Ping(id=9))
    assert dialogue.session._slots._value == 2
    assert (await dialogue.ask(embed(10, "a")))["ok"]


async def test_requests_are_counted_by_what_they_are(make_dialogue, tiny):
    """Answered requests are counted by operation and lane, failed ones by operation and code."""
    dialogue = await make_dialogue(tiny())
    rerank = {"query": "a", "documents": ("b", "c")}
    await dialogue.ask(embed(1, "a", priority="bulk"))
    await dialogue.ask(embed(2, "b", "c"))
    await dialogue.ask(Rerank(id=3, priority="bulk", **rerank))
    await dialogue.ask(Rerank(id=4, model="another", **rerank))
    await dialogue.ask(Ping(id=5))
    done = dialogue.context.statistics.to_map()["since_start"]
    texts = {
        (op, lane): each["texts"]
        for op, lanes in done["requests"].items()
        for lane, each in lanes.items()
    }
    assert texts == {("embed", "bulk"): 1, ("embed", "interactive"): 2, ("rerank", "bulk"): 3}
    assert done["failed"] == {"rerank": {"unknown_model": 1}}


async def test_what_is_computed_is_owed_and_what_is_told_is_not(make_dialogue, tiny, soon):
    """Embeds and reranks count as in flight until answered; status requests do not."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a"), Rerank(id=2, query="b", documents=("c",)))
    await model.began()
    counts = (await dialogue.ask(Status(id=3)))["status"]["requests"]
    assert (counts["in_flight"], counts["untaken"]) == (2, 0)
    model.gate.set()
    assert (await dialogue.reply(1))["ok"]
    assert (await dialogue.reply(2))["ok"]
    counts = (await dialogue.ask(Status(id=4)))["status"]["requests"]
    assert (counts["in_flight"], counts["untaken"]) == (0, 0)


async def test_replies_that_nobody_takes_are_told(make_dialogue, tiny, soon):
    """Replies that a peer does not read count as untaken, and no longer as in flight."""
    dialogue = await make_dialogue(tiny(name="n" * 2**20))
    dialogue.reader._transport.pause_reading()
    dialogue.send(embed(1, "a"), embed(2, "b"))
    await soon(lambda: dialogue.context.untaken.count == 2)
    counts = (await dialogue.context.status(dialogue.session._peer))["requests"]
    assert (counts["in_flight"], counts["untaken"]) == (0, 2)


async def test_a_draining_daemon_takes_no_more_requests(make_dialogue, tiny, soon):
    """A draining daemon finishes its requests, rejects new ones, and still answers status."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a"))
    await model.began()
    dialogue.context.life.move(State.DRAINING)
    error = (await dialogue.ask(embed(2, "b")))["error"]
    assert (error["code"], error["retryable"]) == ("draining", True)
    assert (await dialogue.ask(Ping(id=3)))["ok"]
    assert (await dialogue.ask(Status(id=4)))["status"]["state"] == "draining"
    model.gate.set()
    assert (await dialogue.reply(1))["ok"]


async def test_reading_frames_takes_the_user_s_part_of_the_loop(make_dialogue, tiny):
    """Decoding a long frame takes turns, and its steps are charged to the user's loop time."""
    dialogue = await make_dialogue(tiny())
    loop_time, peer = dialogue.context.loop_time, dialogue.session._peer
    turns, spent, now = [], [], time.perf_counter()

    async def turn(uid):
        turns.append(uid)

    loop_time.is_over, loop_time.turn = lambda _: True, turn
    loop_time.spend = lambda uid, started: spent.append((uid, started))
    assert (await dialogue.ask(embed(1, *["x" * 1_000] * 1_000)))["ok"]
    assert turns == [peer.uid] * len(turns)
    assert len(turns) > 4
    assert {uid for uid, _ in spent} == {peer.uid}
    assert len(spent) == len(turns) + 1
    assert now < min(started for _, started in spent)
    assert max(started for _, started in spent) < time.perf_counter()


async def test_cancelling_what_is_not_there_is_no_error(make_dialogue):
    """Cancelling an unknown request is not an error: it may have been answered."""
    dialogue = await make_dialogue()
    assert (await dialogue.ask(Cancel(id=1, target=99)))["cancelled"] is False


async def test_a_failed_forward_is_told_by_type_and_logged_with_its_traceback(make_dialogue):
    """A failed forward is reported by exception type, and logged with its traceback."""
    dialogue = await make_dialogue()
    with capture_logs() as events:
        reply = await dialogue.ask(embed(1, "secret!"))
        await dialogue.ask(Ping(id=2))
        dialogue.context.engine.notes.flush()
    assert reply["error"]["code"] == "backend_failed"
    assert "ValueError" in reply["error"]["message"]
    (event,) = (event for event in events if event["event"] == "request.failed")
    assert "this text is poison" in event["traceback"]
    assert "secret" not in str(events)


async def test_a_fault_of_the_daemon_fails_one_request(make_dialogue, tiny, monkeypatch):
    """An unexpected exception fails one request, and the connection stays usable."""
    model = tiny()
    dialogue = await make_dialogue(model)
    monkeypatch.setattr(model, "tokenize", lambda texts: 1 / 0)
    reply = await dialogue.ask(embed(1, "a"))
    assert reply["error"]["code"] == "backend_failed"
    assert "ZeroDivisionError" in reply["error"]["message"]
    assert (await dialogue.ask(Ping(id=2)))["ok"]


async def test_a_completed_request_is_an_event_with_its_peer(make_dialogue):
    """`request.completed` has the peer's pid and user, as reported by the kernel."""
    dialogue = await make_dialogue()
    with capture_logs() as events:
        await dialogue.ask(embed(7, "abc"))
        await dialogue.ask(Ping(id=8))
        dialogue.context.engine.notes.flush()
    (event,) = (event for event in events if event["event"] == "request.completed")
    assert (event["request_id"], event["rows"], event["tokens"]) == (7, 1, 3)
    assert (event["peer_pid"], event["peer_uid"]) == (os.getpid(), os.getuid())


async def test_an_event_says_of_a_request_what_its_reply_says(make_dialogue, tiny):
    """`request.completed` has the same timings and counts as the reply."""
    dialogue = await make_dialogue(tiny())
    with capture_logs() as events:
        embedded = await dialogue.ask(embed(7, "abc", "abc", "de", priority="bulk"))
        reranked = await dialogue.ask(Rerank(id=8, query="a", documents=("bcdef", "g")))
        dialogue.context.engine.notes.flush()
    completed = [event for event in events if event["event"] == "request.completed"]
    for event, reply in zip(completed, (embedded, reranked), strict=True):
        timings = reply["timings"]
        timings.pop("batch_tokens")
        assert {name: event[name] for name in timings} == timings
        assert event["tokens"] == reply["usage"]["total_tokens"]
        assert event["model"] == reply["model"] == "tiny"
    assert [(e["op"], e["lane"], e["rows"], e["shared_rows"]) for e in completed] == [
        ("embed", "bulk", 3, 1), ("rerank", "interactive", 3, 0),
    ]  # fmt: skip


async def test_an_event_of_a_failure_says_whose_it_was(make_dialogue, tiny):
    """A failure is logged as an error, with its traceback, only if the daemon is at fault."""
    dialogue = await make_dialogue(tiny())
    with capture_logs() as events:
        wrong = await dialogue.ask(embed(7, "a", model="another"))
        poison = await dialogue.ask(embed(8, "a!"))
        dialogue.context.engine.notes.flush()
    failed = [event for event in events if event["event"] == "request.failed"]
    for event, reply, level in zip(failed, (wrong, poison), ("info", "error"), strict=True):
        assert (event["request_id"], event["log_level"]) == (reply["id"], level)
        assert (event["code"], event["reason"]) == (
            reply["error"]["code"], reply["error"]["message"],
        )  # fmt: skip
        assert (event["traceback"] is None) == (level == "info")


async def test_a_connection_begins_in_its_user_s_part_of_the_loop(make_dialogue, monkeypatch):
    """A new connection waits for its user's turn, and its setup is charged to the user."""
    turns, spent = [], []

    async def turn(_, uid):
        turns.append(uid)

    monkeypatch.setattr(LoopTime, "turn", turn)
    monkeypatch.setattr(LoopTime, "spend", lambda _, uid, started: spent.append(uid))
    dialogue = await make_dialogue(hello=False)
    await asyncio.sleep(0)
    assert (turns, spent) == ([os.getuid()], [])
    while not spent:  # noqa: ASYNC110 - connecting has no event of its own
        await asyncio.sleep(0)
    assert spent == [os.getuid()]
    assert (await dialogue.ask(Hello(id=0, version=1)))["ok"]


async def test_a_request_s_events_carry_the_caller_s_trace(make_dialogue):
    """Events of requests with a traceparent have its trace and parent ids."""
    dialogue = await make_dialogue()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with capture_logs() as events:
        await dialogue.ask(embed(1, "abc", traceparent=trace))
        await dialogue.ask(embed(2, "abc", traceparent=trace, model="none"))
        await dialogue.ask(embed(3, "abc"))
        await dialogue.ask(Ping(id=4))
        dialogue.context.engine.notes.flush()
    traced = {e["request_id"]: e for e in events if e["event"].startswith("request.")}
    for request_id in (1, 2):
        assert traced[request_id]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert traced[request_id]["parent_id"] == "00f067aa0ba902b7"
    assert not {"trace_id", "parent_id"} & traced[3].keys()


async def test_a_process_is_one_peer_in_its_lane(make_dialogue, tiny):
    """`status` lists a process, as identified by the kernel, in the lane where it waits."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a"))
    await model.began()
    dialogue.send(embed(2, "b", priority="bulk"))
    status = (await dialogue.ask(Status(id=3)))["status"]["queue"]
    model.gate.set()
    assert (await dialogue.reply(2))["ok"]
    assert status["interactive"]["peers"] == {}
    assert list(status["bulk"]["peers"]) == [f"pid {os.getpid()} (uid {os.getuid()})"]


async def test_a_deadline_travels(make_dialogue, tiny):
    """A request with `timeout_ms` fails when it expires, and the connection stays usable."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    error = (await dialogue.ask(embed(1, "a", timeout_ms=20)))["error"]
    model.gate.set()
    assert (error["code"], error["retryable"]) == ("deadline_exceeded", False)
    assert (await dialogue.ask(embed(1, "b")))["ok"]


async def test_a_draining_daemon_takes_no_new_requests(make_dialogue):
    """A daemon that is already draining rejects requests as retryable and answers pings."""
    dialogue = await make_dialogue(state=State.DRAINING)
    error = (await dialogue.ask(embed(1, "a")))["error"]
    assert (error["code"], error["retryable"]) == ("draining", True)
    assert (await dialogue.ask(Ping(id=2)))["ok"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        struct.pack("!I", 3) + b"\xc1\xc1\xc1",
        encode({"op": "ping"}),
        encode({"id": -1, "op": "ping"}),
    ],
)
async def test_bytes_that_are_no_protocol_close_the_connection(make_dialogue, garbage):
    """Bytes that violate the protocol are logged and close the connection with an error."""
    dialogue = await make_dialogue()
    with capture_logs() as events:
        dialogue.writer.write(garbage)
        error = (await dialogue.reply(None))["error"]
        await dialogue.ended()
    assert error["code"] in {"bad_request", "too_large"}
    assert [(e["event"], e["fatal"]) for e in events if e["log_level"] != "debug"] == [
        ("peer.rejected", True)
    ]
    assert await dialogue.reader.read() == b""


async def test_a_request_that_is_wrong_is_refused_and_forgotten(make_dialogue):
    """An invalid request gets an error, and its id may be used again."""
    dialogue = await make_dialogue()
    dialogue.writer.write(encode({"id": 5, "op": "embed", "input": []}))
    assert (await dialogue.reply(5))["error"]["code"] == "bad_request"
    assert (await dialogue.ask(embed(5, "a")))["ok"]


async def test_frames_that_are_refused_make_few_lines(make_dialogue):
    """Rejected frames are all answered and counted, but few of them are logged."""
    dialogue = await make_dialogue()
    with capture_logs() as events:
        for number in range(1, 61):
            dialogue.writer.write(encode({"id": number, "op": "nonsense"}))
        for number in range(1, 61):
            assert (await dialogue.reply(number))["error"]["code"] == "bad_request"
        assert (await dialogue.ask(embed(61, "a")))["ok"]
        dialogue.writer.close()
        await dialogue.ended()
    lines = [event for event in events if event["event"] == "peer.rejected"]
    assert 1 <= len(lines) <= 5
    (end,) = (event for event in events if event["event"] == "peer.disconnected")
    assert (end["requests"], end["refused"]) == (2, 60)  # hello, and the valid one
    assert dialogue.context.statistics.since_start().refused == {"bad_request": 60}


async def test_a_peer_that_only_sends_nonsense_is_let_go(make_dialogue):
    """A peer that sends 100 invalid frames in a row is disconnected with an error."""
    dialogue = await make_dialogue()
    for number in range(1, 150):
        dialogue.writer.write(encode({"id": number, "op": "nonsense"}))
    assert "unknown op" in (await dialogue.reply(1))["error"]["message"]
    assert "100 frames in a row" in (await dialogue.reply(100))["error"]["message"]
    await dialogue.ended()
    assert await dialogue.reply(101) is None


async def test_an_id_that_is_in_flight_may_not_be_used_again(make_dialogue, tiny):
    """Using the id of a request in flight closes the connection: replies would be ambiguous."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(embed(1, "a"))
    await model.began()
    dialogue.send(embed(1, "b"))
    assert "in flight" in (await dialogue.reply(None))["error"]["message"]
    await dialogue.ended()


async def test_a_peer_that_leaves_takes_its_requests_with_it(make_dialogue, tiny):
    """When a peer leaves, its requests are dropped, and nothing stays in flight."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(*(embed(i, "a", "b", "c") for i in range(1, 4)))
    await model.began()
    dialogue.writer.close()
    await dialogue.ended()
    assert dialogue.context.engine.status()["queue"]["interactive"]["rows"] == 0
    assert (await dialogue.context.status(dialogue.session._peer))["requests"] == {
        "completed": 0, "failed": {"cancelled": 3}, "in_flight": 0, "untaken": 0,
    }  # fmt: skip


async def test_no_more_requests_are_read_than_may_be_in_flight(make_dialogue, tiny):
    """Requests beyond `max_in_flight` wait in the socket, and are all answered eventually."""
    model = tiny()
    dialogue = await make_dialogue(model, max_in_flight=2)
    model.gate.clear()
    dialogue.send(*(embed(i, "a") for i in range(1, 8)))
    await model.began()
    assert dialogue.context.accepted.count <= 2
    model.gate.set()
    replies = [await dialogue.reply(i) for i in range(1, 8)]
    assert all(reply["ok"] for reply in replies)


async def test_a_peer_that_leaves_while_it_waits_for_a_place_is_noticed(
    make_dialogue, tiny, soon, monkeypatch
):
    """A peer that leaves while its request waits for a slot is noticed."""
    monkeypatch.setattr("sidecar.serving.transport.reader._LOOK_SECONDS", 0.01)
    model = tiny()
    dialogue = await make_dialogue(model, max_in_flight=1)
    model.gate.clear()
    dialogue.send(embed(1, "a"))
    await model.began()
    dialogue.send(embed(2, "b"))
    await soon(lambda: dialogue.session._connection.whole)
    dialogue.writer.transport.abort()
    await dialogue.ended()
    model.gate.set()
    assert dialogue.context.statistics.since_start().failed_by_code == {"cancelled": 1}


async def test_what_a_peer_has_left_behind_is_not_begun(make_dialogue, tiny):
    """Requests of a peer that has already left are not started."""
    model = tiny()
    dialogue = await make_dialogue(model)
    dialogue.send(Ping(id=1), embed(2, "a"), embed(3, "b"))
    dialogue.writer.transport.abort()
    await dialogue.ended()
    assert model.order == []
    assert dialogue.context.statistics.since_start().failed_by_code == {}


async def test_a_slow_reader_is_not_read_from(make_dialogue, tiny, soon):
    """Unread replies occupy their slots, which bounds memory; all arrive once they are read."""
    dialogue = await make_dialogue(tiny(name="n" * 2**18), max_in_flight=4)
    dialogue.reader._transport.pause_reading()
    with capture_logs() as events:
        dialogue.send(*(embed(i, "a") for i in range(1, 21)))
        await soon(dialogue.session._slots.locked)
    assert dialogue.context.statistics.since_start().completed < 20
    assert not [event for event in events if event["event"] == "request.failed"]
    dialogue.reader._transport.resume_reading()
    for i in range(1, 21):
        assert (await dialogue.reply(i))["ok"]


@pytest.mark.slow
async def test_a_session_may_be_cancelled_at_every_await(make_dialogue, tiny):
    """A session cancelled at any await leaves no slot, row, task or open socket behind."""

    async def visit(dialogue):
        dialogue.send(Hello(id=0, version=1), embed(1, "a", "b"), Ping(id=2), embed(3, "c" * 500))
        dialogue.send(Status(id=4), Cancel(id=5, target=1))
        replies = [await dialogue.reply(request_id) for request_id in range(6)]
        dialogue.send(embed(6, "d"), embed(7, "d", "e"))
        return replies + [await dialogue.reply(request_id) for request_id in (6, 7)]

    def make():  # replies exceed the kernel's buffer, so that sessions wait for them
        return make_dialogue(tiny(name="n" * 2**18), hello=False)

    tasks = asyncio.all_tasks()
    async for dialogue in cancelled_at_every_await(make, visit):
        assert asyncio.all_tasks() <= tasks
        assert (dialogue.context.accepted.count, dialogue.context.untaken.count) == (0, 0)
        assert dialogue.context.engine.status()["queue"]["interactive"]["rows"] == 0
        assert dialogue.context.access.to_list() == []
        assert dialogue.session._open == {}
        assert dialogue.session._sock.fileno() == -1


async def test_failures_are_told_a_few_a_second(make_dialogue):
    """A user's failures are all answered and counted, but few of them are logged."""
    dialogue = await make_dialogue()
    now = 0.0
    dialogue.context.failures = LogRateLimiter(0.2, lambda: now)
    with capture_logs() as events:
        for number in range(1, 51):
            reply = await dialogue.ask(embed(number, "a", model="another"))
            assert reply["error"]["code"] == "unknown_model"
        now = 0.3
        await dialogue.ask(embed(51, "a", model="another"))
        dialogue.context.engine.notes.flush()
    unlogged = [event["unlogged"] for event in events if event["event"] == "request.failed"]
    assert unlogged == [0] * 5 + [45]
    # Limited per user, because a script that is restarted is a new process each time.
    assert dialogue.context.failures.take(dialogue.session._peer.uid) is None
    assert dialogue.context.statistics.since_start().failed_by_code == {"unknown_model": 51}
