"""Requests in the words of other servers and their clients: accepted, an alias, or refused by name."""

import json
import logging

import httpx
import pytest

from fastllm.server.app import create_app
from fastllm.server.options import ServerOptions

from . import fake
from .conftest import HELLO, NAME

CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)


@pytest.fixture
async def client(model):
    """Requests to the embedded model."""
    transport = httpx.ASGITransport(create_app({NAME: model}))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def calls():
    return fake.Model(fake.CALLS.chunks, fake.CALLS.reply)


async def ask(model, path, body, options=None):
    transport = httpx.ASGITransport(create_app({"m": model}, options))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path, json=body)


def chat(**fields):
    return {"messages": HELLO, "max_tokens": 2, "temperature": 0, **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"verbosity": "low"},
        {"prompt_cache_retention": "24h"},
        {"service_tier": "flex"},
        {"prediction": {"type": "content", "content": "Hello"}},
        {"cache_control": None, "echo": False, "skip_special_tokens": True, "min_tokens": 0},
        {"guided_decoding_backend": "outlines", "spaces_between_special_tokens": False},
        {"messages": [{"role": "user", "content": "Hello!", "cache_control": {"type": "ephemeral"}}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Hello!", "cache_control": {"type": "ephemeral"}}],
                }
            ]
        },
        {"top_k": -1},
        {"seed": -1},
        {"max_completion_tokens": 2, "max_tokens": None},
    ],
)
async def test_what_cannot_change_the_text_is_accepted(client, fields):
    plain = (await client.post(CHAT, json=chat())).json()["choices"][0]["message"]
    response = await client.post(CHAT, json=chat(**fields))
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"] == plain


async def test_a_number_that_means_no_limit(client):
    body = {"prompt": "Once upon a time", "temperature": 0, "ignore_eos": True}
    tokens = {
        most: (await client.post(COMPLETIONS, json={**body, "max_tokens": most})).json()["usage"]["completion_tokens"]
        for most in (0, 3, -1)
    }
    assert (tokens[0], tokens[3]) == (0, 3)
    assert tokens[-1] > 100
    for path, name in ((CHAT, "max_tokens"), (CHAT, "max_completion_tokens"), (RESPONSES, "max_output_tokens")):
        asked = {"input": "Hello!"} if path == RESPONSES else {"messages": HELLO}
        assert (await client.post(path, json={**asked, name: -1})).status_code == 200
        for wrong in (0, -2):
            response = await client.post(path, json={**asked, name: wrong})
            assert (response.status_code, response.json()["error"]["param"]) == (400, name)


NUMBER = {"type": "integer", "minimum": 3, "maximum": 3}


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({"guided_choice": ["green"]}, "green"),
        ({"guided_regex": "gre{2}n"}, "green"),
        ({"guided_json": {"const": "green"}}, '"green"'),
        ({"guided_json": '{"const": "green"}'}, '"green"'),
        ({"guided_grammar": 'root ::= "green"'}, "green"),
        ({"json_schema": {"const": 3}}, "3"),
        ({"structured_outputs": {"choice": ["green"]}}, "green"),
        ({"structured_outputs": {"json": {"const": 3}, "disable_fallback": True}}, "3"),
        ({"structured_outputs": {"regex": "gre{2}n"}}, "green"),
        ({"structured_outputs": {"grammar": 'root ::= "green"'}}, "green"),
        ({"response_format": {"type": "json_object", "schema": {"const": {"a": 1}}}}, '{"a":1}'),
    ],
)
async def test_structured_output_in_the_words_of_others(client, fields, content):
    body = chat(max_tokens=100, **fields)
    response = await client.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"].replace(" ", "") == content
    if "response_format" not in fields:
        response = await client.post(COMPLETIONS, json={"prompt": "A colour:", "max_tokens": 100, **fields})
        assert response.json()["choices"][0]["text"].replace(" ", "") == content


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "a", "regex": "b"}, "guided_regex"),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repeat_penalty"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern"),
        ({"min_tokens": 5}, "min_tokens"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"verbosity": "loud"}, "verbosity"),
        ({"bad_words": ["x"]}, "bad_words"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
    ],
)
async def test_the_rest_is_refused_by_name(client, fields, param):
    response = await client.post(CHAT, json=chat(**fields))
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_repeat_penalty_is_the_repetition_penalty(calls):
    await ask(calls, CHAT, {**chat(), "repeat_penalty": 1.3, "thinking_token_budget": 7})
    assert calls.asked.params.repetition_penalty == pytest.approx(1.3)
    assert calls.asked.reasoning_budget == 7
    await ask(calls, CHAT, {**chat(), "seed": -5, "top_k": -1})
    assert calls.asked.params.seed is None
    assert calls.asked.params.top_k == 0


