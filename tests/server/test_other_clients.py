"""Anthropic's client, LangChain, OpenAI's responses, and curl."""

import json
import os
import shutil
import subprocess

import pytest

from .conftest import HELLO, NAME

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "Get the weather in a city.", "parameters": CITY}
QUESTION = "What is the weather in Paris?"


def test_anthropic(server, model):
    anthropic = pytest.importorskip("anthropic", reason="needs anthropic: pip install anthropic")
    expected = model.chat(HELLO, temperature=0)
    # A newer client sends its key in two headers.
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        options = {"model": NAME, "max_tokens": 50, "messages": HELLO, "extra_body": {"temperature": 0}}
        message = client.messages.create(**options)
        assert message.content[0].text == expected.content
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == expected.usage.completion_tokens
        with client.messages.stream(**options) as stream:
            assert "".join(stream.text_stream) == expected.content
            assert stream.get_final_message().stop_reason == "end_turn"
        count = client.messages.count_tokens(model=NAME, messages=HELLO)
        assert count.input_tokens == expected.usage.prompt_tokens
        stopped = client.messages.create(**options, stop_sequences=["How"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "How")
        assert client.messages.create(**{**options, "max_tokens": 1}).stop_reason == "max_tokens"
        told = client.messages.create(**options, system=[{"type": "text", "text": "Be kind."}])
        assert told.content
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**{**options, "model": "other"})
        question = {**options, "messages": [{"role": "user", "content": "What is 3 plus 4?"}]}
        for budget in (2, 1024):
            answer = client.messages.create(**question, thinking={"type": "enabled", "budget_tokens": budget})
            thought = model.chat(question["messages"], temperature=0, enable_thinking=True, reasoning_budget=budget)
            assert [block.type for block in answer.content] == ["thinking", "text"]
            assert answer.content[0].thinking == thought.reasoning_content
            assert answer.usage.output_tokens == thought.usage.completion_tokens
        with pytest.raises(anthropic.BadRequestError, match="budget_tokens"):
            client.messages.create(**options, thinking={"type": "enabled"})


def test_anthropic_tools(server):
    anthropic = pytest.importorskip("anthropic", reason="needs anthropic: pip install anthropic")
    tool = {"name": "get_weather", "description": WEATHER["description"], "input_schema": CITY}
    turns = [{"role": "user", "content": QUESTION}]
    options = {"model": NAME, "max_tokens": 60, "tools": [tool], "extra_body": {"temperature": 0}}
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        message = client.messages.create(messages=turns, **options)
        (use,) = message.content
        assert (message.stop_reason, use.type, use.name, use.input) == (
            "tool_use",
            "tool_use",
            "get_weather",
            {"city": "Paris"},
        )
        with client.messages.stream(messages=turns, **options) as stream:
            assert stream.get_final_message().content[0].input == {"city": "Paris"}
        result = {"type": "tool_result", "tool_use_id": use.id, "content": '{"temp": 21, "sky": "sunny"}'}
        turns += [{"role": "assistant", "content": [use.model_dump(exclude_none=True)]}]
        turns += [{"role": "user", "content": [result]}]
        assert "21" in client.messages.create(messages=turns, **options).content[0].text


def test_openai_responses_tools(server):
    openai = pytest.importorskip("openai", reason="needs openai: pip install 'fastllm[openai]'")
    options = {"model": NAME, "tools": [{"type": "function", **WEATHER}], "temperature": 0}
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        response = client.responses.create(input=QUESTION, **options)
        (call,) = response.output
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})
        with client.responses.stream(input=QUESTION, **options) as stream:
            assert json.loads(stream.get_final_response().output[0].arguments) == {"city": "Paris"}
        items = [{"role": "user", "content": QUESTION}, call.model_dump(exclude_none=True)]
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": '{"temp": 21, "sky": "sunny"}'}]
        assert "21" in client.responses.create(input=items, **options).output_text


def test_openai_responses(server, model):
    openai = pytest.importorskip("openai", reason="needs openai: pip install 'fastllm[openai]'")
    expected = model.chat(HELLO, temperature=0)
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        response = client.responses.create(model=NAME, input="Hello!", temperature=0)
        assert response.output_text == expected.content
        assert response.status == "completed"
        assert response.usage.input_tokens == expected.usage.prompt_tokens
        with client.responses.stream(model=NAME, input="Hello!", temperature=0) as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            assert text == stream.get_final_response().output_text == expected.content
        cut = client.responses.create(model=NAME, input="Hello!", max_output_tokens=2)
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        told = client.responses.create(
            model=NAME,
            instructions="Be kind.",
            input=[{"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}],
            temperature=0,
            include=["message.output_text.logprobs"],
            top_logprobs=2,
        )
        logprobs = told.output[0].content[0].logprobs
        assert "".join(token.token for token in logprobs) == told.output_text
        with pytest.raises(openai.BadRequestError, match="store"):
            client.responses.create(model=NAME, input="x", store=True)
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            client.responses.create(model=NAME, input="x", previous_response_id="resp_1")


@pytest.mark.filterwarnings("default")
def test_langchain(server, model):
    langchain = pytest.importorskip("langchain_openai", reason="needs langchain-openai: pip install langchain-openai")
    chat = langchain.ChatOpenAI(base_url=server.url + "/v1", api_key="none", model=NAME, temperature=0, max_retries=0)
    expected = model.chat(HELLO, temperature=0)
    reply = chat.invoke("Hello!")
    assert reply.content == expected.content
    assert reply.usage_metadata["input_tokens"] == expected.usage.prompt_tokens
    assert "".join(chunk.content for chunk in chat.stream("Hello!")) == expected.content


@pytest.mark.filterwarnings("default")
def test_langchain_tools_and_forms(server):
    langchain = pytest.importorskip("langchain_openai", reason="needs langchain-openai: pip install langchain-openai")
    pydantic = pytest.importorskip("pydantic")

    class Person(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=12)
        age: int

    chat = langchain.ChatOpenAI(base_url=server.url + "/v1", api_key="none", model=NAME, temperature=0, max_retries=0)
    agent = chat.bind_tools([{"type": "function", "function": WEATHER}])
    reply = agent.invoke(QUESTION)
    (call,) = reply.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    whole = None
    for chunk in agent.stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("get_weather", {"city": "Paris"})]
    result = {"role": "tool", "tool_call_id": call["id"], "content": '{"temp": 21, "sky": "sunny"}'}
    assert "21" in agent.invoke([("user", QUESTION), reply, result]).content
    person = chat.with_structured_output(Person).invoke("Give me a JSON object with name and age: Asha is 7 years old.")
    assert person == Person(name="Asha", age=7)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(server, model):
    expected = model.chat(HELLO, temperature=0).content
    url = f"{server.url}/v1/chat/completions"
    command = ["curl", "-sN", url, "-H", "Content-Type: application/json"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}

    def curl(body):
        result = subprocess.run(
            [*command, "-d", json.dumps(body)], capture_output=True, text=True, check=True, env=environment
        )
        return result.stdout

    body = {"model": NAME, "messages": HELLO, "temperature": 0}
    assert json.loads(curl(body))["choices"][0]["message"]["content"] == expected
    lines = curl({**body, "stream": True}).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected
    ask = {
        **body,
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [{"type": "function", "function": WEATHER}],
    }
    (call,) = json.loads(curl(ask))["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"enum": ["yes", "no"]}}}
    assert json.loads(curl({**body, "response_format": form}))["choices"][0]["message"]["content"] in {'"yes"', '"no"'}
