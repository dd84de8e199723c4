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
    """Whoever asked first and for how much does not matter."""
    made = turns(job(*[5] * 6, peer="a"), job(5, 5, peer="b"), job(5, peer="c"))
    assert peers(taken(made)) == "abcabaaaa"


def test_turns_are_by_cost():
    """While one peer has a row, another has five that cost a fifth."""
    made = turns(job(50, 50, peer="a"), job(*[10] * 10, peer="b"))
    assert peers(taken(made)) == "abbbbbabbbbb"


def test_of_two_that_have_had_as_much_the_first_to_have_it_is_next():
    """Whichever of them came first."""
    made = turns(job(5, 5, 5, peer="a"), job(10, 10, peer="b"))
    assert peers(taken(made)) == "ababa"


def test_a_peer_that_comes_back_has_not_saved_up_turns():
    """It takes turns from then on."""
    made = turns(job(*[5] * 8, peer="a"))
    taken(made, 4)
    made.push(job(*[5] * 3, peer="b"))
    assert peers(taken(made)) == "bababaa"


def test_a_peer_that_leaves_for_a_moment_takes_its_debt_along():
    """What it had counts when it comes back."""
    made = turns(job(50, peer="b"), job(*[5] * 14, peer="a"))
    assert peers(taken(made, 3)) == "baa"
    made.push(job(5, 5, peer="b"))
    assert peers(taken(made)) == "a" * 8 + "bab" + "a" * 3


def test_rows_of_one_peer_keep_their_order():
    """Over jobs and models."""
    first, second, third = job(5, 5), job(5, model="b"), job(5)
    rows = taken(turns(first, second, third))
    order = [(row.job, row.index) for row in rows]
    assert order == [(first, 0), (first, 1), (second, 0), (third, 0)]


def test_a_model_may_be_asked_for():
    """Peers whose next row is another's keep their place."""
    made = turns(job(5, 5, peer="a"), job(5, model="b", peer="b"), job(5, peer="c"))
    assert peers(taken(made, model="a")) == "aca"
    assert peers(taken(made)) == "b"


def test_what_others_are_served_in_the_meantime():
    """Until a peer has had 30, nobody else has more than 30."""
    made = turns(job(100, peer="a"), job(10, peer="b"), job(10, 10, peer="c"))
    assert made.cost_until("c", 30) == 30 + 30 + 10
    assert made.cost_until("new", 5) == 20


def test_forgotten_peers_leave_nothing():
    """Neither those that are done nor those whose jobs were dropped."""
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
    """Rows, tokens, bytes and cost of its process and its user; those of others stay."""
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
    """Taken or withdrawn, it is no more there to be withdrawn, and the others stay in order."""
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
    """Three processes of one have together what the only one of another has."""
    made = turns(*(job(*[5] * 4, user="m", peer=peer) for peer in "xyz"))
    made.push(job(*[5] * 4, user="o", peer="o"))
    rows = taken(made)
    assert users(rows) == "momomomo" + "m" * 8
    assert "".join(row.job.peer for row in rows if row.job.user == "m") == "xyz" * 4


def test_a_fresh_process_gains_its_user_nothing():
    """He starts one for every row; the other's only process has every second turn."""
    made = turns(job(*[5] * 20, user="o", peer="o"))
    rows = []
    for number in range(20):
        made.push(job(5, 5, user="m", peer=number))
        rows += taken(made, 1)
    assert users(rows) == "om" * 10


def test_a_user_who_comes_new_has_not_saved_up_turns():
    """Nor has a process that does, among those of its user."""
    made = turns(job(*[5] * 9, user="u", peer="a"))
    taken(made, 4)
    made.push(job(5, 5, user="u", peer="b"))
    made.push(job(5, 5, user="v", peer="v"))
    rows = taken(made)
    assert users(rows) == "vuv" + "u" * 6
    assert "".join(row.job.peer for row in rows if row.job.user == "u") == "bab" + "a" * 4


def test_a_user_takes_his_debt_along():
    """Though it is another process that he comes back with."""
    made = turns(job(50, user="d", peer="d1"), job(*[5] * 14, user="u", peer="u"))
    taken(made, 3)
    made.push(job(5, user="d", peer="d2"))
    assert users(taken(made, 9)) == "u" * 8 + "d"


def test_a_user_stands_in_line_for_every_model_that_he_has_next():
    """By different processes; and is charged for one what he had of the other."""
    made = turns(
        job(5, 5, user="u", peer="x", model="a"),
        job(5, 5, user="u", peer="y", model="b"),
        job(5, 5, user="v", peer="v", model="b"),
    )
    assert users(taken(made, 2, model="a")) == "uu"
    assert users(taken(made, 3, model="b")) == "vvu"
    assert users(taken(made)) == "u"


def test_a_debt_is_kept_though_another_model_is_asked_for():
    """Whoever is forgotten in its line comes back no earlier than he would have been served."""
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
    """However it has left."""
    made = turns(first := job(5, model="a"), second := job(5, model="b"))
    leave(made, first)
    assert made.head("b") == next(second.entries)


def test_what_other_users_are_served_in_the_meantime():
    """A process that has had 30 has a user who has had more, and others have as much as he."""
    made = turns(
        job(100, user="u", peer="a"),
        job(10, user="u", peer="b"),
        job(70, user="v", peer="c"),
        job(20, user="w", peer="d"),
    )
    assert made.cost_until("a", 30, "u") == (30 + 10) + 40 + 20
    assert made.cost_until("new", 5, "new") == 20


def test_what_all_are_served_until_a_part_has_left():
    """Of each other user's and of each own process's; whoever has most is the last."""
    made = turns(
        job(100, user="u", peer="a"),
        job(30, user="u", peer="b"),
        job(80, user="v", peer="c"),
        job(300, user="w", peer="d"),
    )
    # Half of the longest: 50 of a's, with all of b's. v has had his 80 by 150 of w's.
    assert made.cost_until_part(0.5, "u") == (50 + 30) + 80 + 150
    # To whom nothing is left to wait for of his own.
    assert made.cost_until_part(0.5, "new") == (80 + 130) + 150
    # Own processes decide where they are the last: 90 and 30, then as much of each other's.
    assert made.cost_until_part(0.9, "w") == 270 + 130 + 80
    assert turns(job(10, user="u")).cost_until_part(0.15, "v") == 2  # rounded up
    assert FairQueue().cost_until_part(1.0, "u") == 0


def test_forgotten_users_leave_nothing():
    """However their rows have left."""
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
    """While two wait, neither is served more than the other by over a row of each."""
    made, jobs, served, longest = FairQueue(), [], {}, 100
    for kind, peer, what in steps:
        match kind:
            case "push":
                if not made.load_of(peer).rows:
                    served = dict.fromkeys("wxyz", 0)  # who waits has changed: count afresh
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
    """Whatever models are asked for in between, and whatever is pushed meanwhile."""
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
    """While two wait, neither has more than the other by over a row of each; so have processes."""
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
