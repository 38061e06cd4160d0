"""What an answer of a chat must look like: forms, strict tools and limits of reasoning together."""

import asyncio
import json

import pytest

import fastllm
from fastllm import Model, describe_tool
from fastllm.chat_options import ChatSettings
from fastllm.conversation import prepare

SUM = [{"role": "user", "content": "What is 3 plus 4?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
HELLO = [{"role": "user", "content": "Hello!"}]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["answer"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
THINK = {"enable_thinking": True, "temperature": 0, "max_tokens": 120}


def get_weather(city: str):
    """Get the weather in a city."""


def strict_weather(**city):
    tool = describe_tool(get_weather)
    tool["function"]["strict"] = True
    tool["function"]["parameters"]["properties"]["city"] = {"type": "string", **city}
    return tool


def reasoning_tokens(model, reply):
    """The tokens between the markers."""
    texts = [model.tokenizer.token(id_) for id_ in reply.token_ids]
    return texts.index("</think>") - texts.index("<think>") - 1


def check_stream(model, messages, reply, **options):
    with model.chat_stream(messages, **options) as stream:
        chunks = list(stream)
    assert "".join(chunk.content for chunk in chunks) == reply.content
    assert "".join(chunk.reasoning_content for chunk in chunks) == (reply.reasoning_content or "")
    assert [id_ for chunk in chunks for id_ in chunk.token_ids] == list(reply.token_ids)
    arguments = {}
    for delta in (delta for chunk in chunks for delta in chunk.tool_calls):
        arguments[delta.index] = arguments.get(delta.index, "") + delta.arguments
    assert list(arguments.values()) == [call.arguments for call in reply.tool_calls]


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        ({"response_format": FORM}, lambda text: 0 <= json.loads(text)["answer"] < 100),
        ({"json_schema": SCHEMA}, lambda text: 0 <= json.loads(text)["answer"] < 100),
        ({"regex": "It is [0-9]{1,2}"}, lambda text: text.startswith("It is ")),
        ({"choices": ["seven", "eight"]}, lambda text: text in ("seven", "eight")),
        ({"grammar": 'start: "<" NUMBER ">"\nNUMBER: /[0-9]{1,3}/'}, lambda text: text[1:-1].isdecimal()),
        ({"grammar": 'root ::= "{" [0-9]+ "}"'}, lambda text: text[1:-1].isdecimal()),
    ],
)
def test_content_has_its_form_after_reasoning(model, form, fits):
    free = model.chat(SUM, **THINK)
    assert free.reasoning_content
    reply = model.chat(SUM, **THINK, **form)
    assert reply.reasoning_content == free.reasoning_content
    assert fits(reply.content)
    check_stream(model, SUM, reply, **THINK, **form)
    assert model.chat(SUM, **THINK, **form, logprobs=0).token_ids == reply.token_ids
    plain = model.chat(SUM, **{**THINK, "enable_thinking": False}, **form)
    assert (plain.reasoning_content, fits(plain.content)) == (None, True)


def test_calls_or_content_in_its_form(model):
    options = {"tools": [get_weather], "response_format": FORM, "temperature": 0, "max_tokens": 80}
    reply = model.chat(WEATHER, **options)
    assert [(call.name, call.parse()) for call in reply.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert (reply.content, reply.finish_reason) == ("", "tool_calls")
    check_stream(model, WEATHER, reply, **options)
    seen = set()
    for seed in range(8):
        reply = model.chat(HELLO, **{**options, "temperature": 1.0, "seed": seed, "enable_thinking": False})
        if reply.finish_reason != "length":
            seen.add(reply.finish_reason)
            assert bool(reply.tool_calls) == (reply.content == "")
            assert reply.tool_calls or json.loads(reply.content).keys() == {"answer"}
    assert "stop" in seen


def test_strict_tools_are_followed(model):
    paris = {"temperature": 0, "max_tokens": 60}
    tool = strict_weather(enum=["Oslo", "Rome"])
    loose = {**tool, "function": {**tool["function"], "strict": False}}
    assert model.chat(WEATHER, tools=[loose], **paris).tool_calls[0].parse() == {"city": "Paris"}
    reply = model.chat(WEATHER, tools=[tool], **paris)
    assert reply.tool_calls[0].parse()["city"] in ("Oslo", "Rome")
    assert reply.finish_reason == "tool_calls"
    check_stream(model, WEATHER, reply, tools=[tool], **paris)
    # What needs no call is said as it would be said without.
    for messages in (HELLO, SUM):
        free, strict = (model.chat(messages, tools=[one], **paris) for one in (loose, tool))
        assert (strict.content, strict.token_ids) == (free.content, free.token_ids)
    thought = model.chat(WEATHER, tools=[tool], enable_thinking=True, **paris)
    assert thought.reasoning_content
    assert thought.tool_calls[0].parse()["city"] in ("Oslo", "Rome")


@pytest.mark.parametrize("seed", range(6))
def test_strict_tools_are_followed_whatever_is_written(model, seed):
    tools = [strict_weather(pattern="^[A-Z][a-z]{2}$")]
    reply = model.chat(WEATHER, tools=tools, temperature=2.0, seed=seed, max_tokens=120)
    assert all(len(call.parse()["city"]) == 3 for call in reply.tool_calls)
    assert not reply.malformed_calls or reply.finish_reason == "length"


def test_the_template_does_not_see_strict(model):
    prompts = [
        model.chat(HELLO, tools=[tool], max_tokens=1).usage.prompt_tokens
        for tool in (strict_weather(), describe_tool(get_weather))
    ]
    assert prompts[0] == prompts[1]


def test_no_grammar_where_none_is_needed(model):
    def constrained(**settings):
        params = fastllm.SamplingParams()
        prepared = prepare(model.chat_template, model.tokenizer, HELLO, ChatSettings(**settings), params)
        assert (prepared.grammar(model._grammars) is not None) == prepared.constrained
        return prepared.constrained

    assert not constrained()
    assert not constrained(tools=[get_weather])
    assert not constrained(tools=[strict_weather()], tool_choice="none")
    assert constrained(tools=[get_weather, {**strict_weather(), "function": {"name": "f", "strict": True}}])
    assert constrained(tools=[get_weather], tool_choice="required")
    assert constrained(reasoning_budget=3)


@pytest.mark.parametrize("budget", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("form", [{}, {"regex": "[0-9]{1,2}"}, {"tools": [strict_weather()]}])
def test_reasoning_ends_at_its_budget(model, budget, form):
    free = model.chat(SUM, **THINK, **form)
    assert reasoning_tokens(model, free) > 8
    options = {**THINK, **form, "reasoning_budget": budget}
    reply = model.chat(SUM, **options)
    assert reasoning_tokens(model, reply) == budget
    assert reply.token_ids[: budget + 1] == free.token_ids[: budget + 1]
    assert (free.reasoning_content or "").startswith(reply.reasoning_content or "")
    assert reply.content
    assert reply.finish_reason == ("tool_calls" if reply.tool_calls else "stop")
    check_stream(model, SUM, reply, **options)
    assert model.chat(SUM, **options, logprobs=1).token_ids == reply.token_ids
    assert model.chat(SUM, **options, stop="</think>").token_ids == reply.token_ids[: budget + 1]


def test_a_budget_that_is_not_used_up_changes_nothing(model):
    free = model.chat(SUM, **THINK)
    assert model.chat(SUM, **THINK, reasoning_budget=10_000).token_ids == free.token_ids
    assert model.chat(SUM, **THINK, reasoning_budget=reasoning_tokens(model, free)).token_ids == free.token_ids
    plain = model.chat(HELLO, temperature=0)
    assert model.chat(HELLO, temperature=0, reasoning_budget=0).token_ids == plain.token_ids
    assert model.chat(HELLO, temperature=1, seed=3, max_tokens=30, reasoning_budget=5).token_ids == (
        model.chat(HELLO, temperature=1, seed=3, max_tokens=30).token_ids
    )


def test_max_tokens_counts_reasoning(model):
    reply = model.chat(SUM, **{**THINK, "max_tokens": 4}, reasoning_budget=2, regex="[0-9]{1,2}")
    assert (len(reply.token_ids), reply.finish_reason) == (4, "length")


def test_a_prompt_may_open_the_reasoning(model):
    template = model.chat_template.source + "{{ '<think>\n' if add_generation_prompt else '' }}"
    options = {"chat_template": template, "temperature": 0, "max_tokens": 100}
    for budget in (0, 4):
        reply = model.chat(SUM, **options, reasoning_budget=budget, choices=["7", "8"])
        texts = [model.tokenizer.token(id_) for id_ in reply.token_ids]
        assert texts.index("</think>") <= budget
        assert reply.content in ("7", "8")


def test_guesses_and_kept_states_change_nothing():
    answers = []
    for settings in ({"speculate": False, "prefix_cache": 0}, {"speculate": True}):
        with Model.demo(**settings) as model:
            calls = [
                (SUM, {**THINK, "reasoning_budget": 6}),
                (SUM, {**THINK, "reasoning_budget": 6, "response_format": FORM}),
                (WEATHER, {"tools": [strict_weather(enum=["Oslo", "Rome"])], "temperature": 0, "max_tokens": 60}),
                (SUM, {**THINK, "reasoning_budget": 6}),
            ]
            answers.append([model.chat(messages, **options).token_ids for messages, options in calls])
            model._skip_ahead = False
            answers.append([model.chat(messages, **options).token_ids for messages, options in calls])
    assert answers[0] == answers[1] == answers[2] == answers[3]


async def test_async_answers_are_the_same(model):
    options = {**THINK, "reasoning_budget": 3, "response_format": FORM}
    expected = model.chat(SUM, **options).token_ids
    replies = await asyncio.gather(*(model.achat(SUM, **options) for _ in range(3)))
    assert all(reply.token_ids == expected for reply in replies)
    assert (await model.achat_stream(SUM, **options).result()).token_ids == expected


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"reasoning_budget": -1}, fastllm.ParameterError, "reasoning_budget = -1"),
        ({"reasoning_budget": 2**32}, fastllm.ParameterError, "reasoning_budget"),
        ({"reasoning_budget": 1.5}, TypeError, "reasoning_budget must be an integer"),
        ({"reasoning_budget": True}, TypeError, "reasoning_budget must be an integer"),
        ({"reasoning_budget": 5, "chat_template": "x"}, fastllm.ParameterError, "no markers of reasoning"),
        (
            {"tools": [strict_weather()], "tool_format": "plain"},
            fastllm.ParameterError,
            "'plain' has no calls that could",
        ),
        (
            {"tools": [get_weather], "regex": "a", "tool_format": "plain"},
            fastllm.ParameterError,
            "'plain' has no calls that could",
        ),
        ({"tools": [{"name": "f", "strict": "yes"}]}, fastllm.ParameterError, '"strict" that is no boolean'),
        ({"reasoning_budgets": 5}, TypeError, "did you mean 'reasoning_budget'"),
        ({"response_format": FORM, "regex": "a"}, fastllm.ParameterError, "cannot be combined"),
    ],
)
def test_what_cannot_be_done_is_refused(model, keywords, error, message):
    with pytest.raises(error, match=message):
        model.chat(HELLO, **keywords)
