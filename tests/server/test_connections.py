"""Connections that send too slowly, in too small parts, or to a server of another name; and HEAD."""

import contextlib
import socket
import time

import pytest

from .conftest import HELLO, http, read_all, serve
from .test_faults import CHAT, descriptors, until

CHUNKED = (
    f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def impatient():
    with serve("--header-timeout", 1, "--body-timeout", 1, "--keep-alive", 1) as server:
        yield server


def closed(connection):
    """Whether the other side has ended the connection."""
    connection.settimeout(0.01)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


SLOW = {
    "GET": b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
    "GET in chunks": b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HEAD": b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
    "a method that no path takes": b"PUT /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
    "a path that is not there": b"DELETE /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
    "POST": CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: 1000000"),
    "POST in chunks": CHUNKED,
}


@pytest.mark.parametrize("trickles", [False, True])
@pytest.mark.parametrize("name", SLOW)
def test_a_body_that_never_ends_ends_the_connection(impatient, name, trickles):
    byte = b"1\r\na\r\n" if b"chunked" in SLOW[name] else b"a"
    with impatient.connect(SLOW[name]) as connection:
        end = time.monotonic() + 30
        while not closed(connection):
            assert time.monotonic() < end, "it is still open"
            if trickles:
                try:
                    connection.settimeout(5)
                    connection.sendall(byte)
                except OSError:
                    break
            time.sleep(0.05)


def test_connections_with_endless_bodies_leave_nothing(impatient):
    before = descriptors(impatient)
    connections = [impatient.connect(SLOW["GET"]) for _ in range(100)]
    assert until(lambda: descriptors(impatient) <= before + 1, 30)
    for connection in connections:
        connection.close()


def test_a_body_of_a_get_harms_no_request_that_follows(server):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    with server.connect(request * 3 + http("/tokenize", {"prompt": "x"}, ["Connection: close"])) as connection:
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 200") == 4


def test_small_chunks_are_refused_soon(server):
    """A chunk costs as much as a kilobyte: 1-byte chunks are as expensive as a body of a thousand times their size."""
    with server.connect(CHUNKED) as connection:
        sent = 0
        try:
            while sent < 2_000_000:
                connection.sendall(b"1\r\n \r\n" * 1000)
                sent += 1000
        except OSError:
            pass
        answer = b""
        with contextlib.suppress(OSError):
            answer = read_all(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer[:100]
    small = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"prompt":"x"}')
    few = CHUNKED.replace(CHAT.encode(), b"/tokenize") + small + b"0\r\n\r\n"
    with server.connect(few) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200"), "a few small chunks are fine"


def test_the_answer_to_small_chunks_says_why(server):
    with server.connect(CHUNKED + b"1\r\n \r\n" * 3000) as connection:
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400"), answer[:100]
    assert b"chunks of the body are too small" in answer


def test_large_chunks_pass(server):
    body = b'{"prompt":"' + b"a" * 3_000_000 + b'"}'
    parts = [body[at : at + 200] for at in range(0, len(body), 200)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    request = CHUNKED.replace(CHAT.encode(), b"/tokenize") + chunks + b"0\r\n\r\n"
    with server.connect(request, timeout=60) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("name", "count"), [("a", 10_000), ("a", 1000), ("header-name", 5000)])
def test_many_headers_in_one_burst_are_refused(server, name, count):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + f"{name}: b\r\n".encode() * count + b"\r\n"
    assert server.raw(request)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 431", b""}


def test_a_burst_beyond_the_limit_on_headers_is_refused(server):
    lines = b"".join(b"h%d: %s\r\n" % (at, b"x" * 1000) for at in range(200))
    answer = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")
    assert answer[:12] in {b"HTTP/1.1 400", b""}
    few = b"".join(b"h%d: %s\r\n" % (at, b"x" * 200) for at in range(200))
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + few + b"\r\n"
    assert server.raw(request).startswith(b"HTTP/1.1 200")


WRONG_HOSTS = [
    "localhost:1.evil.example",
    "[::1].evil.example",
    "[::1]:80.evil.example",
    "[::1",
    "::1",
    "[::2]",
    "127.0.0.1:80:evil",
    "127.0.0.1.evil.example",
    "localhost:abc",
    "localhost:",
    "localhost:-1",
    "localhost:99999",
    "localhost.evil.example",
    "localhost/evil",
    "evil@localhost",
    "localhost localhost",
    "localhost..",
    "evil.example",
    "",
]


def get(server, host):
    return server.raw(b"GET /v1/models HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n")[:12]


def test_only_a_whole_host_is_the_name_of_this_server(server):
    for host in WRONG_HOSTS:
        assert get(server, host) == b"HTTP/1.1 403", host
    for host in ("localhost", "LOCALHOST:80", "localhost.", "127.0.0.1:1", "[::1]", "[0:0:0:0:0:0:0:1]:65535"):
        assert get(server, host) == b"HTTP/1.1 200", host
    two = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert server.raw(two)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 403"}


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/docs", "/openapi.json", "/metrics", "/page/app.js"])
def test_head_is_a_get_without_a_body(server, path):
    status, expected, _ = server.request("GET", path)
    answer = server.raw(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode()), head
    assert body == b""
    if status == 200 and path != "/metrics":
        assert f"content-length: {expected['content-length']}".encode() in head.lower()


def test_head_where_there_is_no_get(server):
    for path, status in ((CHAT, b"405"), ("/x", b"404")):
        answer = server.raw(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.partition(b"\r\n\r\n")[2] == b""
    # The connection is usable afterwards.
    with server.connect(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(http(CHAT, {"messages": HELLO, "max_tokens": 1}, ["Connection: close"]))
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.shutdown(socket.SHUT_RDWR)
