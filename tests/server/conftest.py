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
# Seconds that a state may take to come, on a machine that is busy with other things too. What never comes takes longer.
PATIENCE = 30.0
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
        status, _, raw = self.request("GET", path, headers=headers, timeout=20)
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

    def idle(self, within=PATIENCE):
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


class Watchdog:
    """Ends a process that lives too long; first it says where it is. What waits for it goes on."""

    def __init__(self, process, seconds):
        self._process = process
        self._timers = [
            threading.Timer(seconds, process.send_signal, [signal.SIGABRT]),
            threading.Timer(seconds + 5, process.kill),
        ]
        for timer in self._timers:
            timer.daemon = True
            timer.start()

    def cancel(self):
        for timer in self._timers:
            timer.cancel()


def quiet_port():
    """A free port that the system gives to no connection by itself: while a server is away, one could take its port."""
    for port in range(20_000 + os.getpid() % 5000, 30_000):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def command(*arguments, port=0):
    """The command of a server; warnings are errors, and SIGABRT shows where its threads are."""
    options = ["-X", "faulthandler", "-W", "error", "-m", "fastllm", "serve", "--port", str(port)]
    return [sys.executable, *options, *map(str, arguments)]


@contextlib.contextmanager
def serve(*arguments, env=None, ulimit=None, within=120):
    """A server with these arguments; it has to end with exit code 0 when it is told to.

    Args:
        env: Environment variables besides those of this process.
        ulimit: Options of the shell's `ulimit`. (A `preexec_fn` may hang: this process has threads.)
        within: Seconds of its life; after them it is killed, so that no test waits for it forever.
    """
    shell = [] if ulimit is None else ["sh", "-c", f'ulimit {ulimit} && exec "$@"', "sh"]
    environment = {**os.environ, **(env or {})}
    # Not this process's output: where that is a pipe, who reads it would wait for a server that outlives killed tests.
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(shell + command(*arguments), **streams, text=True, env=environment)
    log = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    dogs = [Watchdog(process, 60), Watchdog(process, within)]
    try:
        line = process.stderr.readline()
        dogs[0].cancel()
        match = re.search(r":(\d+)$", line.strip())
        if not match:
            process.kill()
            raise AssertionError(f"the server did not start: {line}{process.stderr.read()}")
        reader.start()
        server = Server(process, int(match[1]))
        server.log = log
        yield server
        if process.poll() is None:
            process.terminate()
            assert process.wait(40) == 0, "".join(log)
        reader.join(5)
        assert "Traceback" not in "".join(log)
    finally:
        for dog in dogs:
            dog.cancel()
        process.kill()
        process.wait()
        if reader.ident is not None:
            reader.join(5)
        killed = process.returncode == -signal.SIGABRT
        process.stderr.close()
        # Said here too: a test that fails because its server was ended shows nothing but a closed connection.
        assert not killed, f"the server was ended after {within} seconds:\n{''.join(log)}"


@pytest.fixture(scope="package")
def server(cache_folder, state_folder):  # noqa: ARG001 - set before anything is loaded
    """A server of the embedded model, with a context in which a test has time to do something. Shared."""
    with serve("-c", 262_144, "--max-tokens", 200_000, within=1800) as running:
        yield running
        assert running.get("/health")[0] == 200
        assert running.idle() < PATIENCE


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
    assert time.monotonic() - begin < PATIENCE
    assert server.idle() < PATIENCE
    assert answer() == before
