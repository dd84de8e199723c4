import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.scheduler.fair_queue import FairQueue
from sidecar.serving.scheduler.job import Usage

from ..jobs import job


def turns(*jobs):
    made = FairQueue()
    for each in jobs:
        made.push(each)
    return made


def taken(made, count=1000, model=None):
    rows = []
    while len(rows) < count and (entry := made.head(model)) is not None:
        made.take(entry)
        rows.append(entry)
    return rows


def peers(entries):
    return "".join(entry.job.peer for entry in entries)


def test_peers_take_turns():
    """Peers take turns, whoever came first and with however many rows."""
    made = turns(job(*[5] * 6, peer="a"), job(5, 5, peer="b"), job(5, peer="c"))
    assert peers(taken(made)) == "abcabaaaa"


def test_turns_are_by_cost():
    """Turns are weighted by cost: one row alternates with five that cost a fifth each."""
    made = turns(job(50, 50, peer="a"), job(*[10] * 10, peer="b"))
    assert peers(taken(made)) == "abbbbbabbbbb"


def test_of_two_that_have_had_as_much_the_first_to_have_it_is_next():
    """Of two peers that have been served the same, the one that reached it first is next."""
    made = turns(job(5, 5, 5, peer="a"), job(10, 10, peer="b"))
    assert peers(taken(made)) == "ababa"


def test_a_peer_that_comes_back_has_not_saved_up_turns():
    """A peer that comes later has not saved up any turns."""
    made = turns(job(*[5] * 8, peer="a"))
    taken(made, 4)
    made.push(job(*[5] * 3, peer="b"))
    assert peers(taken(made)) == "bababaa"


def test_a_peer_that_leaves_for_a_moment_takes_its_debt_along():
    """A peer that leaves for a moment keeps its debt when it comes back."""
    made = turns(job(50, peer="b"), job(*[5] * 14, peer="a"))
    assert peers(taken(made, 3)) == "baa"
    made.push(job(5, 5, peer="b"))
    assert peers(taken(made)) == "a" * 8 + "bab" + "a" * 3


def test_rows_of_one_peer_keep_their_order():
    """Rows of one peer keep their order across jobs and models."""
    first, second, third = job(5, 5), job(5, model="b"), job(5)
    rows = taken(turns(first, second, third))
    order = [(row.job, row.index) for row in rows]
    assert order == [(first, 0), (first, 1), (second, 0), (third, 0)]


def test_a_model_may_be_asked_for():
    """Taking rows of one model keeps the place of peers whose next row is another model's."""
    made = turns(job(5, 5, peer="a"), job(5, model="b", peer="b"), job(5, peer="c"))
    assert peers(taken(made, model="a")) == "aca"
    assert peers(taken(made)) == "b"


def test_what_others_are_served_in_the_meantime():
    """`cost_until` counts of every other peer no more than the peer itself has been served."""
    made = turns(job(100, peer="a"), job(10, peer="b"), job(10, 10, peer="c"))
    assert made.cost_until("c", 30) == 30 + 30 + 10
    assert made.cost_until("new", 5) == 20


def test_forgotten_peers_leave_nothing():
    """Peers whose rows were taken or dropped leave nothing behind."""
    gone = job(5, 5, peer="b")
    made = turns(job(5, peer="a"), gone, job(5, model="b", peer="c"))
    made.drop(gone)
    made.drop(gone)
    assert peers(taken(made)) == "ac"
    assert made.load == Usage()
    assert made.is_idle


def sizes(*loads):
    return [(load.rows, load.tokens, load.bytes, load.cost) for load in loads]


def test_what_leaves_takes_along_all_that_it_held():
    """A row that leaves takes its rows, tokens, bytes and cost off its process and user only."""
    made = FairQueue()
    made.push(stays := job(7, tokens=[9], row_bytes=1_000, user="u", peer="y"))
    made.push(job(3, tokens=[2], row_bytes=50, user="v", peer="z"))
    made.push(one := job(10, 20, 40, 80, tokens=[1, 2, 4, 8], row_bytes=100, user="u", peer="x"))
    held = made.load_of("x", "u"), made.load_of_user("u"), made.load
    assert sizes(*held) == [
        (4, 15, 4 * 100 + 16 * 15, 150),
        (5, 24, 1_400 + 16 * 24, 157),
        (6, 26, 1_450 + 16 * 26, 160),
    ]
    *_, third, _ = one.entries
    assert made.withdraw(third)
    assert sizes(made.load_of("x", "u")) == [(3, 11, 300 + 16 * 11, 110)]
    for _ in range(2):  # a row of each process, of whatever user
        made.take(made.head())
    made.take(made.head())
    assert (made.load_of_user("v"), made.load_of("y", "u")) == (Usage(), Usage())
    assert sizes(made.load_of("x", "u"), made.load) == [(2, 10, 200 + 16 * 10, 100)] * 2
    assert made.loads == {"x": made.load}
    made.drop(one)
    assert (made.load, made.loads) == (Usage(), {})
    assert not made.withdraw(next(stays.entries))


