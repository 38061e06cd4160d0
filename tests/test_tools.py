"""Tool calling and reasoning through the Python interface."""

import asyncio
import datetime as dt
import enum
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest

import fastllm
from fastllm import ToolCall, ToolCallDelta, _native, describe_tool

from .conftest import ROOT

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


def get_weather(city: str):
    """Get the weather in a city.

    Args:
        city: The city.
    """


@pytest.fixture(scope="module")
def cases(golden):
    return [case for case in golden if case["kind"] == "tools" or "<think>" in case["text"]]


def expected(text):
    """Reasoning, content and calls of a golden text, by plain string operations."""
    reasoning = None
    if text.startswith("<think>"):
        reasoning, text = text.removeprefix("<think>").split("</think>", 1)
        reasoning, text = reasoning.strip(), text.lstrip()
    content, *calls = text.split("<tool_call>")
    calls = [json.loads(call.split("</tool_call>")[0]) for call in calls]
    return reasoning, content.rstrip() if calls else content, [(call["name"], call["arguments"]) for call in calls]


def options(case):
    return {"tools": case.get("tools"), "temperature": 0, "max_tokens": case["max_tokens"]}


def check(reply, case):
    reasoning, content, calls = expected(case["text"])
    assert (reply.reasoning_content, reply.content) == (reasoning, content)
    assert [(call.name, call.parse()) for call in reply.tool_calls] == calls
    assert reply.finish_reason == ("tool_calls" if calls else case["finish"])
    assert reply.malformed_calls == ()


def test_golden_answers_come_apart(model, cases):
    assert len(cases) > 12
    assert sum("<tool_call>" in case["text"] for case in cases) >= 6
    for case in cases:
        check(model.chat(case["messages"], **options(case)), case)


def test_streamed_answers_are_the_same(model, cases):
    for case in cases:
        with model.chat_stream(case["messages"], **options(case)) as stream:
            chunks = list(stream)
            reply = stream.result()
        check(reply, case)
        assert "".join(chunk.content for chunk in chunks) == reply.content
        assert "".join(chunk.reasoning_content for chunk in chunks) == (reply.reasoning_content or "")
        assert [id_ for chunk in chunks for id_ in chunk.token_ids] == list(reply.token_ids)
        calls = {}
        for delta in (delta for chunk in chunks for delta in chunk.tool_calls):
            if delta.id is not None:
                calls[delta.index] = [delta.id, delta.name, ""]
            calls[delta.index][2] += delta.arguments
        assert [ToolCall(*call) for call in calls.values()] == list(reply.tool_calls)
        assert all(len(call.id) == 29 and call.id.startswith("call_") for call in reply.tool_calls)


async def test_async_answers_are_the_same(model, cases):
    replies = await asyncio.gather(*(model.achat(case["messages"], **options(case)) for case in cases))
    for reply, case in zip(replies, cases, strict=True):
        check(reply, case)
    case = next(case for case in cases if "<tool_call>" in case["text"])
    chunks = [chunk async for chunk in model.achat_stream(case["messages"], **options(case))]
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert isinstance(deltas[0], ToolCallDelta)
    assert len(deltas) > 2, "arguments come in parts"
    assert json.loads("".join(delta.arguments for delta in deltas)) == expected(case["text"])[2][0][1]


def test_a_conversation_with_a_result(model):
    messages = list(QUESTION)
    reply = model.chat(messages, tools=[get_weather], temperature=0)
    (call,) = reply.tool_calls
    assert (call.name, call.parse(), reply.finish_reason) == ("get_weather", {"city": "Paris"}, "tool_calls")
    messages += [
        reply.message,
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"temp": 21, "sky": "sunny"})},
    ]
    assert model.chat(messages, tools=[get_weather], temperature=0).content == "It is 21 degrees and sunny in Paris."


