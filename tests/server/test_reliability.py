"""What breaks beside a request: the model, the code, memory, disks, the process. Other requests notice nothing."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import gguf
import httpx
import pytest

from fastllm.server import generate
from fastllm.server.app import create_app

from .conftest import HELLO, Server, Watchdog, command, http, read_all, serve
from .test_faults import CHAT, ENDLESS, running, until

ASK = {"messages": HELLO, "max_tokens": 20, "temperature": 0}


def content(reply):
    return reply["choices"][0]["message"]["content"]


# The model


def spoiled(source, target, value):
    """A copy of a model of which one number of the last norm is another one: all its logits are NaN."""
    shutil.copyfile(source, target)
    reader = gguf.GGUFReader(target, "r+")
    norm = next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight")
    norm.data[3] = value
    reader.data.flush()
    return target


@pytest.fixture(scope="module")
def broken(demo_path, tmp_path_factory):
    """A server of a good model and two whose logits are no numbers."""
    folder = tmp_path_factory.mktemp("models")
    nan, inf = (spoiled(demo_path, folder / f"{value}.gguf", float(value)) for value in ("nan", "inf"))
    with serve(f"good={demo_path}", nan, inf) as server:
        yield server


@pytest.mark.parametrize("model", ["nan", "inf"])
@pytest.mark.parametrize("fields", [{}, {"temperature": 1}, {"logprobs": True, "top_logprobs": 5}, {"n": 3}])
def test_logits_that_are_no_numbers_are_an_error_of_that_request(broken, model, fields):
    expected = content(broken.post(CHAT, {**ASK, "model": "good"})[1])
    body = {**ASK, "model": model, **fields}
    for _ in range(3):
        status, reply = broken.post(CHAT, body)
        assert (status, reply["error"]["type"], reply["error"]["code"]) == (500, "server_error", "no_token_left")
    with broken.connect(http(CHAT, {**body, "stream": True}, ["Connection: close"])) as connection:
        answer = read_all(connection)
    last = json.loads(answer.split(b"data: ")[-1].partition(b"\n\n")[0])
    assert last["error"]["code"] == "no_token_left"
    status, reply = broken.post("/v1/messages", {"messages": HELLO, "max_tokens": 5, "model": model})
    assert (status, reply["error"]["type"]) == (500, "api_error")
    assert broken.idle() < 2
    assert content(broken.post(CHAT, {**ASK, "model": "good"})[1]) == expected


def test_a_model_without_numbers_harms_no_stream_of_another(broken):
    body = {**ASK, "model": "good", "max_tokens": 1000, "ignore_eos": True}
    expected = content(broken.post(CHAT, body)[1])
    results = []
    worker = threading.Thread(target=lambda: results.append(broken.post(CHAT, body)))
    worker.start()
    while worker.is_alive():
        assert broken.post(CHAT, {**ASK, "model": "nan"})[0] == 500
    worker.join()
    assert content(results[0][1]) == expected


# The code


def places(model):
    """Functions that a request passes through, from the first to the last."""
    stream = type(model.achat_stream(HELLO))
    return {"build": (generate, "_params"), "start": (stream, "start"), "take": (stream, "__anext__"), "end": (stream, "result")}


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, RecursionError])
@pytest.mark.parametrize("place", ["build", "start", "take", "end"])
async def test_a_mistake_in_one_request_is_no_mistake_in_the_next(model, monkeypatch, place, kind):
    app = create_app({"m": model})

    def fail(*_):
        raise kind("the secret")

    async def fail_later(*_):
        fail()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        expected = content((await client.post(CHAT, json=ASK)).json())
        for stream in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(*places(model)[place], fail if place == "build" else fail_later)
                response = await client.post(CHAT, json={**ASK, "stream": stream})
            assert response.status_code == (200 if stream and place in {"take", "end"} else 500)
            assert '"internal_error"' in response.text
            assert "secret" not in response.text
            assert until(lambda: model.stats().running == model.stats().waiting == 0, 1)
            assert content((await client.post(CHAT, json=ASK)).json()) == expected
        assert not app.state.service._admitted["m"]


# Memory


def data_bytes(server):
    """Bytes of memory of its own that a process has asked for: what RLIMIT_DATA limits."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmData:\s+(\d+) kB", status)[1]) << 10


@pytest.mark.parametrize("spare", [0, 1, 4, 16, 48])
def test_too_little_memory_is_an_answer(spare):
    with serve("-c", 262_144, "--no-cache") as server:
        expected = content(server.post(CHAT, ASK)[1])
        limit = data_bytes(server) + (spare << 20)
        resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (limit, limit))
        found = []

        def ask(seed):
            body = {"prompt": [seed + 5, *[7] * 6000], "max_tokens": 20, "temperature": 0, "ignore_eos": True}
            status, reply = server.post("/v1/completions", body)
            found.append((status, reply["error"]["code"] if "error" in reply else "length"))

        workers = [threading.Thread(target=ask, args=(seed,)) for seed in range(100)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(spare, data_bytes(server), limit, {x: found.count(x) for x in found})
        assert server.process.poll() is None
        assert len(found) == 100
        assert set(found) <= {(200, "length"), (503, "out_of_memory"), (429, "queue_full")}
        assert server.idle() < 2
        resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (limit, limit))
        assert content(server.post(CHAT, ASK)[1]) == expected
