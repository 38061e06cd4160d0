"""What breaks beside a request: the model, the code, memory, disks, the process. Other requests notice nothing."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import gguf
import httpx
import pytest

from fastllm.server import generate
from fastllm.server.app import create_app

from .conftest import HELLO, PATIENCE, Server, Watchdog, command, http, quiet_port, read_all, serve
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
    assert broken.idle() < PATIENCE
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
    return {
        "build": (generate, "_params"),
        "start": (stream, "start"),
        "take": (stream, "__anext__"),
        "end": (stream, "result"),
    }


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
            assert until(lambda: model.stats().running == model.stats().waiting == 0, PATIENCE)
            assert content((await client.post(CHAT, json=ASK)).json()) == expected
        assert not app.state.service._admitted["m"]


# Memory


def data_bytes(server):
    """Bytes of memory of its own that a process has asked for: what RLIMIT_DATA limits."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmData:\s+(\d+) kB", status)[1]) << 10


def test_too_little_memory_is_an_answer():
    """Of a hundred long contexts some fit."""
    with serve("-c", 262_144, "--no-cache", "--prefix-cache", 0, within=60) as server:
        expected = content(server.post(CHAT, ASK)[1])
        # A context of 6,000 tokens takes nine megabytes; the cache leaves 32 to the rest of the process.
        limit = data_bytes(server) + (128 << 20)
        _, most = resource.prlimit(server.process.pid, resource.RLIMIT_DATA)
        resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (limit, most))
        found = []

        def ask(seed):
            body = {"prompt": [seed + 5, *[7] * 6000], "max_tokens": 20, "temperature": 0, "ignore_eos": True}
            status, reply = server.post("/v1/completions", body, timeout=20)
            found.append((status, reply["error"]["code"] if "error" in reply else None))

        workers = [threading.Thread(target=ask, args=(seed,)) for seed in range(100)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert server.process.poll() is None
        assert len(found) == 100
        assert set(found) <= {(200, None), (503, "out_of_memory"), (429, "queue_full")}
        assert (503, "out_of_memory") in found
        # The pressure is over. (What malloc keeps of small blocks would otherwise leave no room below the limit.)
        resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (most, most))
        assert server.idle() < PATIENCE
        assert content(server.post(CHAT, ASK)[1]) == expected


# Disks


def test_a_full_disk_under_the_log_and_a_model_file_that_is_gone(demo_path, tmp_path):
    copy = tmp_path / "model.gguf"
    shutil.copyfile(demo_path, copy)
    port = quiet_port()
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command(copy, port=port), stdout=subprocess.DEVNULL, stderr=full)
    dog = Watchdog(process, 60)
    try:
        server = Server(process, port)
        assert until(lambda: process.poll() is not None or alive(server), 30)
        expected = content(server.post(CHAT, ASK)[1])
        os.truncate(copy, 1000)
        assert content(server.post(CHAT, ASK)[1]) == expected
        copy.unlink()
        assert content(server.post(CHAT, ASK)[1]) == expected
        assert server.post(CHAT, {**ASK, "model": "x"})[0] == 404
        process.terminate()
        assert process.wait(20) in {0, 120}  # 120: Python could not flush its output
    finally:
        dog.cancel()
        process.kill()
        process.wait()


def alive(server):
    with contextlib.suppress(OSError):
        return server.get("/health")[0] == 200
    return False


# The process


def test_a_server_that_is_killed_again_and_again_comes_back(server):
    expected = content(server.post(CHAT, ASK)[1])
    port = quiet_port()
    for _ in range(20):
        with serve("--port", port) as again:
            assert again.port == port
            assert content(again.post(CHAT, ASK)[1]) == expected
            with again.connect(http(CHAT, {**ENDLESS, "stream": True})) as stream:
                assert stream.recv(100)
                again.process.kill()
                again.process.wait(10)


def test_a_stream_goes_on_after_the_process_was_stopped(fault):
    body = {**ASK, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    expected = fault.raw(http(CHAT, body, ["Connection: close"]))
    with fault.connect(http(CHAT, body, ["Connection: close"])) as connection:
        answer = connection.recv(5000)
        fault.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(3)
        finally:
            fault.process.send_signal(signal.SIGCONT)
        answer += read_all(connection)
    assert texts(answer) == texts(expected)
    assert b'"finish_reason":"length"' in answer


def texts(answer):
    """The text of a stream."""
    events = re.findall(rb"data: (\{.*\})\n", answer)
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)


def test_clients_with_the_same_prefix_get_their_own_answers_while_others_cancel(fault):
    prefix = [5, 9, 7] * 100
    bodies = [{"prompt": [*prefix, last], "max_tokens": 200, "temperature": 0, "ignore_eos": True} for last in (20, 30)]
    expected = [fault.post("/v1/completions", body)[1]["choices"][0]["text"] for body in bodies]
    done = threading.Event()
    found = [[], []]

    def ask(index):
        for _ in range(15):
            found[index].append(fault.post("/v1/completions", bodies[index])[1]["choices"][0]["text"])

    def cancel():
        body = {"prompt": [*prefix, 40], "max_tokens": 100_000, "stream": True, "ignore_eos": True}
        while not done.is_set():
            with fault.connect(http("/v1/completions", body)) as connection:
                connection.recv(500)

    canceller = threading.Thread(target=cancel)
    workers = [threading.Thread(target=ask, args=(index,)) for index in (0, 1)]
    for thread in (canceller, *workers):
        thread.start()
    for worker in workers:
        worker.join()
    done.set()
    canceller.join(20)
    assert found == [[text] * 15 for text in expected]
    assert running(fault) == 0 or fault.idle() < PATIENCE
