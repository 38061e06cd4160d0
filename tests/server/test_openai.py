"""The official OpenAI client against a server."""

import json

import pytest

from .conftest import HELLO, NAME

openai = pytest.importorskip("openai", reason="needs openai: pip install 'fastllm[openai]'")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat(client, model):
    reply = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0)
    expected = model.chat(HELLO, temperature=0)
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.content == expected.content
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens == expected.usage.prompt_tokens
    assert reply.usage.completion_tokens == expected.usage.completion_tokens
    assert reply.usage.total_tokens == expected.usage.total_tokens
    assert reply.usage.prompt_tokens_details.cached_tokens >= 0


def test_an_answer_goes_back_as_a_message(client):
    reply = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0)
    messages = [*HELLO, reply.choices[0].message.model_dump(), {"role": "user", "content": "Hello!"}]
    assert client.chat.completions.create(model=NAME, messages=messages, max_tokens=3).choices


def test_stream(client, model):
    chunks = list(
        client.chat.completions.create(
            model=NAME, messages=HELLO, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    expected = model.chat(HELLO, temperature=0)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == expected.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_options_reach_the_sampler(client, model):
    options = {"temperature": 1.5, "top_p": 0.9, "seed": 11, "max_tokens": 20, "presence_penalty": 0.5}
    extra = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1}
    reply = client.chat.completions.create(model=NAME, messages=HELLO, **options, extra_body=extra)
    assert reply.choices[0].message.content == model.chat(HELLO, **options, **extra).content


def test_stop_and_length(client):
    reply = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, stop=["How"])
    assert reply.choices[0].message.content == "Hello! "
    assert reply.choices[0].finish_reason == "stop"
    reply = client.chat.completions.create(model=NAME, messages=HELLO, temperature=0, max_completion_tokens=2)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 2


def test_several_choices(client):
    options = {"model": NAME, "messages": HELLO, "n": 3, "temperature": 2, "seed": 5, "max_tokens": 12}
    whole = client.chat.completions.create(**options)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    streamed = ["", "", ""]
    roles = set()
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            if choice.delta.role:
                roles.add(choice.index)
    assert streamed == texts
    assert roles == {0, 1, 2}
    one = client.chat.completions.create(**{**options, "n": 1, "seed": 7})
    assert one.choices[0].message.content == texts[2]


def test_logprobs(client, model):
    reply = client.chat.completions.create(
        model=NAME, messages=HELLO, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3
    )
    expected = model.chat(HELLO, temperature=0, max_tokens=4, logprobs=3).logprobs
    content = reply.choices[0].logprobs.content
    assert [token.token for token in content] == [token.token for token in expected]
    for token, same in zip(content, expected, strict=True):
        assert token.logprob == pytest.approx(same.logprob)
        assert bytes(token.bytes).decode() == token.token
        assert [top.token for top in token.top_logprobs] == [top.token for top in same.top]
    streamed = client.chat.completions.create(
        model=NAME, messages=HELLO, temperature=0, max_tokens=4, logprobs=True, stream=True
    )
    tokens = [t.token for c in streamed for t in (c.choices[0].logprobs.content if c.choices[0].logprobs else ())]
    assert tokens == [token.token for token in content]


def test_logit_bias(client, model):
    hello = model.chat(HELLO, temperature=0, max_tokens=1)
    reply = client.chat.completions.create(
        model=NAME, messages=HELLO, temperature=0, max_tokens=1, logit_bias={str(hello.token_ids[0]): -100}
    )
    assert reply.choices[0].message.content != hello.content


def test_completions(client, model):
    story = "Once upon a time"
    expected = model.generate(story, max_tokens=16, temperature=0)
    reply = client.completions.create(model=NAME, prompt=story, temperature=0, logprobs=2)
    choice = reply.choices[0]
    assert choice.text == expected.text
    assert "".join(choice.logprobs.tokens) == expected.text
    assert choice.logprobs.text_offset[:2] == [0, len(choice.logprobs.tokens[0])]
    assert all(len(top) <= 2 for top in choice.logprobs.top_logprobs)
    assert reply.usage.prompt_tokens == expected.usage.prompt_tokens
    ids = model.tokenizer.encode(story)
    assert client.completions.create(model=NAME, prompt=ids, temperature=0).choices[0].text == expected.text
    several = client.completions.create(
        model=NAME, prompt=[story, "The dog"], n=2, temperature=0, echo=True, max_tokens=5
    )
    assert [c.text.startswith(p) for c, p in zip(several.choices, [story] * 2 + ["The dog"] * 2, strict=True)] == [
        True
    ] * 4
    assert several.usage.completion_tokens == 20
    text = "".join(
        c.choices[0].text for c in client.completions.create(model=NAME, prompt=story, temperature=0, stream=True)
    )
    assert text == expected.text


def test_models(client):
    assert [one.id for one in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "fastllm"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_errors_are_those_of_the_client(client):
    with pytest.raises(openai.BadRequestError, match="has no embeddings"):
        client.embeddings.create(model=NAME, input="x", encoding_format="float")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="../../etc/passwd", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x " * 200_000}])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=HELLO, extra_body={"colour": "red"})
    assert (caught.value.param, caught.value.code) == ("colour", "unknown_parameter")
    banned = {str(id_): -100 for id_ in range(1024)}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=HELLO, logit_bias=banned)
    assert caught.value.param == "logit_bias"
    with pytest.raises(openai.APIError, match="every token is banned"):
        list(client.chat.completions.create(model=NAME, messages=HELLO, logit_bias=banned, stream=True))


