import asyncio
import threading

import pytest

from sidecar.serving.tokenizing import _OVERTAKING, Tokenizer, Turnstile, _slices


async def queued(turnstile, order, *names):
    """Tasks that wait for their turn, by name; "b" is bulk."""

    async def pass_through(name):
        await turnstile.enter("bulk" if name == "b" else "interactive")
        order.append(name)
        turnstile.leave()

    tasks = [asyncio.create_task(pass_through(name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_interactive_slices_overtake_bulk_ones():
    """Each in its lane in order of arrival."""
    turnstile, order = Turnstile(), []
    await turnstile.enter("interactive")
    tasks = await queued(turnstile, order, "b", "x", "y", "b", "z")
    turnstile.leave()
    await asyncio.gather(*tasks)
    assert order == ["x", "y", "z", "b", "b"]


async def test_a_bulk_slice_is_overtaken_a_few_times_only():
    """After that it is its turn, however many interactive ones keep coming."""
    turnstile, order = Turnstile(), []
    await turnstile.enter("interactive")
    tasks = await queued(turnstile, order, "b", *map(str, range(40)))
    turnstile.leave()
    await asyncio.gather(*tasks)
    assert 0 < order.index("b") <= _OVERTAKING


async def test_whoever_is_cancelled_in_turn_lets_the_next_one_in():
    """Cancelled before its turn, or in the moment in which it comes."""
    turnstile, order = Turnstile(), []
    await turnstile.enter("interactive")
    waiting, coming, last = await queued(turnstile, order, "x", "y", "z")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    turnstile.leave()
    coming.cancel()
    await asyncio.gather(coming, last, return_exceptions=True)
    assert order == ["z"]
    await turnstile.enter("bulk")


@pytest.mark.parametrize("lengths", [[1], [10_001], [9_000, 1_000, 1], [20_000, 1, 1], [4_000] * 6])
def test_slices_are_a_text_and_what_fits(lengths):
    """They cover everything in order; more than one text is never over the bound."""
    texts = ["x" * length for length in lengths]
    slices = [list(some) for some in _slices(texts)]
    assert [text for some in slices for text in some] == texts
    assert all(len(some) == 1 or sum(map(len, some)) <= 10_000 for some in slices)


async def test_a_short_text_does_not_wait_for_a_long_request(tiny):
    """It goes between two slices of it."""
    model = tiny(max_tokens=100_000)
    tokenizer, begun, go = Tokenizer(model), asyncio.Event(), threading.Event()
    loop, order = asyncio.get_running_loop(), []

    def tokenize(texts):
        order.append(texts[0][0])
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(20)
        return []

    model.tokenize = tokenize
    long = asyncio.create_task(tokenizer.rows(["a" * 9_000, "b" * 9_000, "c" * 9_000], "bulk"))
    await begun.wait()
    short = asyncio.create_task(tokenizer.rows(["x"], "interactive"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(long, short)
    await tokenizer.stop()
    assert order == [*"axbc"]


async def test_a_stopped_tokenizer_holds_its_model_no_longer(tiny):
    """Nor does what its thread was computing for a request that has been given up."""
    model = tiny(name="given-up", max_tokens=100_000)
    tokenizer, begun, go = Tokenizer(model), threading.Event(), threading.Event()
    ended = []

    def tokenize(texts):
        begun.set()
        assert go.wait(20)
        ended.append(len(texts))
        return []

    model.tokenize = tokenize
    request = asyncio.create_task(tokenizer.rows(["a" * 9_000], "bulk"))
    assert await asyncio.to_thread(begun.wait, 20)
    request.cancel()
    stopping = asyncio.create_task(tokenizer.stop())
    await asyncio.gather(request, return_exceptions=True)
    assert not stopping.done()
    go.set()
    await stopping
    assert ended == [1]
    assert f"tokenize-{model.name}" not in "".join(t.name for t in threading.enumerate())
