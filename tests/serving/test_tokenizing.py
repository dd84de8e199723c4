import asyncio
import threading

import pytest

from sidecar.serving.tokenizing import Tokenizer, _slices


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
