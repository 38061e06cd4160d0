"""Clients that leave, stall or come in crowds; servers that are told to end. Others notice nothing."""

import contextlib
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from .conftest import HELLO, PATIENCE, http, quiet_port, read_all, serve

CHAT = "/v1/chat/completions"
# Of an embedded model this is minutes of work.
ENDLESS = {"messages": HELLO, "ignore_eos": True, "temperature": 1}
LONG_PROMPT = {"prompt": [5] * 200_000, "max_tokens": 1}


def until(condition, within=PATIENCE):
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > within:
            return False
        time.sleep(0.005)
    return True


def running(server):
    return server.metric("fastllm_sequences_running")


def reset(connection):
    """Closes with an RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("close", [socket.socket.close, reset])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {**ENDLESS, "stream": True}),
        (CHAT, {**ENDLESS, "stream": True, "n": 3}),
        (CHAT, ENDLESS),
        ("/v1/completions", LONG_PROMPT),
        ("/v1/responses", {"input": "Once upon a time there was a " * 5000, "stream": True}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 100_000, "system": "Tell stories. " * 8000}),
    ],
)
def test_a_client_that_leaves_stops_its_work(fault, path, body, close):
    gone = fault.metric("fastllm_requests_disconnected_total")
    before = fault.metric("fastllm_computed_tokens_total")
    connection = fault.connect(http(path, body))
    if body.get("stream"):
        assert connection.recv(1000)
    assert until(lambda: running(fault))
    close(connection)
    assert fault.idle() < PATIENCE
    computed = fault.metric("fastllm_computed_tokens_total")
    assert computed - before < 100_000, "all of it is more"
    time.sleep(0.05)
    assert fault.metric("fastllm_computed_tokens_total") == computed
    assert until(lambda: fault.metric("fastllm_requests_disconnected_total") == gone + 1)


def test_a_client_that_leaves_the_queue_never_runs_and_harms_no_one(fault):
    """The engine is filled with sequences of which the results are known."""
    body = {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "temperature": 0, "n": 16}
    expected = fault.post("/v1/completions", {**body, "n": 1})[1]["choices"][0]["text"]
    results = []
    worker = threading.Thread(target=lambda: results.append(fault.post("/v1/completions", body)))
    worker.start()
    assert until(lambda: running(fault) == 16)
    connection = fault.connect(http(CHAT, ENDLESS))
    assert until(lambda: fault.metric("fastllm_queue_depth") == 1)
    connection.close()
    assert until(lambda: fault.metric("fastllm_queue_depth") == 0, PATIENCE)
    assert running(fault) == 16
    worker.join()
    assert [choice["text"] for choice in results[0][1]["choices"]] == [expected] * 16


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_only_ends_its_side_gets_its_answer(fault, stream):
    body = {"messages": HELLO, "max_tokens": 3000, "ignore_eos": True, "temperature": 0, "stream": stream}
    with fault.connect(http(CHAT, body, ["Connection: close"])) as connection:
        assert until(lambda: running(fault))
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert b"HTTP/1.1 200" in answer
    assert b'"finish_reason":"length"' in answer
    assert answer.rstrip().endswith(b"0" if stream else b"}")


def test_kill_of_a_client(fault):
    program = f"""
import json, urllib.request
body = json.dumps({ENDLESS | {"stream": True}}).encode()
request = urllib.request.Request("{fault.url}{CHAT}", body, {{"Content-Type": "application/json"}})
for line in urllib.request.urlopen(request):
    print(".", flush=True)