async def test_tokenize_in_the_words_of_llama_cpp(client, model):
    async def tokens(**body):
        response = await client.post("/tokenize", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    plain = model.tokenizer.encode("Hello", add_special=False)
    whole = model.tokenizer.encode("Hello")
    assert (await tokens(content="Hello"))["tokens"] == plain
    assert (await tokens(content="Hello", add_special=True))["tokens"] == whole
    assert (await tokens(prompt="Hello"))["tokens"] == whole
    end = model.tokenizer.token(model.tokenizer.eos_id)
    assert (await tokens(prompt=end, add_special_tokens=False))["tokens"] == [model.tokenizer.eos_id]
    assert len((await tokens(content=end, parse_special=False))["tokens"]) > 1
    assert "".join((await tokens(content="Hello", return_token_strs=True))["token_strs"]).strip() == "Hello"
    text = (await client.post("/detokenize", json={"tokens": plain})).json()
    assert text["prompt"] == text["content"]
    for wrong in ({"content": "x", "prompt": "x"}, {"content": "x", "add_special_tokens": True}, {}):
        assert (await client.post("/tokenize", json=wrong)).status_code == 400


async def test_tokenizer_info(client, model):
    info = (await client.get("/tokenizer_info")).json()
    assert info["eos_token"] == model.tokenizer.token(model.tokenizer.eos_id)
    assert info["chat_template"] == model.chat_template.source
    assert info["model_max_length"] == model.context_length


async def test_head_and_paths_without_a_version(client):
    for path in ("/", "/health", "/v1/models", "/models", f"/models/{NAME}"):
        head, whole = await client.head(path), await client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
    assert (await client.head("/v1/chat/completions")).status_code == 405
    assert (await client.head("/nothing")).status_code == 404
    assert (await client.post("/chat/completions", json=chat())).status_code == 200
    assert (await client.post("/completions", json={"prompt": "x", "max_tokens": 1})).status_code == 200
    assert (await client.post("/responses", json={"input": "x", "max_output_tokens": 1})).status_code == 200
    assert (await client.post("/messages", json={"messages": HELLO, "max_tokens": 1})).status_code == 200
    assert (await client.post("/messages", json={})).json()["type"] == "error"


async def test_models_by_other_names(calls):
    options = ServerOptions(aliases={"gpt-4o": "m"})
    body = chat(model="gpt-4o")
    assert (await ask(calls, CHAT, body, options)).json()["model"] == "m"
    assert (await ask(calls, CHAT, {**body, "model": "gpt-5"}, options)).status_code == 404
    assert (await ask(calls, CHAT, {**body, "model": "gpt-5"}, ServerOptions(any_model_name=True))).status_code == 200
    with pytest.raises(ValueError, match="alias"):
        create_app({"m": calls}, ServerOptions(aliases={"x": "y"}))


async def test_models_in_the_shape_of_anthropic(model):
    options = ServerOptions(aliases={"claude": "a"})
    transport = httpx.ASGITransport(create_app({"a": model, "b": model}, options))
    version = {"anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert [one["id"] for one in (await client.get("/v1/models")).json()["data"]] == ["a", "b", "claude"]
        page = (await client.get("/v1/models", headers=version)).json()
        assert [(one["type"], one["id"]) for one in page["data"]] == [("model", name) for name in ("a", "b", "claude")]
        assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "a", "claude")
        page = (await client.get("/v1/models?limit=1&after_id=a", headers=version)).json()
        assert ([one["id"] for one in page["data"]], page["has_more"]) == (["b"], True)
        page = (await client.get("/v1/models?limit=1&before_id=claude", headers=version)).json()
        assert [one["id"] for one in page["data"]] == ["b"]
        assert (await client.get("/v1/models/claude", headers=version)).json()["display_name"] == "claude"
        for wrong in ("limit=0", "limit=x", "after_id=x"):
            assert (await client.get(f"/v1/models?{wrong}", headers=version)).status_code in {400, 404}


async def test_a_context_that_is_too_short_says_its_length(client, model):
    long = "word " * (model.context_length + 10)
    for path, body in (
        (CHAT, {"messages": [{"role": "user", "content": long}]}),
        (COMPLETIONS, {"prompt": long}),
        (RESPONSES, {"input": long}),
        (MESSAGES, {"messages": [{"role": "user", "content": long}], "max_tokens": 1}),
    ):
        response = await client.post(path, json=body)
        message = response.json()["error"]["message"]
        assert response.status_code == 400
        assert f"maximum context length is {model.context_length} tokens" in message
        assert message.startswith("prompt is too long")


# Prompt log-probabilities


async def test_echo_with_logprobs(client, model):
    story = "Once upon a time, there was"
    made = model.generate(story, max_tokens=5, temperature=0, logprobs=2)
    ids = model.tokenizer.encode(story)
    expected = model.generate([*ids, *made.token_ids], max_tokens=0, prompt_logprobs=2).prompt_logprobs
    assert expected[len(ids) :] == made.logprobs
    body = {"prompt": story, "max_tokens": 5, "temperature": 0, "echo": True, "logprobs": 2}
    choice = (await client.post(COMPLETIONS, json=body)).json()["choices"][0]
    found = choice["logprobs"]
    assert choice["text"] == story + made.text
    assert found["token_logprobs"] == [None, *(token.logprob for token in expected[1:])]
    assert found["top_logprobs"][0] is None
    assert all(len(top) <= 2 for top in found["top_logprobs"][1:])
    assert len(found["tokens"]) == len(found["text_offset"]) == len(ids) + 5
    for token, offset in list(zip(found["tokens"], found["text_offset"], strict=True))[1:]:
        assert choice["text"][offset:].startswith(token)
    only = (await client.post(COMPLETIONS, json={**body, "prompt": ids, "max_tokens": 0})).json()["choices"][0]
    assert only["logprobs"]["token_logprobs"] == found["token_logprobs"][: len(ids)]
    assert only["finish_reason"] == "length"
    response = await client.post(COMPLETIONS, json={**body, "stream": True})
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    parts = [chunk["choices"][0] for chunk in chunks]
    assert "".join(part["text"] for part in parts) == choice["text"]
    for name, values in found.items():
        assert [one for part in parts if part["logprobs"] for one in part["logprobs"][name]] == values


async def test_several_prompts_with_echo(client):
    body = {"prompt": [[5, 6, 7], [9, 8]], "n": 2, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
    choices = (await client.post(COMPLETIONS, json=body)).json()["choices"]
    assert [len(choice["logprobs"]["tokens"]) for choice in choices] == [4, 4, 3, 3]
    assert all(choice["logprobs"]["token_logprobs"][0] is None for choice in choices)


async def test_too_many_logprobs_of_prompts_are_refused(client, monkeypatch):
    monkeypatch.setattr("fastllm.server.routes.completions._MAX_PROMPT_LOGPROBS", 10)
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 0, "echo": True, "logprobs": 1}
    assert (await client.post(COMPLETIONS, json=body)).status_code == 200
    response = await client.post(COMPLETIONS, json={**body, "logprobs": 2})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "logprobs")


