"""OpenAI's clients without a server."""

import asyncio
import gc
import threading

import pytest

import fastllm
from fastllm.stream import _Loop

from .conftest import HELLO, NAME

openai = pytest.importorskip("openai", reason="needs openai: pip install 'fastllm[openai]'")
ENDLESS = {"model": NAME, "messages": HELLO, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def client(model):
    with fastllm.openai(model) as client:
        yield client


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(("fastllm-client", "asyncio"))]


def wait(condition):
    import time

    for _ in range(400):
        gc.collect()
        if condition():
            return True
        time.sleep(0.005)
    return False


def idle(model):
    return model._engine.stats()[:2] == (0, 0) and not _Loop._all


def test_chat_and_stream(client, model):
    expected = model.chat(HELLO, temperature=0).content
    reply = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0)
    assert isinstance(client, openai.OpenAI)
    assert reply.choices[0].message.content == expected
    stream = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=HELLO)


def test_streams_stream_and_closing_one_stops_the_work():
    with fastllm.Model.demo(context_length=100_000) as model, fastllm.openai(model) as client:
        stream = client.chat.completions.create(**ENDLESS, stream=True)
        next(stream)
        assert sum(model._engine.stats()[:2]) == 1
        stream.close()
        assert wait(lambda: idle(model))
        stream = client.chat.completions.create(**ENDLESS, stream=True)
        next(stream)
        del stream
        assert wait(lambda: idle(model))


def test_a_client_leaves_nothing_behind(model):
    before = threads()
    client = fastllm.openai(model)
    assert threads() == before
    client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=2)
    assert len(threads()) > len(before)
    del client
    assert wait(lambda: threads() == before)
    client = fastllm.openai(model)
    stream = client.chat.completions.create(**ENDLESS, stream=True)
    next(stream)
    client.close()
    assert wait(lambda: threads() == before)
    assert wait(lambda: idle(model))
    with pytest.raises(RuntimeError, match="closed"):
        client.with_options(max_retries=0).models.list()


def test_threads_share_a_client(client, model):
    expected = model.chat(HELLO, temperature=0).content
    texts = []

    def ask():
        texts.append(
            client.chat.completions.create(model=NAME, messages=HELLO, temperature=0).choices[0].message.content
        )

    workers = [threading.Thread(target=ask) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert texts == [expected] * 8


async def test_async(model):
    expected = model.chat(HELLO, temperature=0).content
    async with fastllm.async_openai(model) as client:
        assert isinstance(client, openai.AsyncOpenAI)
        calls = [client.chat.completions.create(model=NAME, messages=HELLO, temperature=0) for _ in range(20)]
        assert {reply.choices[0].message.content for reply in await asyncio.gather(*calls)} == {expected}
        stream = await client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == expected
        stream = await client.chat.completions.create(**ENDLESS, stream=True)
        await anext(stream)
        await stream.close()
        assert wait(lambda: idle(model))
        task = asyncio.ensure_future(client.chat.completions.create(**ENDLESS))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert wait(lambda: idle(model))


def test_one_async_client_serves_one_loop_after_the_other(model):
    client = fastllm.async_openai(model)

    async def once():
        reply = await client.chat.completions.create(model=NAME, messages=HELLO, temperature=0)
        return reply.choices[0].message.content

    assert len({asyncio.run(once()) for _ in range(3)}) == 1
    assert not _Loop._all


def test_several_models_by_name(model):
    with fastllm.openai({"a": model, "b": model}) as client:
        assert [one.id for one in client.models.list()] == ["a", "b"]
        assert client.chat.completions.create(model="b", messages=HELLO, max_tokens=1).model == "b"


def test_timeouts_are_kept():
    with (
        fastllm.Model.demo(context_length=100_000) as model,
        fastllm.openai(model, max_retries=0, timeout=0.05) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**ENDLESS)
        assert wait(lambda: idle(model))


@pytest.mark.parametrize("wrong", [{}, {"a": 1}, "model.gguf"])
def test_wrong_models(wrong):
    with pytest.raises((TypeError, ValueError)):
        fastllm.openai(wrong)


def test_an_address_of_ones_own_is_refused(model):
    with pytest.raises(TypeError, match="base_url"):
        fastllm.openai(model, base_url="http://localhost")


def test_without_the_extra_the_error_says_what_to_install(model, monkeypatch):
    monkeypatch.setattr("fastllm.server.find_spec", lambda _: None)
    with pytest.raises(fastllm.MissingExtraError, match=r"pip install 'fastllm\[server\]'"):
        fastllm.openai(model)
