import asyncio
import threading

import pytest

from sidecar.serving.engine.tokenizer_pool import TokenizerPool, _slices


@pytest.mark.parametrize("lengths", [[1], [10_001], [9_000, 1_000, 1], [20_000, 1, 1], [4_000] * 6])
def test_slices_are_a_text_and_what_fits(lengths):
    """Slices cover all texts in order, and a slice of several texts never exceeds the limit."""
    texts = ["x" * length for length in lengths]
    slices = [list(part) for part in _slices(texts)]
    assert [text for part in slices for text in part] == texts
    assert all(len(part) == 1 or sum(map(len, part)) <= 10_000 for part in slices)


def test_both_texts_of_a_pair_count():
    """Both texts of a pair, and the prompt before each text, count towards a slice."""
    pairs = [("q" * 4_000, "d" * 4_000)] * 3
    assert [list(part) for part in _slices(pairs)] == [[pair] for pair in pairs]
    texts = ["x" * 2_000] * 3
    assert [list(part) for part in _slices(texts, "p" * 6_000)] == [[text] for text in texts]
    assert [list(part) for part in _slices(texts)] == [texts]


def held_back(model):
    """Block tokenizing by `model` until `go`; return `begun`, `go` and what it was given."""
    begun, go, order = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def tokenize(texts):
        order.append(texts[0][0])
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(20)
        return []

    model.tokenize = tokenize
    return begun, go, order