# Agents


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "fastllm.server")

    def find():
        return [record.fields["kinds"] for record in caplog.records if record.getMessage() == "tools skipped"]

    return find


FUNCTION = {
    "type": "function",
    "name": "shell",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}},
}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_coding_agent_on_responses(calls, lines, stream):
    """The shape of what Codex sends, with a conversation that has all kinds of items."""
    body = {
        "model": "m",
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix the bug."}]},
            {"type": "reasoning", "summary": [], "content": None, "encrypted_content": None},
            {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
            {
                "type": "message",
                "role": "assistant",
                "phase": "commentary",
                "content": [{"type": "output_text", "text": "I look."}],
            },
            {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "c1"},
            {"type": "custom_tool_call", "status": "completed", "call_id": "c2", "name": "apply_patch", "input": "*"},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "a.py"}]},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "Done"},
        ],
        "tools": [
            FUNCTION,
            {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark"}},
            {"type": "web_search", "external_web_access": False},
            {"type": "local_shell"},
            {"type": "namespace", "name": "mcp__files", "description": "Files", "tools": [FUNCTION]},
            {"type": "tool_search", "execution": "client", "description": "x", "parameters": {}},
            {"type": "image_generation", "output_format": "png"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": stream,
        "include": ["reasoning.encrypted_content"],
        "service_tier": "priority",
        "prompt_cache_key": "0199a213-81c0-7800-8aa1-bbab2a035a53",
        "text": {"verbosity": "medium"},
        "client_metadata": {"x-codex-installation-id": "11"},
    }
    response = await ask(calls, RESPONSES, body)
    assert response.status_code == 200, response.text
    assert lines() == ["custom,image_generation,local_shell,namespace,tool_search,web_search,web_search_call"]
    assert [tool["function"]["name"] for tool in calls.asked.tools] == ["shell"]
    system, developer, user, assistant, *results = calls.asked.messages
    assert [system["role"], developer["role"], user["role"]] == ["system", "system", "user"]
    assert assistant["content"] == "I look."
    names = [call["function"]["name"] for call in assistant["tool_calls"]]
    assert names == ["shell", "apply_patch"]
    assert json.loads(assistant["tool_calls"][1]["function"]["arguments"]) == {"input": "*"}
    assert [result["content"] for result in results] == ["a.py", "Done"]
    if stream:
        blocks = [block.rpartition("data: ")[2] for block in response.text.split("\n\n")[:-1]]
        whole = json.loads(blocks[-1])["response"]
    else:
        whole = response.json()
    assert whole["status"] == "completed"
    assert [tool["type"] for tool in whole["tools"]] == ["function"]
    # What the client keeps of the reasoning comes back to the model.
    sealed = whole["output"][0]["encrypted_content"]
    again = [{"type": "reasoning", "summary": [], "encrypted_content": sealed}, {"role": "user", "content": "And?"}]
    assert (await ask(calls, RESPONSES, {"input": again})).status_code == 200
    assert calls.asked.messages[0]["reasoning_content"] == "Hmm."
    foreign = [{"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}, {"role": "user", "content": "And?"}]
    await ask(calls, RESPONSES, {"input": foreign})
    assert [message["role"] for message in calls.asked.messages] == ["user"]


@pytest.mark.parametrize("effort", ["low", "medium"])
async def test_effort_is_a_hint_where_agents_send_it(client, effort):
    """The embedded model has no such thing; chat/completions says so, because there it was asked for on purpose."""
    body = {"input": "Hello!", "max_output_tokens": 2, "reasoning": {"effort": effort}}
    assert (await client.post(RESPONSES, json=body)).status_code == 200
    body = {"messages": HELLO, "max_tokens": 2, "output_config": {"effort": effort}}
    assert (await client.post(MESSAGES, json=body)).status_code == 200
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert (await client.post(MESSAGES, json={**body, "thinking": thinking})).status_code == 200
    assert (await client.post(MESSAGES + "/count_tokens", json={"messages": HELLO, "thinking": thinking})).is_success
    response = await client.post(CHAT, json=chat(reasoning_effort=effort))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "reasoning_effort")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_coding_agent_on_messages(calls, lines, stream):
    """The shape of what Claude Code sends, with a conversation that has all kinds of blocks."""
    cached = {"cache_control": {"type": "ephemeral"}}
    body = {
        "model": "m",
        "max_tokens": 32000,
        "system": [
            {"type": "text", "text": "You are a coding agent.", **cached},
            {"type": "text", "text": " Be brief.", "cache_control": {**cached["cache_control"], "scope": "global"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "<reminder>"}, {"type": "text", "text": "Fix it."}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "thinking", "thinking": "Hm.", "signature": "abc"},
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
                    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result"}]},
                    {"type": "text", "text": "I look.", "citations": [{"type": "web_search_result_location"}]},
                    {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}, "caller": {"type": "direct"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a.py", **cached}]},
        ],
        "tools": [
            {
                "name": "Bash",
                "description": "Runs a command.",
                "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
                "eager_input_streaming": True,
                **cached,
            },
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        "metadata": {"user_id": "user_1"},
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "thread": {"type": "create"},
        "stream": stream,
    }
    response = await ask(calls, MESSAGES + "?beta=true", body)
    assert response.status_code == 200, response.text
    assert lines() == ["server_tool_use,web_search_20250305,web_search_tool_result"]
    system, user, assistant, result = calls.asked.messages
    assert system == {"role": "system", "content": "You are a coding agent. Be brief."}
    assert user["content"] == "<reminder>Fix it."
    assert (assistant["content"], assistant["reasoning_content"]) == ("I look.", "Hm.")
    assert [call["id"] for call in assistant["tool_calls"]] == ["t1"]
    assert result["content"] == "a.py"
    assert [tool["function"]["name"] for tool in calls.asked.tools] == ["Bash"]
    if stream:
        assert '"context_management":{"applied_edits":[]}' in response.text
        assert response.text.rstrip().endswith('{"type":"message_stop"}')
    else:
        assert response.json()["context_management"] == {"applied_edits": []}
        assert response.json()["stop_reason"] == "tool_use"


async def test_a_stored_thread_is_not_found_and_the_client_sends_everything(client):
    body = {"messages": HELLO, "max_tokens": 1, "thread": {"type": "continue", "previous_message_id": "msg_1"}}
    for path in (MESSAGES, MESSAGES + "/count_tokens"):
        response = await client.post(path, json={**body} if path == MESSAGES else {**body, "max_tokens": None})
        error = response.json()["error"]
        assert (response.status_code, error["type"]) == (404, "not_found_error")
        assert error["details"] == {"error_code": "thread_not_found"}
    assert (await client.post(MESSAGES, json={**body, "thread": {"type": "create"}})).status_code == 200


async def test_tools_that_are_all_skipped_cannot_be_required(client):
    tools = [{"type": "web_search"}]
    response = await client.post(RESPONSES, json={"input": "x", "tools": tools, "tool_choice": "required"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tool_choice")
    response = await client.post(RESPONSES, json={"input": "x", "tools": tools, "max_output_tokens": 1})
    assert response.status_code == 200