def test_reply_as_message(model):
    reply = model.chat(QUESTION, tools=[get_weather], temperature=0, enable_thinking=True)
    assert reply.reasoning_content
    assert reply.message["reasoning_content"] == reply.reasoning_content
    (call,) = reply.message["tool_calls"]
    assert call["type"] == "function"
    assert json.loads(call["function"]["arguments"]) == reply.tool_calls[0].parse()
    plain = model.chat([{"role": "user", "content": "Hello!"}], temperature=0)
    assert plain.message == {"role": "assistant", "content": plain.content}


def test_without_tools_nothing_is_a_call(model, cases):
    case = next(case for case in cases if case["text"].startswith("<tool_call>"))
    prompt = {"prompt": case["prompt"]}
    reply = model.chat([], chat_template="{{ prompt }}", chat_template_kwargs=prompt, temperature=0)
    assert (reply.content, reply.tool_calls) == (case["text"], ())
    none = model.chat(QUESTION, tools=[get_weather], tool_choice="none", temperature=0)
    assert none.tool_calls == ()
    assert none.usage.prompt_tokens == model.chat(QUESTION, temperature=0).usage.prompt_tokens
    assert model.chat(QUESTION, tools=[get_weather], tool_format="plain", temperature=0).content.startswith(
        "<tool_call>"
    )


def test_one_call_at_a_time(model, cases):
    case = next(case for case in cases if case["text"].count("<tool_call>") == 2)
    both = model.chat(case["messages"], **options(case))
    one = model.chat(case["messages"], parallel_tool_calls=False, **options(case))
    assert [(call.name, call.arguments) for call in one.tool_calls] == [
        (call.name, call.arguments) for call in both.tool_calls[:1]
    ]
    assert one.finish_reason == "tool_calls"
    assert one.token_ids == both.token_ids[: len(one.token_ids)]
    assert len(one.token_ids) < len(both.token_ids)
    assert one.usage.completion_tokens == len(one.token_ids)


def add(a: int, b: int):
    """Add two numbers."""


def test_a_required_call_is_made(model):
    hello = [{"role": "user", "content": "Hello!"}]
    options = {"tools": [get_weather, add], "temperature": 0}
    assert model.chat(hello, **options).tool_calls == ()
    reply = model.chat(hello, tool_choice="required", **options)
    assert (reply.content, reply.finish_reason) == ("", "tool_calls")
    assert all(call.name in {"get_weather", "add"} for call in reply.tool_calls)
    choice = {"type": "function", "function": {"name": "add"}}
    reply = model.chat(hello, tool_choice=choice, parallel_tool_calls=False, **options)
    (call,) = reply.tool_calls
    assert call.name == "add"
    assert {"a", "b"} == call.parse().keys()
    assert all(isinstance(number, int) for number in call.parse().values())


async def test_a_required_call_is_made_in_a_stream(model):
    stream = model.achat_stream(QUESTION, tools=[get_weather, add], tool_choice="required", temperature=0)
    async for _ in stream:
        pass
    reply = await stream.result()
    assert reply.tool_calls[0].parse() == {"city": "Paris"}


def test_a_call_that_breaks_off_is_content(model):
    reply = model.chat(QUESTION, tools=[get_weather], temperature=0, max_tokens=12)
    assert (reply.finish_reason, reply.tool_calls) == ("length", ())
    assert reply.content.startswith('<tool_call>\n{"name": "get_weather"')
    assert len(reply.malformed_calls) == 1


def forecast(city: str, days: Literal[1, 2, 3], details: bool = False) -> str:
    """Get the forecast of a city."""
    return f"{city} {days} {details}"