def test_a_row_leaves_once():
    """A row that has left cannot be withdrawn again, and the others keep their order."""
    made = turns(one := job(1, 1, 1, 1))
    first, second, third, last = one.entries
    made.take(first)
    assert made.withdraw(third)
    for gone in (first, third):
        assert not made.withdraw(gone)
    assert made.load.rows == 2
    assert taken(made) == [second, last]
    assert not made.withdraw(last)


def users(entries):
    return "".join(entry.job.user for entry in entries)


def test_users_take_turns_whatever_number_of_processes_they_have():
    """A user with three processes gets the same share as a user with one."""
    made = turns(*(job(*[5] * 4, user="m", peer=peer) for peer in "xyz"))
    made.push(job(*[5] * 4, user="o", peer="o"))
    rows = taken(made)
    assert users(rows) == "momomomo" + "m" * 8
    assert "".join(row.job.peer for row in rows if row.job.user == "m") == "xyz" * 4


def test_a_fresh_process_gains_its_user_nothing():
    """A user who starts a new process for every row gets no more than every second turn."""
    made = turns(job(*[5] * 20, user="o", peer="o"))
    rows = []
    for number in range(20):
        made.push(job(5, 5, user="m", peer=number))
        rows += taken(made, 1)
    assert users(rows) == "om" * 10


def test_a_user_who_comes_new_has_not_saved_up_turns():
    """Neither a new user nor a new process of a user has saved up any turns."""
    made = turns(job(*[5] * 9, user="u", peer="a"))
    taken(made, 4)
    made.push(job(5, 5, user="u", peer="b"))
    made.push(job(5, 5, user="v", peer="v"))
    rows = taken(made)
    assert users(rows) == "vuv" + "u" * 6
    assert "".join(row.job.peer for row in rows if row.job.user == "u") == "bab" + "a" * 4


def test_a_user_takes_his_debt_along():
    """A user keeps the debt even when coming back with another process."""
    made = turns(job(50, user="d", peer="d1"), job(*[5] * 14, user="u", peer="u"))
    taken(made, 3)
    made.push(job(5, user="d", peer="d2"))
    assert users(taken(made, 9)) == "u" * 8 + "d"


def test_a_user_stands_in_line_for_every_model_that_he_has_next():
    """A user waits for the models of all its processes, and is charged once across them."""
    made = turns(
        job(5, 5, user="u", peer="x", model="a"),
        job(5, 5, user="u", peer="y", model="b"),
        job(5, 5, user="v", peer="v", model="b"),
    )
    assert users(taken(made, 2, model="a")) == "uu"
    assert users(taken(made, 3, model="b")) == "vvu"
    assert users(taken(made)) == "u"


def test_a_debt_is_kept_though_another_model_is_asked_for():
    """A debt survives a request for a model that the user does not wait for."""
    made = turns(job(50, user="d", model="b"), job(*[5] * 10, user="u", model="a"))
    assert users(taken(made, 2)) == "du"
    assert made.head("b") is None
    made.push(job(5, user="d"))
    assert users(taken(made)) == "u" * 9 + "d"


@pytest.mark.parametrize(
    "leave",
    [
        FairQueue.drop,
        lambda made, one: made.withdraw(next(one.entries)),
        lambda made, one: made.take(next(one.entries)),
    ],
    ids=["dropped", "withdrawn", "taken"],
)
def test_the_next_model_is_in_line_once_what_was_before_it_has_left(leave):
    """A row of another model is next once the one before it is dropped, withdrawn or taken."""
    made = turns(first := job(5, model="a"), second := job(5, model="b"))
    leave(made, first)
    assert made.head("b") == next(second.entries)


def test_what_other_users_are_served_in_the_meantime():
    """`cost_until` includes a process's siblings, and as much of other users as its user had."""
    made = turns(
        job(100, user="u", peer="a"),
        job(10, user="u", peer="b"),
        job(70, user="v", peer="c"),
        job(20, user="w", peer="d"),
    )
    assert made.cost_until("a", 30, "u") == (30 + 10) + 40 + 20
    assert made.cost_until("new", 5, "new") == 20


