"""Bodies whose values cost far more than their text: refused before they cost anything, whatever field they are in."""

import importlib
import json
import threading
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, TypeAdapter

from fastllm.server import strict_json, wire
from fastllm.server.errors import ApiError
from fastllm.server.wire.common import Wire

from .conftest import HELLO, serve
from .test_limits import CHAT

BODY = 8 << 20


def items(one, before, after):
    """A body of almost the longest length, full of one item."""
    count = (BODY - 1000 - len(before) - len(after)) // (len(one) + 1)
    return before + b",".join([one] * count) + after


def numbered(one, before, after, width):
    count = (BODY - 1000) // (width + len(one) + 1)
    return before + b",".join(b'"%0*d"' % (width - 2, at) + one for at in range(count)) + after


MESSAGE = b'{"role":"user","content":"a"}'
BOMBS = {
    "lists": (CHAT, items(b"[]", b'{"messages":[', b"]}")),
    "objects": (CHAT, items(b"{}", b'{"messages":[', b"]}")),
    "fields": (CHAT, numbered(b":1", b'{"messages":[' + MESSAGE + b"],", b"}", 12)),
    "fields of a message": (CHAT, numbered(b":1", b'{"messages":[{"role":"user","content":"a",', b"}]}", 12)),
    "wrong contents": (CHAT, items(b'{"role":"user","content":1}', b'{"messages":[', b"]}")),
    "messages": (CHAT, items(MESSAGE, b'{"messages":[', b"]}")),
    "parts": (CHAT, items(b'{"type":"text","text":""}', b'{"messages":[{"role":"user","content":[', b"]}]}")),
    "turns": ("/v1/messages", items(b"[]", b'{"max_tokens":1,"messages":[', b"]}")),
    "items": ("/v1/responses", items(b"[]", b'{"input":[', b"]}")),
    "stop ids": ("/v1/completions", items(b'""', b'{"prompt":"a","stop_token_ids":[', b"]}")),
    "prompts": ("/v1/completions", items(b"{}", b'{"prompt":[', b"]}")),
    "ids": ("/v1/completions", items(b"5", b'{"prompt":[', b"]}")),
    "tokens": ("/detokenize", items(b'""', b'{"tokens":[', b"]}")),
    "biases": ("/v1/completions", numbered(b":1", b'{"prompt":"a","logit_bias":{', b"}}", 12)),
    "an unknown field": (CHAT, items(b"[]", b'{"zz":[', b"]}")),
    "template variables": (
        CHAT,
        items(b"[]", b'{"messages":[' + MESSAGE + b'],"max_tokens":1,"chat_template_kwargs":{"a":[', b"]}}"),
    ),
    "a schema": (
        CHAT,
        items(
            b"[]",
            b'{"messages":['
            + MESSAGE
            + b'],"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"enum":[',
            b"]}}}}",
        ),
    ),
}


@pytest.fixture(scope="module")
def bombed():
    """A server of its own: its largest memory is compared."""
    with serve() as server:
        assert server.post(CHAT, {"messages": HELLO, "max_tokens": 1})[0] == 200
        yield server


def peak(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_the_memory_of_its_text(bombed, name):
    path, body = BOMBS[name]
    before, found, slowest = peak(bombed), [], 0.0
    worker = threading.Thread(target=lambda: found.append(bombed.post(path, body)))
    worker.start()
    while worker.is_alive():
        begin = time.monotonic()
        assert bombed.get("/health")[0] == 200
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.01)
    worker.join()
    status, reply = found[0]
    assert status == 400, reply
    assert len(json.dumps(reply)) < 1000
    assert peak(bombed) - before < 8 * BODY
    # It was tens of seconds; a machine that runs other things too gets more than the half second of a quiet one.
    assert slowest < 3


@pytest.mark.parametrize("filler", ["a", "\U0001f600", '\\"', "\\ud83d\\ude00", " "])
def test_a_long_text_is_within_the_memory_too(bombed, filler):
    text = filler * ((BODY - 1000) // len(filler.encode()))
    before = peak(bombed)
    status, reply = bombed.post("/detokenize", b'{"tokens":[],"x":"' + text.encode() + b'"}')
    assert (status, reply["error"]["param"]) == (400, "x")
    assert peak(bombed) - before < 8 * BODY


def test_bodies_of_the_size_that_people_send_pass(bombed):
    schema = {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(300)}}
    tools = [
        {"type": "function", "function": {"name": f"f{at}", "description": "d" * 500, "parameters": schema}}
        for at in range(20)
    ]
    history = [{"role": role, "content": "a"} for _ in range(200) for role in ("user", "assistant")] + HELLO
    status, reply = bombed.post("/tokenize", {"messages": history, "tools": tools})
    assert status == 200, reply
    ids = [5] * 300_000
    assert bombed.post("/detokenize", {"tokens": ids})[0] == 200
    bias = {str(id_): 1 for id_ in range(1000)}
    assert bombed.post("/v1/completions", {"prompt": "a", "logit_bias": bias, "max_tokens": 1})[0] == 200


def test_limits_of_values_are_named():
    with pytest.raises(ApiError, match="more than 262144 lists, objects, strings and keys"):
        strict_json.loads(b"[" + b"[]," * 300_000 + b"1]")
    with pytest.raises(ApiError, match="more than 1048576 values"):
        strict_json.loads(b"[" + b"1," * 1_100_000 + b"1]")
    with pytest.raises(ApiError, match="more than 16384 values"):
        strict_json.loads(b"[" + b"1," * 20_000 + b"1]", max_body=1000)
    assert len(strict_json.loads(b"[" + b"1," * 1_000_000 + b"1]")) == 1_000_001


def models():
    """All objects of requests."""
    for name in ("chat", "completions", "messages", "responses"):
        importlib.import_module(f"{wire.__name__}.{name}")
    found, rest = set(), [Wire]
    while rest:
        found.add(model := rest.pop())
        rest += model.__subclasses__()
    return sorted(found, key=lambda model: f"{model.__module__}.{model.__name__}")


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_list_and_dict_is_bounded_and_stops_at_its_first_error(model):
    def walk(schema):
        if isinstance(schema, dict):
            if schema.get("type") in ("list", "dict", "set", "tuple", "frozenset", "generator"):
                assert schema["type"] in {"list", "dict"}, "bound this kind too"
                assert schema["max_length"] <= 1 << 20
                assert schema["fail_fast"]
            for item in schema.values():
                walk(item)
        elif isinstance(schema, (list, tuple)):
            for item in schema:
                walk(item)

    assert issubclass(model, BaseModel)
    walk(TypeAdapter(model).core_schema)
