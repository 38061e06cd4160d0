"""asyncio: many streams on one model; cancelling stops the work."""

import asyncio
import gc
import sys
import threading
import time
import types
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastllm
from fastllm import _native
from fastllm.background import in_thread
from fastllm.stream import _Loop

STORY = "Once upon a time"


async def idle(model, seconds=60):
    """Whether all sequences of a model are free, soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if model.stats().running + model.stats().waiting == 0:
            return True
        await asyncio.sleep(0.002)
    return False


def test_without_asyncio_the_error_says_so(model, monkeypatch):
    def begin(coroutine):
        try:
            coroutine.send(None)
        finally:
            coroutine.close()

    for call in (model.agenerate(STORY), model.agenerate([STORY]), model.achat([{"role": "user", "content": "Hi"}])):
        with pytest.raises(fastllm.EventLoopError, match="need a running asyncio event loop"):
            begin(call)
    # What trio tells anyio's detector about itself.
    detector = types.ModuleType("sniffio")
    detector.AsyncLibraryNotFoundError = LookupError
    detector.current_async_library = lambda: "trio"
    monkeypatch.setitem(sys.modules, "sniffio", detector)
    with pytest.raises(RuntimeError, match="need asyncio, and trio is running"):
        begin(model.agenerate(STORY))


async def test_control_tokens_in_raw_prompts(model):
    prompt = "<|im_start|>user\nHi<|im_end|>\n"
    for options, special in (({}, True), ({"parse_special": False}, False)):
        count = len(model.tokenizer.encode(prompt, parse_special=special))
        assert (await model.agenerate(prompt, max_tokens=1, **options)).usage.prompt_tokens == count
        assert (await model.agenerate([prompt], max_tokens=1, **options))[0].usage.prompt_tokens == count
        assert (await model.astream(prompt, max_tokens=1, **options).result()).usage.prompt_tokens == count


async def test_the_async_stream_is_the_stream(model):
    expected = model.generate(STORY, max_tokens=50, temperature=0.9, seed=4)
    stream = model.astream(STORY, max_tokens=50, temperature=0.9, seed=4)
    text = "".join([chunk.text async for chunk in stream])
    assert text == expected.text == (await stream.result()).text
    assert (await model.agenerate(STORY, max_tokens=50, temperature=0.9, seed=4)).token_ids == expected.token_ids


async def test_many_streams_at_once_are_each_what_they_are_alone(model):
    prompts = [f"{STORY} there was a {name}" for name in ("cat", "dog", "bird", "fox", "bear")] * 20

    async def tell(prompt):
        return "".join([chunk.text async for chunk in model.astream(prompt, max_tokens=30, temperature=0)])

    texts = await asyncio.gather(*map(tell, prompts))
    alone = [model.generate(p, max_tokens=30, temperature=0).text for p in prompts[:5]]
    assert texts == alone * 20


async def test_a_list_of_prompts(model):
    results = await model.agenerate([STORY] * 300, max_tokens=3, temperature=0)
    assert len(results) == 300
    assert len({r.token_ids for r in results}) == 1


async def test_chat(model):
    messages = [{"role": "user", "content": "Hello!"}]
    expected = model.chat(messages, temperature=0).content
    assert (await model.achat(messages, temperature=0)).content == expected
    assert "".join([chunk.content async for chunk in model.achat_stream(messages, temperature=0)]) == expected


async def test_the_loop_stays_free():
    """Other tasks run while prompts are read and texts are written: neither would end by itself before them."""
    with fastllm.Model.demo(context_length=1 << 18) as model:
        work = [
            asyncio.create_task(model.agenerate([[5] * 200_000] * 2)),
            asyncio.create_task(model.agenerate([STORY] * 14, ignore_eos=True)),
        ]
        while model.stats().running == 0:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        assert await idle(model)


async def test_cancelling_the_task_stops_the_work(model):
    task = asyncio.create_task(model.agenerate([[5] * 8] * 100, ignore_eos=True, timeout=60))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await idle(model)


async def test_leaving_the_loop_stops_the_work(model):
    stream = model.astream(STORY, ignore_eos=True)
    async for _ in stream:
        break
    assert await idle(model)
    assert (await stream.result()).finish_reason == "cancelled"
    async with model.astream(STORY, ignore_eos=True) as stream:
        await anext(stream)
    assert await idle(model)


async def test_dropping_a_stream_stops_the_work_and_leaves_nothing(model):
    stream = model.astream(STORY, ignore_eos=True)
    await anext(stream)
    del stream
    gc.collect()
    assert await idle(model)
    assert asyncio.get_running_loop() not in _Loop._all


async def test_wait_for_gives_up(model):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(model.agenerate([[5] * 400] * 200, ignore_eos=True), timeout=0.05)
    assert await idle(model)


async def test_errors(model):
    with pytest.raises(fastllm.ContextOverflowError):
        await model.agenerate([5] * 600)
    with pytest.raises(fastllm.ContextOverflowError):
        await model.agenerate([STORY, [5] * 600])
    banned = dict.fromkeys(range(1024), float("-inf"))
    stream = model.astream(STORY, logit_bias=banned)
    with pytest.raises(fastllm.SamplingError):
        await stream.result()
    with pytest.raises(fastllm.InternalError):
        await stream.result()
    gc.collect()
    assert await idle(model)
    assert asyncio.get_running_loop() not in _Loop._all


async def test_a_stream_can_be_cancelled_before_it_starts(model):
    stream = model.astream(STORY, ignore_eos=True)
    stream.cancel()
    assert (await stream.result()).finish_reason == "cancelled"


async def test_a_long_prompt_is_tokenized_beside_the_loop(model):
    with pytest.raises(fastllm.ContextOverflowError):
        await model.agenerate("word " * 50_000)


def test_one_model_serves_one_loop_after_the_other(model):
    async def once():
        return (await model.agenerate(STORY, max_tokens=5, temperature=0)).text

    assert len({asyncio.run(once()) for _ in range(5)}) == 1


async def test_a_thread_wakes_a_loop_that_cannot_wait_for_pipes(model):
    loop = asyncio.get_running_loop()
    bridge = object.__new__(_Loop)
    bridge._loop, bridge._streams, bridge.waker, bridge._descriptor = weakref.ref(loop), set(), _native.Waker(), None
    watcher = threading.Thread(target=bridge._watch, daemon=True)
    watcher.start()
    _Loop._all[loop] = bridge
    alone = model.generate(STORY, max_tokens=12, temperature=0)
    assert (await model.agenerate(STORY, max_tokens=12, temperature=0)).text == alone.text
    watcher.join(60)
    assert not watcher.is_alive()


# Work beside the loop


@pytest.mark.parametrize("text", ["helloworld" * 600_000, "many words " * 600_000])
async def test_a_text_that_nobody_waits_for_is_not_tokenized(model, text):
    """One piece as long as the text, and many short ones: both are given up in the middle."""
    ended = []

    def encode():
        try:
            # Far longer than the wait below, however fast the machine is or late the loop.
            for _ in range(1000):
                model.tokenizer.encode(text)
        except fastllm.CancelledError as error:
            ended.append(error)
        else:
            ended.append(None)

    work = asyncio.ensure_future(in_thread(encode))
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    # The cancellation came when the thread was done, and no sooner.
    assert len(ended) == 1
    assert isinstance(ended[0], fastllm.CancelledError)


async def test_work_that_was_given_up_before_it_began_never_begins():
    loop, begun = asyncio.get_running_loop(), threading.Event()
    release = threading.Event()
    workers = ThreadPoolExecutor(1)
    loop.set_default_executor(workers)
    first = asyncio.ensure_future(in_thread(release.wait))
    second = asyncio.ensure_future(in_thread(begun.set))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0.01)
    release.set()
    assert await first
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not begun.is_set()


async def test_a_thread_that_cannot_start_is_a_lack_of_memory(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(fastllm.OutOfMemoryError, match="no thread can be started"):
            await in_thread(print)