@pytest.mark.parametrize("seed", range(6))
def test_a_required_call_is_made_whatever_is_asked(model, seed):
    messages = [{"role": "user", "content": "Hello!"}]
    options = {"temperature": 1.0, "seed": seed, "max_tokens": 100}
    reply = model.chat(messages, tools=[get_weather, forecast], tool_choice="required", **options)
    for call in reply.tool_calls:
        arguments = call.parse()
        assert call.name in ("get_weather", "forecast")
        assert isinstance(arguments["city"], str)
        if call.name == "forecast":
            assert arguments["days"] in (1, 2, 3)
            assert isinstance(arguments.get("details", False), bool)
    if reply.finish_reason != "length":
        assert reply.finish_reason == "tool_calls"
        assert reply.malformed_calls == ()
    named = {"type": "function", "function": {"name": "forecast"}}
    one = model.chat(messages, tools=[get_weather, forecast], tool_choice=named, parallel_tool_calls=False, **options)
    assert [call.name for call in one.tool_calls] == ["forecast"] or one.finish_reason == "length"
    chunks = list(model.chat_stream(messages, tools=[get_weather, forecast], tool_choice="required", **options))
    names = [delta.name for chunk in chunks for delta in chunk.tool_calls if delta.name]
    assert names[: len(reply.tool_calls)] == [call.name for call in reply.tool_calls]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": "required"}, "needs tools"),
        (
            {"tools": [get_weather], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "another constraint",
        ),
        ({"tools": [get_weather], "tool_choice": "required", "regex": "a"}, "another constraint"),
        ({"tools": [get_weather], "tool_choice": {"type": "function", "function": {"name": "none"}}}, "no tool 'none'"),
        ({"tools": [get_weather], "tool_choice": {"name": "get_weather"}}, "tool_choice must be"),
        ({"tools": [get_weather], "tool_choice": "required", "tool_format": "plain"}, "'plain' has no calls"),
        ({"tools": [{"type": "function"}]}, "tool 0: has no name"),
        ({"tools": [get_weather, get_weather]}, "tool 1: has the name"),
        ({"tools": [{"name": "f", "parameters": 3}]}, "no JSON schema"),
        ({"tool_format": "spoken"}, 'tool_format = "spoken" is not known: one of plain, hermes'),
        ({"reasoning_effort": "high"}, "reasoning_effort: the chat template of this model does not read it"),
        ({"chat_template_kwargs": {"messages": []}}, "chat sets it itself"),
        ({"enable_thinking": True, "chat_template": "x"}, "enable_thinking: the chat template"),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs has"),
    ],
)
def test_wrong_options_are_refused(model, keywords, message):
    with pytest.raises(fastllm.ParameterError, match=message.replace("(", "\\(")):
        model.chat(QUESTION, **keywords)


def test_wrong_tools_are_refused(model):
    with pytest.raises(TypeError, match="a tool must be a dict or a function, not int"):
        model.chat(QUESTION, tools=[1])


def test_options_reach_the_template(model):
    template = "{{ reasoning_effort if reasoning_effort is defined }} {{ thinking }}<|im_start|>"
    text = fastllm.ChatTemplate(template)
    assert {"reasoning_effort", "thinking"} <= text.variables
    reply = model.chat(QUESTION, chat_template=text, reasoning_effort="low", enable_thinking=False, max_tokens=1)
    prompt = model.tokenizer.encode("low False<|im_start|>", add_special=False, parse_special=True)
    assert reply.usage.prompt_tokens == len(prompt)


def test_control_tokens_are_shown_only_where_they_are_markers(model):
    """Decoding leaves control tokens out; the parser needs those that are its markers."""
    tools = [describe_tool(get_weather)]
    assert _native.OutputParser(model.tokenizer._native, "", "harmony", tools, "").shown() == []
    tokenizer = fastllm.Tokenizer.from_gguf(ROOT / "tests/data/tokenizers/gpt-4o-made/vocab.gguf")
    markers = tokenizer.encode("<|start|><|end|>", add_special=False, parse_special=True)
    parser = _native.OutputParser(tokenizer._native, "", "harmony", tools, "")
    assert parser.shown() == sorted(markers)
    assert _native.OutputParser(tokenizer._native, "", "hermes", tools, "").shown() == []