"""
    client = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert client.stdout.readline()
    assert until(lambda: running(fault))
    client.kill()
    client.wait()
    client.stdout.close()
    assert fault.idle() < PATIENCE


def test_a_client_that_does_not_read_is_given_up():
    body = {**ENDLESS, "n": 4, "stream": True, "logprobs": True, "top_logprobs": 20}
    with serve("-c", 262_144, "--write-timeout", 0.5) as server, socket.socket() as connection:
        connection.settimeout(20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(http(CHAT, body))
        assert until(lambda: running(server)), f"it did not start: {server.log[-1:]}"
        memory = resident(server)
        # The system takes some megabytes before the server notices: on a busy machine that many tokens take a while.
        computed = functools.partial(server.metric, "fastllm_computed_tokens_total")
        assert until(lambda: not running(server), 60), f"it goes on after {computed()} tokens: {server.log[-1:]}"
        assert resident(server) - memory < 100 << 20
        assert server.metric("fastllm_requests_disconnected_total") == 1
        connection.close()
        assert server.idle() < PATIENCE


def resident(server):
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(server):
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def test_a_thousand_idle_connections_and_two_hundred_queued(fault):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1600:
        pytest.skip(f"only {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1600), hard))
    before = descriptors(fault)
    body = {"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}
    expected = fault.post("/v1/completions", body)[1]["choices"][0]["text"]
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(fault.connect(timeout=60)) for _ in range(1000)]
        request = http("/v1/completions", body, ["Connection: close"])
        busy = [stack.enter_context(fault.connect(request, timeout=60)) for _ in range(200)]
        begin = time.monotonic()
        assert fault.get("/health")[0] == 200
        assert time.monotonic() - begin < PATIENCE
        for connection in busy:
            answer = read_all(connection)
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["text"] == expected
        idle[500].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle[500].recv(100).startswith(b"HTTP/1.1 200")
    assert until(lambda: descriptors(fault) <= before + 1)


def test_more_connections_than_files_are_allowed():
    with serve("--header-timeout", 1, ulimit="-n 80") as server:
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                for _ in range(200):
                    stack.enter_context(server.connect())
                time.sleep(0.3)
            assert until(lambda: server.get("/health")[0] == 200)
        assert server.post(CHAT, {"messages": HELLO})[0] == 200
        assert len("".join(server.log)) < 20_000


def test_more_than_the_queue_holds_is_sent_away():
    with serve("-c", 262_144, "--max-queue", 4) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(server.connect(http(CHAT, ENDLESS)))
            assert until(lambda: server.metric("fastllm_queue_depth") == 4)
            begin = time.monotonic()
            status, headers, raw = server.request("POST", CHAT, {"messages": HELLO})
            assert (status, json.loads(raw)["error"]["code"]) == (429, "queue_full")
            assert int(headers["retry-after"]) >= 1
            assert time.monotonic() - begin < PATIENCE
            status, reply = server.post("/v1/messages", {"messages": HELLO, "max_tokens": 1})
            assert (status, reply["error"]["type"]) == (429, "rate_limit_error")
        assert server.idle() < PATIENCE
        assert server.post(CHAT, {"messages": HELLO})[0] == 200
        assert server.post("/v1/completions", {"prompt": "x", "n": 21})[0] == 400


def test_connections_that_come_and_go_leave_nothing(fault):
    before = descriptors(fault)
    for _ in range(1500):
        fault.connect().close()
    assert until(lambda: descriptors(fault) <= before + 1)


def test_text_that_is_hard_to_tokenize_blocks_no_one(fault):
    texts = ["a" * 500_000, " " * 500_000, "\u0301" * 200_000, "\U0001f600" * 100_000, "\x00\x01\ufffd" * 100_000]
    slowest = 0.0
    done = threading.Event()

    def ask():
        for text in texts:
            assert fault.post("/v1/completions", {"prompt": text, "max_tokens": 1})[0] in {200, 400}
            assert fault.post("/tokenize", {"prompt": text})[0] == 200
        done.set()

    worker = threading.Thread(target=ask)
    worker.start()
    while not done.is_set() and worker.is_alive():
        begin = time.monotonic()
        fault.get("/health")
        slowest = max(slowest, time.monotonic() - begin)
    worker.join()
    assert done.is_set()
    assert slowest < PATIENCE / 3


GRAMMARS = [
    {"regex": "(a+)+b"},
    {"regex": "(" * 4000},
    {"regex": "a{1,100000}"},
    {"regex": "(a{1000}){1000}"},
    {"regex": "((a?){100}){100}"},
    {"grammar": 'root ::= root "a"'},
    {"grammar": 'root ::= ("a"*)*'},
    {"grammar": 'root ::= "a"{5,0}'},
    {"grammar": 'root ::= "a"{0,2147483647}'},
    {"grammar": "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(5000)) + 'a5000 ::= "x"'},
    {"choices": [f"choice {i}" for i in range(4000)]},
    {"schema": {"$ref": "#"}},
    {"schema": {"$ref": "http://127.0.0.1:1/schema.json"}},
    {"schema": {"$ref": "file:///etc/passwd"}},
    {"schema": {"allOf": [{"type": "string"}] * 10_000}},
    {"schema": {"enum": list(range(200_000))}},
    {"schema": {"type": "string", "pattern": "(a+)+" * 200, "minLength": 10**9}},
    {"schema": {"type": "array", "minItems": 10**9}},
]


def test_grammars_that_are_bombs_end_soon_and_harm_no_one(fault):
    slowest = 0.0
    done = threading.Event()
    failures = []

    def ask():
        for grammar in GRAMMARS:
            body = {"messages": HELLO, "max_tokens": 3, **grammar}
            if "schema" in body:
                form = {"type": "json_schema", "json_schema": {"name": "x", "schema": body.pop("schema")}}
                body["response_format"] = form
            begin = time.monotonic()
            status, reply = fault.post(CHAT, body)
            seconds = time.monotonic() - begin
            if status not in {200, 400} or seconds > 15:
                failures.append((str(grammar)[:80], status, seconds, reply))
            if status == 400 and reply["error"]["param"] not in body:
                failures.append((str(grammar)[:80], reply))
        done.set()

    worker = threading.Thread(target=ask)
    worker.start()
    while not done.is_set() and worker.is_alive():
        begin = time.monotonic()
        fault.get("/health")
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.005)
    worker.join()
    assert done.is_set()
    assert not failures
    assert slowest < PATIENCE / 3


# The end


def test_a_server_that_is_told_to_end_finishes_what_runs():
    body = {"messages": HELLO, "max_tokens": 4000, "ignore_eos": True, "temperature": 0, "stream": True}
    with serve("-c", 262_144) as server:
        with server.connect(http(CHAT, body)) as stream, server.connect(http("/tokenize", {"prompt": "x"})) as kept:
            assert kept.recv(4096).startswith(b"HTTP/1.1 200")
            assert until(lambda: running(server))
            server.process.terminate()
            answer = stream.recv(65536)
            assert until(lambda: not connects(server), PATIENCE)
            answer += read_all(stream)
            assert b'"finish_reason":"length"' in answer
            assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert server.process.wait(PATIENCE) == 0


def connects(server):
    try:
        server.connect(timeout=1).close()
    except OSError:
        return False
    return True


def test_what_does_not_finish_within_the_limit_ends_with_an_error():
    with serve("-c", 262_144, "--drain-timeout", "0.5") as server:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(server.connect(http(CHAT, {**ENDLESS, "stream": True})))
            whole = stack.enter_context(server.connect(http(CHAT, ENDLESS)))
            messages = {"messages": HELLO, "max_tokens": 200_000, "stream": True, "system": "Tell stories. " * 8000}
            other = stack.enter_context(server.connect(http("/v1/messages", messages)))
            for _ in range(30):
                stack.enter_context(server.connect(http(CHAT, ENDLESS)))
            assert until(lambda: running(server) == 16)
            begin = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            results = {}

            def read(name, connection):
                results[name] = read_all(connection)

            named = {"stream": stream, "whole": whole, "other": other}
            readers = [threading.Thread(target=read, args=item) for item in named.items()]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            assert server.process.wait(PATIENCE) == 0
            assert time.monotonic() - begin < PATIENCE
        last = results["stream"].split(b"data: ")[-1]
        assert json.loads(last.partition(b"\n\n")[0])["error"]["code"] == "server_stopping"
        assert results["whole"].startswith(b"HTTP/1.1 503")
        assert b"event: error\ndata: " in results["other"]


def test_a_second_signal_ends_at_once():
    with serve("-c", 262_144) as server, server.connect(http(CHAT, {**ENDLESS, "stream": True})) as stream:
        assert stream.recv(100)
        server.process.send_signal(signal.SIGINT)
        assert until(lambda: not connects(server), PATIENCE)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 130


def test_a_killed_server_leaves_its_port():
    port = quiet_port()
    with serve("--port", port) as first, first.connect(http(CHAT, {**ENDLESS, "stream": True})):
        first.process.kill()
        first.process.wait()
    for _ in range(2):
        with serve("--port", port) as again:
            assert again.port == port
            assert again.post(CHAT, {"messages": HELLO})[0] == 200


def test_a_port_that_is_taken_is_one_line(server):
    command = [sys.executable, "-m", "fastllm", "serve", "--port", str(server.port)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "in use" in result.stderr


def test_a_port_that_is_taken_while_the_model_loads_is_an_error_and_no_hang(model):
    from fastllm.server import run
    from fastllm.server.options import ServerOptions

    with run.bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        second = run.bind("127.0.0.1", port)
        first.listen()
        with pytest.raises(OSError, match="in use"):
            run.serve({"m": model}, ServerOptions(), second)


def test_several_models_by_name(demo_path):
    with serve(f"one={demo_path}", demo_path) as server:
        names = [model["id"] for model in json.loads(server.get("/v1/models")[1])["data"]]
        assert names == ["one", demo_path.stem]
        for name in names:
            assert server.post(CHAT, {"messages": HELLO, "model": name})[1]["model"] == name
        assert server.post(CHAT, {"messages": HELLO})[1]["model"] == "one"
        assert server.post(CHAT, {"messages": HELLO, "model": str(demo_path)})[0] == 404


@pytest.mark.parametrize(
    "arguments",
    [
        ["a=x.gguf", "a=y.gguf"],
        ["--port", "99999"],
        ["--drain-timeout", "-1"],
        ["--max-body", "0"],
        ["--max-queue", "x"],
    ],
)
def test_wrong_usage(arguments):
    command = [sys.executable, "-m", "fastllm", "serve", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert "error:" in result.stderr
