from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.job import Load
from sidecar.serving.turns import Turns

from .jobs import job


def turns(*jobs):
    made = Turns()
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
    assert (made.load, list(made._users), list(made._users.kinds)) == (Load(), [], [])


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
    made, jobs, served, longest = Turns(), [], {}, 100
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
        assert made.load == sum(made.loads.values(), Load())
