"""The queue's rules under any load: what hypothesis thinks of, and long seeded runs.

By hand, for as long as you like: `SIMULATION_STEPS=1000000 SIMULATION_SEED=7 pytest
tests/serving/scheduler/test_simulation.py`. A run that fails says its seed and its steps.
"""

import os
import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire.errors import Overloaded
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.scheduler.queue import MAX_COST, Queue

from ..jobs import job
from ..world import LONGEST, World

STEPS = int(os.environ.get("SIMULATION_STEPS", "3000"))
SEEDS = [int(os.environ["SIMULATION_SEED"])] if "SIMULATION_SEED" in os.environ else range(6)

# Texts are small numbers: several requests ask for the same ones. None: all are different.
rows = st.lists(st.tuples(st.integers(1, LONGEST), st.integers(0, 9)), min_size=1, max_size=35)
asked = st.fixed_dictionaries(
    {
        "rows": rows,
        "alike": st.booleans(),
        "model": st.sampled_from("ab"),
        "peer": st.sampled_from(["u/w", "u/x", "v/y", "z/z"]),
        "priority": st.sampled_from(["interactive", "bulk"]),
        "timeout": st.floats(0.0, 3.0) | st.just(float("inf")),
        "pace": st.floats(0.1, 10.0),
        "poison": st.integers(-1, 3),
    }
)
steps = st.one_of(
    st.tuples(st.just("ask"), asked),
    st.tuples(st.just("advance"), st.floats(0.0, 1.0)),
    st.tuples(st.just("cancel"), st.integers(0, 100)),
    st.tuples(st.just("kill"), st.none()),
)


def do(world, kind, what):
    match kind:
        case "ask":
            costs, texts = zip(*what["rows"], strict=True)
            rest = {key: value for key, value in what.items() if key not in ("rows", "alike")}
            world.ask(costs, texts=texts if what["alike"] else None, **rest)
        case "kill":
            world.kill()
        case _:
            getattr(world, kind)(what)


@given(st.integers(1, 3), st.lists(steps, max_size=40))
def test_any_sequence_keeps_the_rules(threads, sequence):
    """Nothing is lost, doubled, out of order or starved, and the bounds hold."""
    world = World(threads)
    for kind, what in sequence:
        do(world, kind, what)
    world.finish()


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_run_keeps_the_rules(seed):
    """The same, for thousands of steps at, above and far above what the threads can do."""
    chance = random.Random(seed)
    world = World(chance.choice((1, 2, 8)))
    try:
        for _ in range(STEPS):
            do(world, *step(chance, world.threads))
        world.finish()
    except BaseException as error:
        error.add_note(f"replay: SIMULATION_SEED={seed} SIMULATION_STEPS={STEPS}")
        raise
    assert world.shared
    assert set(world.outcomes) == {
        "computed", "failed", "cancelled", "late", "Overloaded", "DeadlineExceeded",
    }  # fmt: skip


CROWDS = {
    "many processes": lambda number: number % 600,
    "a fresh process each time": lambda number: number,
    "processes that ask again and again": lambda number: number % 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CROWDS)
@pytest.mark.parametrize("priority", ["interactive", "bulk"])
def test_a_user_with_many_processes_leaves_another_half_of_the_time(name, priority):
    """The other's only process is computed for as long as the crowd, whatever that asks for."""
    chance, queue = random.Random(5), Queue(QueueLimits(), threads=2)
    spent = {"crowd": 0, "other": 0}
    for number in range(1_000):
        rows = [chance.randint(1, LONGEST) for _ in range(chance.choice((1, 1, 20)))]
        with suppress(Overloaded):
            queue.push(job(*rows, user="crowd", peer=CROWDS[name](number), priority=priority))
        few = [chance.randint(1, LONGEST) for _ in range(2)]
        with suppress(Overloaded):
            queue.push(job(*few, user="other", peer="other", priority=priority))
        running, entry = queue.take(0.0)
        running.active -= 1
        queue.completed(entry.key, [])
        spent[entry.job.user] += entry.cost
    assert spent["other"] >= sum(spent.values()) / 2 - (MAX_COST + LONGEST)  # the batch in hand


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 9), rows), max_size=30),
    st.integers(1, 3),
)
def test_no_thread_idles_while_a_row_waits(asked, threads):
    """And each row comes out once, those of a process in order."""
    queue, pushed, out = Queue(QueueLimits(), threads), {}, {}
    for user, process, what in asked:
        costs, _ = zip(*what, strict=True)
        pushed.setdefault(f"{user}{process}", []).append(
            job(*costs, user=user, peer=f"{user}{process}")
        )
        queue.push(pushed[f"{user}{process}"][-1])
    for _ in range(sum(len(one.rows) for jobs in pushed.values() for one in jobs)):
        running, entry = queue.take(0.0)
        running.active -= 1
        queue.completed(entry.key, [])
        out.setdefault(entry.job.peer, []).append(entry)
    assert queue.take(0.0) is None
    assert out == {peer: [e for one in jobs for e in one.entries] for peer, jobs in pushed.items()}


def step(chance, threads):
    kind = chance.choices(("ask", "advance", "cancel", "kill"), (50, 45, 4, 0.1))[0]
    match kind:
        case "ask":
            return kind, request(chance)
        case "advance":
            return kind, chance.expovariate(threads / chance.choice((0.1, 0.3, 1.0)))
        case _:
            return kind, chance.randrange(100)


def request(chance):
    rows = chance.choice((1, 1, 1, 4, 25))
    costs = [chance.randint(1, chance.choice((2_000, LONGEST))) for _ in range(rows)]
    return {
        "rows": [(cost, chance.randrange(chance.choice((5, 500)))) for cost in costs],
        "alike": chance.random() < 0.5,
        "model": chance.choice("aaab"),
        "peer": chance.choice(["u/w", "u/w", "u/w", "u/x", "v/y", "z/z"]),
        "priority": chance.choice(("interactive", "bulk")),
        "timeout": chance.choice((0.1, 1.0, float("inf"))),
        "pace": chance.choice((0.5, 1.0, 1.0, 1.5, 20.0)),
        "poison": 0 if chance.random() < 0.02 else -1,
    }
