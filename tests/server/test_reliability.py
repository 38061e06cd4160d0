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


class Oops(BaseException):
    """What not even `except Exception` takes."""


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, AssertionError, RecursionError])
@pytest.mark.parametrize("place", ["build", "start", "take", "result"])
async def test_a_mistake_in_one_request_is_no_mistake_in_the_next(model, monkeypatch, place, kind):
    app = create_app({"m": model})
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    def fail(*_, **__):
        raise kind("the secret")

    async def afail(*_, **__):
        fail()

    names = {"build": ("_params", fail), "start": ("Job.start", None), "take": ("Job._one", None), "result": ("", None)}
    del names
    async with client:
        expected = content((await client.post(CHAT, json=ASK)).json())
        for stream in (False, True):
            with monkeypatch.context() as patch:
                if place == "build":
                    patch.setattr(generate, "_params", fail)
                else:
                    stream_class = type(model.achat_stream(HELLO))
                    patch.setattr(stream_class, {"start": "start", "take": "__anext__", "result": "result"}[place], afail)
                response = await client.post(CHAT, json={**ASK, "stream": stream})
            begun = stream and place in {"take", "result"}
            assert response.status_code == (200 if begun else 500)
            assert '"internal_error"' in response.text
            assert "secret" not in response.text
            assert model.stats().running == model.stats().waiting == 0
            assert not app.state.service._admitted["m"]
            response = await client.post(CHAT, json=ASK)
            assert content(response.json()) == expected
