"""A last message of the assistant: continued where it is asked for, refused otherwise."""

import json
from types import SimpleNamespace

import pytest

import fastllm
from fastllm.server.inprocess import http_client
from fastllm.server.routes.messages import _thinking

QUESTION = {"role": "user", "content": "What is the capital of France?"}
BEGUN = [QUESTION, {"role": "assistant", "content": "The capital of"}]
GREEDY = {"max_tokens": 12, "temperature": 0}
CHAT = "/v1/chat/completions"


@pytest.fixture
def expected(model):
    return model.chat(BEGUN, continue_final_message=True, **GREEDY).content


def chat(server, **fields):
    return server.post(CHAT, {"messages": BEGUN, **GREEDY, **fields})


CONTINUED = {"continue_final_message": True}
NOT_OPENED = {"add_generation_prompt": False}


@pytest.mark.parametrize("fields", [CONTINUED, NOT_OPENED, CONTINUED | NOT_OPENED])
def test_openai_continues_where_asked(server, expected, fields):
    status, body = chat(server, **fields)
    assert status == 200, body
    assert body["choices"][0]["message"]["content"] == expected


def test_openai_streams_what_is_new(server, expected):
    body = {"messages": BEGUN, **GREEDY, "continue_final_message": True, "stream": True}
    status, _, raw = server.request("POST", CHAT, body)
    assert status == 200
    events = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == expected


def test_openai_begins_a_new_answer_where_asked(server, model):
    reply = model.chat(BEGUN, continue_final_message=False, **GREEDY).content
    for fields in ({"add_generation_prompt": True}, {"add_generation_prompt": True, "continue_final_message": False}):
        assert chat(server, **fields)[1]["choices"][0]["message"]["content"] == reply


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "continue_final_message = true continues it"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "cannot both be true"),
        ({"continue_final_message": False, "add_generation_prompt": False}, "needs continue_final_message = true"),
        ({"messages": [QUESTION], "continue_final_message": True}, "must be the assistant's"),
        ({"messages": [QUESTION], "add_generation_prompt": False}, "needs a last message of the assistant"),
    ],
)
def test_openai_refuses_the_rest(server, fields, message):
    status, body = chat(server, **fields)
    assert status == 400
    assert message in body["error"]["message"]


def test_anthropic_continues(server, expected):
    body = {"model": "fastllm-tiny", "messages": BEGUN, **GREEDY}
    status, answer = server.post("/v1/messages", body)
    assert status == 200, answer
    assert "".join(block["text"] for block in answer["content"]) == expected
    blocks = [QUESTION, {"role": "assistant", "content": [{"type": "text", "text": "The capital of"}]}]
    assert server.post("/v1/messages", {**body, "messages": blocks})[1]["content"] == answer["content"]
    counted = server.post("/v1/messages/count_tokens", {"model": "fastllm-tiny", "messages": BEGUN})[1]
    usage = answer["usage"]
    assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]
    status, _, raw = server.request("POST", "/v1/messages", {**body, "stream": True})
    events = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: {")]
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == expected


def test_anthropic_calls_without_results_are_refused(server):
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    body = {"model": "fastllm-tiny", "messages": [QUESTION, {"role": "assistant", "content": [use]}], "max_tokens": 5}
    status, answer = server.post("/v1/messages", body)
    assert status == 400
    assert "tool calls" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("template", "type_", "expected"),
    [
        ("{{ enable_thinking }}<think>", "disabled", ({"enable_thinking": False}, None)),
        ("{{ thinking }}<think>", "disabled", ({"thinking": False}, None)),
        ("{{ thinking }}<think>", "adaptive", ({"thinking": True}, None)),
        # Thinking that cannot be turned off is ended at once.
        ("<think>", "disabled", ({}, 0)),
        ("<think>", "adaptive", ({}, None)),
        # A model without reasoning does not think anyway.
        ("{{ messages }}", "disabled", ({}, None)),
    ],
)
def test_thinking_is_what_the_template_knows(template, type_, expected):
    model = SimpleNamespace(chat_template=fastllm.ChatTemplate(template))
    assert _thinking(model, SimpleNamespace(thinking=SimpleNamespace(type=type_))) == expected


def test_thinking_is_accepted_of_every_model(smollm2_path):
    httpx = pytest.importorskip("httpx")
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = {"model": "m", "max_tokens": 4, "thinking": thinking, "messages": [QUESTION]}
    with fastllm.Model(smollm2_path) as model, http_client({"m": model}, httpx.Client) as client:
        answer = client.post("http://fastllm/v1/messages", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["content"][0]["type"] == "text"