def test_template_variables(client, server):
    def count(**kwargs):
        return server.post("/tokenize", {"messages": HELLO, **kwargs})[1]["count"]

    assert count(chat_template_kwargs={"enable_thinking": True}) > count()
    usage = client.chat.completions.create(
        model=NAME, messages=HELLO, max_tokens=1, extra_body={"chat_template_kwargs": {"enable_thinking": True}}
    ).usage
    assert usage.prompt_tokens == count(chat_template_kwargs={"enable_thinking": True})


def test_reasoning_has_a_budget(client, model):
    question = [{"role": "user", "content": "What is 3 plus 4?"}]
    thinking = {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_budget": 2}
    reply = client.chat.completions.create(model=NAME, messages=question, temperature=0, extra_body=thinking)
    expected = model.chat(question, temperature=0, enable_thinking=True, reasoning_budget=2)
    assert reply.choices[0].message.content == expected.content
    assert reply.choices[0].message.reasoning_content == expected.reasoning_content
    for wrong in (-1, 1.5, "2"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=NAME, messages=HELLO, extra_body={"reasoning_budget": wrong})
        assert caught.value.param == "reasoning_budget"


def test_strict_tools(client):
    city = {"type": "string", "enum": ["Oslo", "Rome"]}
    schema = {"type": "object", "properties": {"city": city}, "required": ["city"], "additionalProperties": False}
    tool = {"type": "function", "function": {**WEATHER["function"], "parameters": schema, "strict": True}}
    reply = client.chat.completions.create(model=NAME, messages=ASK_WEATHER, tools=[tool], temperature=0)
    (call,) = reply.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")


def test_tools(client):
    reply = client.chat.completions.create(model=NAME, messages=ASK_WEATHER, tools=[WEATHER], temperature=0)
    assert reply.choices[0].finish_reason == "tool_calls"
    call = reply.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temp": 21, "sky": "sunny"}'}
    messages = [*ASK_WEATHER, reply.choices[0].message.model_dump(), result]
    answer = client.chat.completions.create(model=NAME, messages=messages, tools=[WEATHER], temperature=0)
    assert answer.choices[0].finish_reason == "stop"
    assert "21" in answer.choices[0].message.content


def test_tools_streamed(client):
    name, arguments, ids, reason = "", "", set(), None
    for chunk in client.chat.completions.create(
        model=NAME, messages=ASK_WEATHER, tools=[WEATHER], temperature=0, stream=True
    ):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or ():
            assert call.index == 0
            name += call.function.name or ""
            arguments += call.function.arguments or ""
            ids |= {call.id} - {None}
    assert (name, json.loads(arguments), reason, len(ids)) == ("get_weather", {"city": "Paris"}, "tool_calls", 1)
    call = {"id": ids.pop(), "type": "function", "function": {"name": name, "arguments": arguments}}
    messages = [
        *ASK_WEATHER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": '{"temp": 21, "sky": "sunny"}'},
    ]
    chunks = client.chat.completions.create(model=NAME, messages=messages, tools=[WEATHER], temperature=0, stream=True)
    answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert answer == "It is 21 degrees and sunny in Paris."


def test_a_tool_can_be_demanded(client):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    reply = client.chat.completions.create(
        model=NAME, messages=HELLO, tools=[WEATHER], tool_choice=choice, temperature=0, max_tokens=200
    )
    assert reply.choices[0].message.tool_calls[0].function.name == "get_weather"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
    ],
)
def test_what_the_library_refuses_is_named(client, body, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=HELLO, extra_body=body)
    assert caught.value.param == param


def test_structured_output(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    question = "Give me a JSON object with name and age: Asha is 7 years old."
    reply = client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": question}],
        response_format=form,
        temperature=0,
        max_tokens=200,
    )
    found = json.loads(reply.choices[0].message.content)
    assert set(found) == {"name", "age"}
    assert isinstance(found["age"], int)


def test_choices_and_regex(client):
    options = {"model": NAME, "messages": HELLO, "temperature": 1, "seed": 1}
    reply = client.chat.completions.create(**options, extra_body={"choices": ["red", "green"]})
    assert reply.choices[0].message.content in {"red", "green"}
    reply = client.chat.completions.create(**options, extra_body={"regex": "[0-9]{3}"})
    assert len(reply.choices[0].message.content) == 3
    assert reply.choices[0].message.content.isdigit()


async def test_sixteen_clients_get_what_one_alone_gets(server, model):
    import asyncio

    prompts = [f"Once upon a time there was a {name}" for name in ("cat", "dog", "bird", "fox")] * 4
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:

        async def tell(prompt):
            stream = await client.completions.create(
                model=NAME, prompt=prompt, temperature=0, max_tokens=60, stream=True
            )
            return "".join([chunk.choices[0].text async for chunk in stream])

        texts = await asyncio.gather(*map(tell, prompts))
    alone = [model.generate(prompt, temperature=0, max_tokens=60).text for prompt in prompts[:4]]
    assert texts == alone * 4
