"""Servers for tests: real processes on free ports, and raw connections to them."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

for _name in ("fastapi", "uvicorn", "pydantic", "prometheus_client"):
    pytest.importorskip(_name, reason="needs the extra: pip install 'fastllm[server]'")

NAME = "fastllm-tiny"
HELLO = [{"role": "user", "content": "Hello!"}]


class Server:
    """A running `fastllm serve`."""

    def __init__(self, process, port):
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def request(self, method, path, body=None, headers=None, timeout=60):
        """Status, headers and body of a request; a body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", **(headers or {})} if data is not None else dict(headers or {})
        request = urllib.request.Request(self.url + path, data, fields, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def post(self, path, body, headers=None, timeout=60):
        status, _, raw = self.request("POST", path, body, headers, timeout)
        return status, json.loads(raw)

    def get(self, path, headers=None):
        status, _, raw = self.request("GET", path, headers=headers)
        return status, raw

    def metric(self, name, headers=None, **labels):
        """The sum of a metric over its labels, or of those given."""
        text = self.get("/metrics", headers)[1].decode()
        total = 0.0
        for line in text.splitlines():
            match = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total

    def idle(self, within=2.0):
        """Seconds until nothing runs or waits."""
        begin = time.monotonic()
        while self.metric("fastllm_sequences_running") + self.metric("fastllm_queue_depth"):
            if time.monotonic() - begin > within:
                return float("inf")
            time.sleep(0.005)
        return time.monotonic() - begin

    def connect(self, data=b"", timeout=20):
        """A raw connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        connection.sendall(data)
        return connection

    def raw(self, data, timeout=20):
        """All that comes back on a raw connection until it is closed."""
        with self.connect(data, timeout) as connection:
            return read_all(connection)


def read_all(connection):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def http(path, body, headers=(), method="POST"):
    """The bytes of a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(data)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


@contextlib.contextmanager
def serve(*arguments, env=None, **options):
    """A server with these arguments; it has to end with exit code 0 when it is told to."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            "error",
            "-m",
            "fastllm",
            "serve",
            "--port",
            "0",
            *map(str, arguments),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        **options,
    )
    # A server that does not start says where it is.
    late = threading.Timer(60, process.send_signal, [signal.SIGABRT])
    late.start()
    try:
        line = process.stderr.readline()
        late.cancel()
        match = re.search(r":(\d+)$", line.strip())
        assert match, line + process.stderr.read()
        server = Server(process, int(match[1]))
        server.log = []
        reader = threading.Thread(target=lambda: server.log.extend(process.stderr), daemon=True)
        reader.start()
        yield server
        if process.poll() is None:
            process.terminate()
            assert process.wait(40) == 0, "".join(server.log)
        reader.join(5)
        assert "Traceback" not in "".join(server.log)
    finally:
        late.cancel()
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="package")
def server(cache_folder, state_folder):  # noqa: ARG001 - set before anything is loaded
    """A server of the embedded model, with a context in which a test has time to do something. Shared."""
    with serve("-c", 262_144, "--max-tokens", 200_000) as running:
        yield running
        assert running.get("/health")[0] == 200
        assert running.idle() < 2


@pytest.fixture
def fault(server):
    """The shared server; after the test it must be as before: alive, idle, and with the same answer."""

    def answer():
        status, reply = server.post("/v1/chat/completions", {"messages": HELLO, "temperature": 0})
        assert status == 200
        return reply["choices"][0]["message"]["content"]

    before = answer()
    yield server
    begin = time.monotonic()
    assert server.get("/health")[0] == 200
    assert time.monotonic() - begin < 1
    assert server.idle() < 2
    assert answer() == before