def test_what_all_are_served_until_a_part_has_left():
    """`cost_until_part` is decided by the longest backlog of other users or own processes."""
    made = turns(
        job(100, user="u", peer="a"),
        job(30, user="u", peer="b"),
        job(80, user="v", peer="c"),
        job(300, user="w", peer="d"),
    )
    # Half of the longest: 50 of a's, with all of b's. v's 80 are served by the time w has had 150.
    assert made.cost_until_part(0.5, "u") == (50 + 30) + 80 + 150
    # A user with no backlog waits only for the others.
    assert made.cost_until_part(0.5, "new") == (80 + 130) + 150
    # The own process decides if it is the last: 270 of w's, then all of the others'.
    assert made.cost_until_part(0.9, "w") == 270 + 130 + 80
    assert turns(job(10, user="u")).cost_until_part(0.15, "v") == 2  # rounded up
    assert FairQueue().cost_until_part(1.0, "u") == 0


def test_forgotten_users_leave_nothing():
    """Users leave nothing behind, however their rows have left."""
    first, second = job(5, 5, user="u", peer="x"), job(5, user="v", peer="y", model="b")
    made = turns(first, second)
    made.drop(first)
    assert made.withdraw(next(second.entries))
    assert made.head() is None
    assert made.load == Usage()
    assert made.is_idle


costs = st.lists(st.integers(1, 100), min_size=1, max_size=12)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("wxyz"), costs),
        st.tuples(st.just("take"), st.none(), st.integers(1, 5)),
        st.tuples(st.just("drop"), st.none(), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(steps)
def test_peers_that_wait_are_served_alike(steps):
    """While two peers wait, neither is served more than the other by over one row of each."""
    made, jobs, served, longest = FairQueue(), [], {}, 100
    for kind, peer, what in steps:
        match kind:
            case "push":
                if not made.load_of(peer).rows:
                    served = dict.fromkeys(
                        "wxyz", 0
                    )  # the set of waiting peers has changed: start over
                jobs.append(job(*what, peer=peer))
                made.push(jobs[-1])
            case "take":
                for entry in taken(made, what):
                    served[entry.job.peer] += entry.cost
                    if not made.load_of(entry.job.peer).rows:
                        served = dict.fromkeys("wxyz", 0)
                    waiting = [served[each] for each in made.loads]
                    assert max(waiting, default=0) - min(waiting, default=0) <= 2 * longest
            case "drop" if what < len(jobs):
                made.drop(jobs[what])
                served = dict.fromkeys("wxyz", 0)
        assert made.load == sum(made.loads.values(), Usage())


pushes = st.lists(
    st.tuples(st.sampled_from("uvw"), st.integers(0, 3), st.sampled_from("mn"), costs), max_size=20
)


@given(pushes, st.data())
def test_everything_pushed_comes_out_once_and_in_order(pushed, data):
    """Every row comes out once and in order, whatever models are requested in between."""
    made, rows, per_process = FairQueue(), [], {}
    for user, process, model, what in pushed:
        new = job(*what, user=user, peer=(user, process), model=model)
        made.push(new)
        per_process.setdefault((user, process), []).extend(new.entries)
        rows += taken(made, data.draw(st.integers(0, 5)), data.draw(st.sampled_from([None, *"mn"])))
    rows += taken(made)
    assert len(rows) == sum(map(len, per_process.values()))
    for peer, entries in per_process.items():
        assert [entry for entry in rows if entry.job.peer == peer] == entries


@given(pushes)
def test_users_that_wait_are_served_alike(pushed):
    """While two users wait, or two processes of one, they differ by at most one row of each."""
    made = turns(*(job(*what, user=u, peer=(u, p), model=m) for u, p, m, what in pushed))
    of_users, of_processes = {}, {}
    waiting = set(made.loads)
    while rows := taken(made, 1):
        (user, process), cost = rows[0].job.peer, rows[0].cost
        if {u for u, _ in made.loads} != {u for u, _ in waiting}:
            of_users = {}
        if set(made.loads) != waiting:
            of_processes = {}
        waiting = set(made.loads)
        of_users[user] = of_users.get(user, 0) + cost
        of_processes[user, process] = of_processes.get((user, process), 0) + cost
        shares = [of_users.get(u, 0) for u in {u for u, _ in waiting}]
        assert max(shares, default=0) - min(shares, default=0) <= 2 * 100
        for user in {u for u, _ in waiting}:
            shares = [of_processes.get(each, 0) for each in waiting if each[0] == user]
            assert max(shares) - min(shares) <= 2 * 100