def test_shown_tokens_are_in_the_text(model):
    (end,) = model.tokenizer.encode("<|im_end|>", add_special=False, parse_special=True)
    prompt = model.tokenizer.encode("<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", parse_special=True)
    params = fastllm.SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)

    def text(shown):
        request = model._engine.submit(prompt, params._native(), None, True, None, shown)
        parts = []
        while not isinstance(event := request.next(wait=True), _native.Finished):
            parts += [event.text] if isinstance(event, _native.Token) else []
        return "".join(parts)

    assert "<|im_end|>" in text([end])
    assert text([end]).replace("<|im_end|>", "") == text([])
    assert text([]) == model.generate(prompt, params).text


def test_the_clock_of_a_template_may_be_set(model):
    template = fastllm.ChatTemplate("{{ strftime_now('%Y') }}<|im_start|>")
    variables = {"now": dt.datetime(1984, 1, 1)}
    reply = model.chat(QUESTION, chat_template=template, chat_template_kwargs=variables, max_tokens=1)
    prompt = model.tokenizer.encode("1984<|im_start|>", add_special=False, parse_special=True)
    assert reply.usage.prompt_tokens == len(prompt)


# Descriptions of functions


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def paint(
    what: str,
    colour: Colour,
    *,
    coats: int = 1,
    mode: Literal["fast", "slow"] = "fast",
    size: float | None = None,
    tags: list[str] = (),
    extra: dict[str, int] | list[int] = (),
    where: Annotated[str, "The place."] = "",
) -> str:
    """Paints something
    in a colour.

    More about it.

    Args:
        what: The thing
            to paint.
        coats (int): How often.

    Returns:
        Nothing.
    """


def test_functions_are_described():
    function = describe_tool(paint)["function"]
    assert function["name"] == "paint"
    assert function["description"] == "Paints something in a colour. More about it."
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "what": {"type": "string", "description": "The thing to paint."},
            "colour": {"type": "string", "enum": ["red", "blue"]},
            "coats": {"type": "integer", "description": "How often."},
            "mode": {"type": "string", "enum": ["fast", "slow"]},
            "size": {"type": ["number", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "extra": {
                "anyOf": [
                    {"type": "object", "additionalProperties": {"type": "integer"}},
                    {"type": "array", "items": {"type": "integer"}},
                ]
            },
            "where": {"type": "string", "description": "The place."},
        },
        "required": ["what", "colour"],
    }


def test_what_has_no_schema_is_refused():
    def paths(path: Path):
        pass

    def rest(*paths):
        pass

    with pytest.raises(TypeError, match="'path' has the type"):
        describe_tool(paths)
    with pytest.raises(TypeError, match="'paths' cannot be given by its name"):
        describe_tool(rest)


# Formats


def test_formats_of_real_templates(shared):
    known = {
        "CohereForAI-c4ai-command-r-plus-tool_use": "command_r_plus",
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "command_r",
        "GLM-4.6": "glm4",
        "Kimi-K2-Instruct": "kimi_k2",
        "LFM2-8B-A1B": "pythonic",
        "Mistral-Small-3.2-24B-Instruct-2506": "mistral_args",
        "NVIDIA-Nemotron-Nano-v2": "nemotron",
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
        "Qwen-Qwen2.5-7B-Instruct": "hermes",
        "Qwen-Qwen3-0.6B": "hermes",
        "Qwen3-Coder": "qwen3_coder",
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek",
        "deepseek-ai-DeepSeek-V3.1": "deepseek_v3_1",
        "ibm-granite-granite-3.3-2B-Instruct": "granite",
        "meta-llama-Llama-3.1-8B-Instruct": "llama3",
        "meta-llama-Llama-3.2-3B-Instruct": "llama3",
        "meta-llama-Llama-3.3-70B-Instruct": "llama3",
        "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
        "openai-gpt-oss-120b": "harmony",
    }
    tokenizer = fastllm.Model.demo().tokenizer._native
    for path in sorted(shared("templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        format_ = _native.OutputParser(tokenizer, source, None, None, "").format
        assert format_ == known.get(path.stem, "plain"), path.stem
    assert set(known.values()) < set(_native.tool_formats())
