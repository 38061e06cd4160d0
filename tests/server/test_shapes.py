"""The forms of answers with reasoning and tool calls, in all three interfaces, read by the official clients."""

import json

import httpx
import pytest

from fastllm.errors import SamplingError
from fastllm.server.app import create_app

from . import fake
from .conftest import HELLO

TOOLS = ("get_weather", "add")
CHAT_TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in TOOLS]


@pytest.fixture
def calls():
    return fake.Model(fake.CALLS.chunks, fake.CALLS.reply)


async def post(model, path, body):
    transport = httpx.ASGITransport(create_app({"m": model}))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path, json={"model": "m", **body})


def events(response):
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    found = []
    for block in response.text.split("\n\n")[:-1]:
        name, _, data = block.rpartition("data: ")
        found.append((name.removeprefix("event: ").strip(), json.loads(data) if data != "[DONE]" else None))
    return found


async def test_chat(calls):
    response = await post(calls, "/v1/chat/completions", {"messages": HELLO, "tools": CHAT_TOOLS})
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"] == "Hmm."
    assert choice["message"]["content"] == "Let me see."
    assert choice["message"]["tool_calls"][1] == {
        "id": "call_2",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
    }
    assert response.json()["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 6,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert calls.asked.tools == CHAT_TOOLS


async def test_chat_streamed(calls):
    body = {"messages": HELLO, "tools": CHAT_TOOLS, "tool_choice": "required", "stream": True}
    found = events(await post(calls, "/v1/chat/completions", body))
    assert found[-1] == ("", None)
    deltas = [data["choices"][0]["delta"] for _, data in found[:-1]]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hmm."
    parts = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert parts[0] == {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": ""},
    }
    assert parts[1] == {"index": 0, "function": {"arguments": '{"city": '}}
    assert parts[3]["index"] == 1
    assert found[-2][1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    assert calls.asked.tool_choice == "required"


@pytest.mark.parametrize("stream", [False, True])
async def test_responses(calls, stream):
    tools = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in TOOLS]
    response = await post(calls, "/v1/responses", {"input": "Hello!", "tools": tools, "stream": stream})
    if stream:
        found = events(response)
        assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
        assert all(name == data["type"] for name, data in found)
        names = [name for name, _ in found]
        assert names[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
        assert names.count("response.output_item.done") == 4
        assert names[-1] == "response.completed"
        arguments = "".join(
            d["delta"] for n, d in found if n == "response.function_call_arguments.delta" and d["output_index"] == 2
        )
        assert arguments == '{"city": "Paris"}'
        assert found[0][1]["response"]["status"] == "in_progress"
        whole = found[-1][1]["response"]
    else:
        whole = response.json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert {item["status"] for item in whole["output"]} == {"completed"}
    assert whole["output"][0]["content"] == [{"type": "reasoning_text", "text": "Hmm."}]
    assert whole["output"][1]["content"][0]["text"] == "Let me see."
    assert whole["output"][2]["arguments"] == '{"city": "Paris"}'
    assert whole["output"][3]["call_id"] == "call_2"
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert whole["store"] is False
    # An answer goes back as input.
    again = [*whole["output"], {"type": "function_call_output", "call_id": "call_1", "output": "21"}]
    assert (await post(calls, "/v1/responses", {"input": again, "tools": tools})).status_code == 200
    assistant, tool = calls.asked.messages
    assert assistant["reasoning_content"] == "Hmm."
    assert assistant["content"] == "Let me see."
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_1", "call_2"]
    assert tool == {"role": "tool", "tool_call_id": "call_1", "content": "21"}


@pytest.mark.parametrize("stream", [False, True])
async def test_messages(calls, stream):
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in TOOLS]
    body = {"messages": HELLO, "max_tokens": 9, "tools": tools, "tool_choice": {"type": "any"}, "stream": stream}
    response = await post(calls, "/v1/messages", body)
    blocks = []
    if stream:
        found = events(response)
        assert [name for name, _ in found][:3] == ["message_start", "ping", "content_block_start"]
        assert [name for name, _ in found][-2:] == ["message_delta", "message_stop"]
        for name, data in found:
            if name == "content_block_start":
                assert data["index"] == len(blocks)
                blocks.append({**data["content_block"], "json": ""})
            elif name == "content_block_delta":
                delta, block = data["delta"], blocks[data["index"]]
                key = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
                into = "json" if delta["type"] == "input_json_delta" else key[delta["type"]]
                block[into] += delta[key[delta["type"]]]
        for block in blocks:
            text = block.pop("json")
            if block["type"] == "tool_use":
                block["input"] = json.loads(text)
        end = found[-2][1]
        reason, usage = end["delta"]["stop_reason"], end["usage"]
        assert found[0][1]["message"]["usage"]["input_tokens"] == 10
    else:
        message = response.json()
        blocks, reason, usage = message["content"], message["stop_reason"], message["usage"]
    assert blocks == [
        {"type": "thinking", "thinking": "Hmm.", "signature": ""},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "call_2", "name": "add", "input": {"a": 1, "b": 2}},
    ]
    assert reason == "tool_use"
    assert usage == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 6,
    }
    assert calls.asked.tool_choice == "required"
    result = {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": [{"type": "text", "text": "21"}],
        "is_error": True,
    }
    turns = [*HELLO, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
    assert (await post(calls, "/v1/messages", {**body, "messages": turns, "stream": False})).status_code == 200
    _, assistant, tool = calls.asked.messages
    assert assistant["reasoning_content"] == "Hmm."
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    assert tool["content"] == "Error: 21"


async def test_a_mistake_of_ours_is_no_secret_and_says_no_secret(calls):
    calls.chunks = [fake.chunk("a"), RuntimeError("the secret")]
    for body in ({"messages": HELLO}, {"messages": HELLO, "stream": True}):
        response = await post(calls, "/v1/chat/completions", body)
        assert "the server made a mistake" in response.text
        assert "secret" not in response.text
        assert response.status_code == (200 if "stream" in body else 500)


async def test_errors_in_the_middle_of_a_stream_are_events(calls):
    calls.chunks = [fake.chunk("a"), SamplingError("every logit is NaN")]
    found = events(await post(calls, "/v1/responses", {"input": "x", "stream": True}))
    assert found[-1][0] == "response.failed"
    assert found[-1][1]["response"]["error"]["code"] == "server_error"
    found = events(await post(calls, "/v1/messages", {"messages": HELLO, "max_tokens": 5, "stream": True}))
    assert found[-1][0] == "error"
    assert found[-1][1]["error"]["type"] == "api_error"


async def test_structured_output_reaches_the_library(calls):
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    await post(calls, "/v1/chat/completions", {"messages": HELLO, "response_format": form})
    assert calls.asked.response_format == form
    text = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    await post(calls, "/v1/responses", {"input": "x", "text": text, "reasoning": {"effort": "low"}})
    assert calls.asked.response_format == form
    assert calls.asked.reasoning_effort == "low"
    config = {"format": {"type": "json_schema", "schema": schema}, "effort": "high"}
    await post(calls, "/v1/messages", {"messages": HELLO, "max_tokens": 5, "output_config": config})
    assert calls.asked.response_format["json_schema"]["schema"] == schema
    assert calls.asked.reasoning_effort == "high"