async def test_a_short_text_does_not_wait_for_a_long_request(tiny):
    """A short text is tokenized between two slices of a long request."""
    model = tiny(max_tokens=100_000)
    tokenizer, (begun, go, order) = TokenizerPool(model), held_back(model)
    long = asyncio.create_task(tokenizer.rows(["a" * 9_000, "b" * 9_000, "c" * 9_000], "bulk"))
    await begun.wait()
    short = asyncio.create_task(tokenizer.rows(["x"], "interactive"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(long, short)
    await tokenizer.stop()
    assert order == [*"axbc"]


async def test_short_texts_do_not_wait_for_a_long_one(tiny):
    """A long text has its own thread, so shorter texts of any request are tokenized meanwhile."""
    model = tiny(max_tokens=100_000)
    tokenizer, begun, go = TokenizerPool(model), threading.Event(), threading.Event()
    tokenize, threads = model.tokenize, set()

    def held(texts):
        threads.add(threading.get_ident())
        if len(texts[0]) > 10_000:
            begun.set()
            assert go.wait(20)
        return tokenize(texts)

    model.tokenize = held
    long = asyncio.create_task(tokenizer.rows(["a" * 20_000], "interactive"))
    assert await asyncio.to_thread(begun.wait, 20)
    assert [row.tokens for row in await tokenizer.rows(["x"], "interactive")] == [1]
    assert threading.get_ident() not in threads  # a model may allow only one caller at a time
    rows = await tokenizer.rows(["y" * 3_000] * 4, "bulk", user="another")
    assert [row.tokens for row in rows] == [3_000] * 4
    assert not long.done()
    go.set()
    assert [row.tokens for row in await long] == [20_000]
    await tokenizer.stop()


@pytest.mark.parametrize("texts", [[""] * 2_048, ["ab"] * 200, ["x" * 500]])
async def test_the_loop_tokenizes_little(tiny, texts):
    """Only short requests are tokenized on the event loop; even empty texts have a cost."""
    model, threads = tiny(max_tokens=100_000), set()
    tokenize = model.tokenize

    def recorded(part):
        threads.add(threading.get_ident())
        return tokenize(part)

    model.tokenize = recorded
    tokenizer = TokenizerPool(model)
    assert len(await tokenizer.rows(texts, "interactive")) == len(texts)
    assert threading.get_ident() not in threads
    await tokenizer.rows(["a short query"], "interactive")
    assert threading.get_ident() in threads
    await tokenizer.stop()


async def test_what_was_tokenized_on_the_loop_leaves_the_threads_free(tiny):
    """Tokenizing on the event loop leaves both threads free, and theirs leaves the loop free."""
    model, threads = tiny(max_tokens=100_000), []
    tokenize = model.tokenize

    def recorded(part):
        threads.append(threading.get_ident())
        return tokenize(part)

    model.tokenize = recorded
    tokenizer = TokenizerPool(model)
    async with asyncio.timeout(20):
        for length in (3, 3_000, 3, 20_000, 3):
            (row,) = await tokenizer.rows(["x" * length], "interactive")
            assert row.tokens == length
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False, True, False, True]
    await tokenizer.stop()


@pytest.mark.parametrize("length", [3, 3_000, 20_000])
async def test_a_text_that_cannot_be_tokenized_holds_up_no_other(tiny, length):
    """A tokenizing error, on the loop or on either thread, does not block the next text."""
    model = tiny(max_tokens=100_000)
    tokenizer, tokenize = TokenizerPool(model), model.tokenize

    def failing(texts):
        if "!" in texts[0]:
            raise ValueError(texts[0][0])
        return tokenize(texts)

    model.tokenize = failing
    async with asyncio.timeout(20):
        for _ in range(3):
            with pytest.raises(ValueError, match="!"):
                await tokenizer.rows(["!" * length], "interactive")
            assert len(await tokenizer.rows(["x" * length], "interactive")) == 1
    await tokenizer.stop()


@pytest.mark.parametrize("length", [3, 4_500, 12_000])
async def test_a_prompt_is_put_before_a_text_where_it_is_tokenized(tiny, length):
    """Prompts are prepended slice by slice and yield the same rows as prompted texts."""
    model, slices = tiny(max_tokens=100_000), []
    texts = [letter * length for letter in "abcdefg"]
    prompt = "query: " * 90
    expected = model.tokenize([prompt + text for text in texts])
    tokenize = model.tokenize

    def recorded(part):
        slices.append(sum(map(len, part)))
        return tokenize(part)

    model.tokenize = recorded
    tokenizer = TokenizerPool(model)
    rows = await tokenizer.rows(texts, "bulk", prompt=prompt)
    assert [row.digest for row in rows] == [row.digest for row in expected]
    assert max(slices) <= max(10_000, len(prompt) + length)
    await tokenizer.stop()


async def test_a_user_s_many_slices_do_not_hold_up_another_user(tiny):
    """A user's slices alternate with another user's, however many requests wait."""
    model = tiny(max_tokens=100_000)
    tokenizer, (begun, go, order) = TokenizerPool(model), held_back(model)
    tasks = [
        asyncio.create_task(tokenizer.rows(["m" * 9_000] * 2, "interactive", user="m"))
        for _ in range(5)
    ]
    await begun.wait()
    tasks.append(asyncio.create_task(tokenizer.rows(["o" * 9_000] * 2, "bulk", user="o")))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    await tokenizer.stop()
    assert "".join(order) == "momo" + "m" * 8


async def test_users_take_turns_by_characters(tiny):
    """Users take turns by characters: one slice of 9,000 alternates with three of 3,000."""
    model = tiny(max_tokens=100_000)
    tokenizer, (begun, go, order) = TokenizerPool(model), held_back(model)
    tasks = [asyncio.create_task(tokenizer.rows(["-" * 9_000], "bulk", user="-"))]
    await begun.wait()
    for user, length, times in (("m", 9_000, 3), ("o", 3_000, 6)):
        tasks += [
            asyncio.create_task(tokenizer.rows([user * length], "interactive", user=user))
            for _ in range(times)
        ]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    await tokenizer.stop()
    assert "".join(order) == "-" + "mooo" * 2 + "m"


async def test_a_stopped_tokenizer_holds_its_model_no_longer(tiny):
    """Stopping a tokenizer waits for its thread, even if that works for a cancelled request."""
    model = tiny(name="given-up", max_tokens=100_000)
    tokenizer, begun, go = TokenizerPool(model), threading.Event(), threading.Event()
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
