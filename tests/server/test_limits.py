"""Bodies, fields, keys, hosts and paths of strangers: what is refused, with which status, and naming what is wrong."""

import contextlib
import json
import random
import re

import pytest

from .conftest import HELLO, http, read_all, serve

CHAT = "/v1/chat/completions"


def chat(**fields):
    return {"messages": HELLO, "max_tokens": 1, **fields}


BODIES = {
    "empty": b"",
    "half": b"{",
    "trailing comma": b'{"messages": [],}',
    "NaN": b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "infinity": b'{"messages": [{"role": "user", "content": "x"}], "temperature": -Infinity}',
    "too large a number": b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
    "an integer of 5000 digits": b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"messages": [{"role": "user", "content": "x"}], "n": 1, "n": 2}',
    "a key twice deep down": b'{"messages": [{"role": "user", "role": "user", "content": "x"}]}',
    "BOM": b"\xef\xbb\xbf" + json.dumps(chat()).encode(),
    "UTF-16": json.dumps(chat()).encode("utf-16"),
    "UTF-32": json.dumps(chat()).encode("utf-32-le"),
    "invalid UTF-8": b'{"messages": [{"role": "user", "content": "\xff"}]}',
    "overlong UTF-8": b'{"messages": [{"role": "user", "content": "\xc0\xaf"}]}',
    "half a surrogate pair": b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    "half a pair in a key": b'{"\\udc00": 1}',
    "a control character": b'{"messages": [{"role": "user", "content": "\x01"}]}',
    "a list": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "two values": b"{}{}",
    "deep lists": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep lists, unclosed": b"[" * 100_000,
    "deep objects": b'{"tools": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "a little too deep": b'{"messages": ' + b"[" * 70 + b"]" * 70 + b"}",
}


@pytest.mark.parametrize("name", BODIES)
def test_malformed_bodies(server, name):
    for path in (CHAT, "/v1/messages"):
        status, reply = server.post(path, BODIES[name])
        assert status == 400, reply
        assert reply["error"]["type"] == "invalid_request_error"
        assert reply["error"]["message"]
        assert len(json.dumps(reply)) < 2000


def test_random_mutations_are_never_a_mistake_of_the_server(server):
    body = json.dumps(chat(temperature=0.5, stop=["a"], logit_bias={"5": 1}, stream=False)).encode()
    random_ = random.Random(1)
    with server.connect() as connection:
        for _ in range(150):
            mutated = bytearray(body)
            for _ in range(random_.randint(1, 4)):
                at = random_.randrange(len(mutated))
                mutated[at : at + random_.randint(0, 3)] = random_.choice(
                    [b"", b"\x00", b'"', b"{", b"]", b"\xff", b"9" * 20, b"null", b"\\", b"-1", b"e"]
                )
            connection.sendall(http(CHAT, bytes(mutated)))
            assert status_of(connection) in {200, 400, 404}


def status_of(connection):
    """Reads one answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        assert part, data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1])


WRONG = {
    "max_tokens": [-2, 0, 2**31, 2**63, 1.5, "5", True, [], {}],
    "max_completion_tokens": [0, -5, "x"],
    "n": [0, -1, 10**9, 1.5, "2"],
    "top_k": [-2, 2**32, 2**64, "a", 0.5],
    "top_p": [-0.1, 1.1, "1", [], 1e308],
    "min_p": [-1, 2],
    "temperature": [-1, 1e30, "hot", True],
    "presence_penalty": [1e38, "a"],
    "frequency_penalty": [-1e38],
    "repetition_penalty": [0, -1, 1e38],
    "seed": [-(2**63) - 1, 2**64, 1.5, "x"],
    "logprobs": [5, "yes"],
    "top_logprobs": [3, -1, 21],
    "stop": ["", [""], ["a"] * 1000, 5, [5], "x" * 100_000],
    "logit_bias": [{"-1": 1}, {"abc": 1}, {"99999999999": 1}, {"1024": 1}, {"5": 1e308}, {"5": "x"}, [1]],
    "stream": ["true", 1],
    "stream_options": [{"include_usage": True}, {"colour": 1}],
    "model": [5, [], {}],
    "messages": [[], {}, "hi", [1], [{}], [{"role": "wizard", "content": "x"}], [{"role": "user"}]],
    "tools": [{}, [{"type": "magic"}], [{"type": "function", "function": {"name": "a b"}}], [{}] * 10_000],
    "tool_choice": ["maybe", 5, "required"],
    "response_format": [{"type": "xml"}, "json", {"type": "json_schema"}],
    "chat_template_kwargs": [{"messages": []}, {"tokenize": True}, {"a b": 1}, [], {"now": 1}, {"bos_token": "x"}],
    "reasoning_effort": ["enormous", 5],
    "user": [5],
    "metadata": [{"a": 1}, "x"],
    "store": [True, "no"],
    "service_tier": ["gold"],
    "modalities": [["audio"], []],
    "best_of": [2],
    "functions": [[]],
    "n_probs": [-1],
    "prediction": [{"type": "content"}],
}


@pytest.mark.parametrize("field", WRONG)
def test_wrong_values_are_refused_by_name(server, field):
    for value in WRONG[field]:
        status, reply = server.post(CHAT, chat(**{field: value}))
        assert status == 400, (field, value, reply)
        assert reply["error"]["param"].startswith(field), (field, value, reply)


def test_null_is_the_default(server):
    nothing = dict.fromkeys(
        [name for name in WRONG if name not in {"messages", "best_of", "functions", "n_probs", "prediction"}]
    )
    status, reply = server.post(CHAT, {"messages": HELLO, **nothing, "temperature": 0})
    assert status == 200, reply
    assert reply["choices"][0]["finish_reason"] == "stop"


def test_a_field_of_no_one_is_refused_everywhere(server):
    bodies = {
        CHAT: chat(),
        "/v1/completions": {"prompt": "x"},
        "/v1/responses": {"input": "x"},
        "/v1/messages": {"messages": HELLO, "max_tokens": 1},
        "/v1/messages/count_tokens": {"messages": HELLO},
        "/v1/embeddings": {"input": "x"},
        "/tokenize": {"prompt": "x"},
        "/detokenize": {"tokens": [5]},
    }
    for path, body in bodies.items():
        status, reply = server.post(path, {**body, "colour": "red"})
        assert status == 400
        assert "colour" in reply["error"]["message"]


def test_messages_of_all_kinds(server):
    fine = [
        [{"role": "system", "content": "x"}, *HELLO],
        [{"role": "developer", "content": [{"type": "text", "text": "x"}]}, *HELLO],
        [*HELLO, {"role": "assistant", "content": None}, *HELLO],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": "a\u0000b"}],
        [{"role": "user", "content": "x"}] * 300,
    ]
    for messages in fine:
        assert server.post(CHAT, chat(messages=messages))[0] == 200, messages[:3]
    for content in (None, 5, [{"type": "image_url", "image_url": {"url": "http://x"}}], [{"type": "text"}], [[]]):
        status, reply = server.post(CHAT, chat(messages=[{"role": "user", "content": content}]))
        assert status == 400
        assert reply["error"]["param"].startswith("messages[0].content")


def test_too_long_a_prompt(server):
    for _ in range(3):
        status, reply = server.post(CHAT, chat(messages=[{"role": "user", "content": "x y " * 300_000}]))
        assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    status, reply = server.post("/v1/completions", {"prompt": [5] * 262_145})
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (400, "context_length_exceeded", "prompt")
    status, reply = server.post("/v1/completions", {"prompt": [4000]})
    assert status == 400
    status, reply = server.post("/v1/completions", {"prompt": ""})
    assert status == 400


def test_the_limit_of_tokens(server):
    status, reply = server.post(CHAT, chat(max_tokens=200_001))
    assert (status, reply["error"]["param"]) == (400, "max_tokens")
    assert "200000" in reply["error"]["message"]


@pytest.mark.parametrize("name", ["x", "../../etc/passwd", "/etc/passwd", "fastllm-tiny.gguf", "", "m" * 1_000_000])
def test_unknown_models(server, name):
    status, reply = server.post(CHAT, chat(model=name))
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (404, "model_not_found", "model")
    assert len(json.dumps(reply)) < 500


def test_large_bodies(server):
    refused = http(CHAT, b"x" * 100, ["Expect: 100-continue"]).replace(
        b"Content-Length: 100", b"Content-Length: 10000000000"
    )
    answer = server.raw(refused)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer
    # The client that sends all of it first reads the answer, too.
    status, reply = server.post(CHAT, b" " * (9 << 20))
    assert (status, reply["error"]["code"]) == (413, "body_too_large")
    with server.connect(
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
    ) as connection:
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(OSError):  # which one depends on the moment
            while sent < 200 << 20:
                connection.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
                sent += 0x100000
        assert sent < 100 << 20


def test_content_types(server):
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""):
        status, headers, _ = server.request("POST", CHAT, json.dumps(chat()).encode(), {"content-type": kind})
        assert status == 415, kind
        assert headers["content-type"] == "application/json"
    good = {"content-type": "application/json; charset=utf-8"}
    assert server.request("POST", CHAT, json.dumps(chat()).encode(), good)[0] == 200
    assert server.request("POST", CHAT, chat(), {"content-encoding": "gzip"})[0] == 415


def test_paths_and_methods(server):
    for path in (
        "/x",
        "/v1",
        "//v1/models",
        "/v1/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/x",
        "/v1/chat/completions/",
    ):
        status, raw = server.get(path)
        assert status in {404, 405}, path
        assert json.loads(raw)["error"]["type"] == "invalid_request_error"
    for method, path in (("PUT", "/health"), ("DELETE", "/v1/models/fastllm-tiny"), ("GET", CHAT), ("OPTIONS", CHAT)):
        assert server.request(method, path)[0] == 405, (method, path)
    assert b" 400 " in server.raw(b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")[:20]


def test_ids_of_requests(server):
    _, headers, _ = server.request("GET", "/health", headers={"X-Request-Id": "abc-1.2"})
    assert headers["x-request-id"] == "abc-1.2"
    for odd in ("", "a b", "x" * 500, "ä".encode().decode("latin-1")):
        _, headers, _ = server.request("GET", "/health", headers={"X-Request-Id": odd})
        assert headers["x-request-id"].startswith("req_")
    _, headers, raw = server.request("POST", "/v1/messages", {})
    assert json.loads(raw)["request_id"] == headers["x-request-id"]


SYNTAX = {
    "lengths and chunks": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a negative length": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a huge chunk": b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    "another encoding": b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    "a large header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "nothing of HTTP": b"\x00" * 1000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", SYNTAX)
def test_broken_http_is_refused_and_closed(server, name):
    data = SYNTAX[name]
    data = data % CHAT.encode() if b"%s" in data else data
    answer = server.raw(data)
    assert answer[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 415", b"HTTP/1.1 403", b""}, answer[:200]
    assert answer.count(b"HTTP/1.1 ") <= 1


def test_pipelined_requests_are_answered_in_order(server):
    requests = b"".join(http(CHAT, chat(n=1 + at % 3)) for at in range(30))
    last = http("/tokenize", {"prompt": "x"}, ["Connection: close"])
    answer = server.raw(requests + last)
    assert answer.count(b"HTTP/1.1 200") == 31
    counts = [part.count(b'"finish_reason"') for part in answer.split(b"HTTP/1.1 200")[1:]]
    assert counts[:30] == [1 + at % 3 for at in range(30)]


def test_keys():
    with serve("--api-key", "one", "--api-key", "two", env={"FASTLLM_API_KEY": "three, four"}) as server:
        for key in ("one", "two", "three", "four"):
            assert server.get("/v1/models", {"Authorization": f"Bearer {key}"})[0] == 200
            assert server.get("/v1/models", {"X-Api-Key": key})[0] == 200
        both = {"Authorization": "Bearer one", "X-Api-Key": "one"}
        assert server.get("/v1/models", both)[0] == 200
        for headers in (
            {},
            {"Authorization": "one"},
            {"Authorization": "Basic one"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer onE"},
            {"Authorization": "Bearer one two"},
            {"Authorization": "Bearer one", "X-Api-Key": "two"},
            {"X-Api-Key": "x" * 30_000},
        ):
            status, _, raw = server.request("GET", "/v1/models", headers=headers)
            assert status == 401, headers
            assert json.loads(raw)["error"]["code"] == "invalid_api_key"
            assert server.request("POST", CHAT, b"not even JSON", headers)[0] == 401
        assert server.get("/v1/models?api_key=one")[0] == 401
        assert server.get("/unknown")[0] == 401
        assert server.get("/metrics")[0] == 401
        assert server.get("/health")[0] == 200
        status, reply = server.post("/v1/messages", {})
        assert (status, reply["type"], reply["error"]["type"]) == (401, "error", "authentication_error")
        # The refusal comes although the body does not.
        with server.connect(
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n".encode()
        ) as waiting:
            assert waiting.recv(100).startswith(b"HTTP/1.1 401")
        assert "one" not in "".join(server.log)


def test_hosts_and_origins(server):
    def get(**headers):
        return server.request("GET", "/health", headers=headers)

    for host in ("localhost", f"localhost:{server.port}", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert get(Host=host)[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "10.0.0.1"):
        assert get(Host=host)[0] == 403, host
    assert get(Origin="https://evil.example")[1]["access-control-allow-origin"] is None
    with serve("--cors-origin", "https://good.example", "--allowed-host", "ai.example", "--api-key", "k") as other:
        asked = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
        status, headers, _ = other.request("OPTIONS", CHAT, headers=asked)
        assert (status, headers["access-control-allow-origin"]) == (200, "https://good.example")
        status, headers, _ = other.request("OPTIONS", CHAT, headers={**asked, "Origin": "https://evil.example"})
        assert (status, headers["access-control-allow-origin"]) == (400, None)
        assert other.get("/health", {"Host": "ai.example"})[0] == 200
        assert other.get("/health", {"Host": "evil.example"})[0] == 403


def test_slow_headers_and_bodies_are_cut_off():
    with serve("--header-timeout", "0.5", "--body-timeout", "0.5", "--keep-alive", "1") as server:
        with server.connect(b"GET /health HT") as connection:
            assert read_all(connection).startswith(b"HTTP/1.1 408")
        with server.connect() as connection:
            assert read_all(connection) == b""
        with server.connect(http(CHAT, chat())[:-5]) as connection:
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"body_timeout" in answer
        with server.connect(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            assert read_all(connection).startswith(b"HTTP/1.1 200")  # and then it idles, and is closed


def test_the_log_is_json_without_prompts(server):
    del server
    with serve("--log-format", "json") as other:
        other.post(CHAT, chat(messages=[{"role": "user", "content": "rosebud"}]))
        other.post(CHAT, chat(rosebud="rosebud"))
        other.post(CHAT, b"rosebud")
        other.get("/v1/models?rosebud=1")
    lines = [json.loads(line) for line in other.log]
    assert [line["status"] for line in lines] == [200, 400, 400, 200]
    assert {line["path"] for line in lines} == {CHAT, "/v1/models"}
    assert lines[0]["model"] == "fastllm-tiny"
    assert lines[1]["code"] == "unknown_parameter"
    assert all(line["request_id"] and line["time"] and line["level"] == "info" for line in lines)
    assert "rosebud" not in "".join(other.log)


def test_pages(server):
    status, headers, page = server.request("GET", "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    for name in re.findall(rb'(?:src|href)="(page/[^"]+)"', page):
        status, headers, _ = server.request("GET", "/" + name.decode())
        assert status == 200, name
        assert headers["content-type"].split(";")[0] in {"text/css", "text/javascript", "image/svg+xml"}
    for name in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "x.js", ""):
        assert server.get(f"/page/{name}")[0] == 404
    status, raw = server.get("/docs")
    assert status == 200
    assert b"/v1/chat/completions" in raw
    # Neither page names an address elsewhere.
    assert not re.search(rb"(?:src|href)=\"?(?:https?:)?//", page + raw)
