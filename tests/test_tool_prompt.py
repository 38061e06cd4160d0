"""Tools, calls and results that a chat template does not write, and the generic format."""

import json

import pytest

import fastllm
from fastllm import _native, conversation, tool_prompt

QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
# A template as many models without tools have it.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Puts a recipient before each answer: refused until its format is known.
FRAMED = "meetkai-functionary-medium-v3.2"
# Two roles that alternate, nothing else.
TWO_ROLES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def get_weather(city: str):
    """Get the weather in a city."""


def add(a: int, b: int):
    """Add two numbers."""


def declared(name="get_weather", **parameters):
    properties = {"city": {"type": "string", "description": "x"}}
    schema = {"type": "object", "properties": properties, **parameters}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": schema}}


def call(id_, city, name="get_weather"):
    function = {"name": name, "arguments": json.dumps({"city": city}, ensure_ascii=False)}
    return {"id": id_, "type": "function", "function": function}


def result(id_, content):
    return {"role": "tool", "tool_call_id": id_, "name": "get_weather", "content": content}


def render(source, messages, tools=None):
    template = fastllm.ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return conversation.render(template, messages, tools, add_generation_prompt=True)


# What reaches the prompt


def test_tools_reach_every_template(model, shared):
    """And a call in the format of the answer is read back, cut anywhere."""
    formats = {}
    for path in sorted(shared("templates").glob("*.jinja")):
        if path.stem == FRAMED:
            continue
        template = fastllm.ChatTemplate(path.read_text(encoding="utf-8"), bos_token="<s>", eos_token="</s>")

        def write(messages, tools, template=template):
            adapted = conversation.normalise(template, messages)
            return template.render(adapted, tools=tools, add_generation_prompt=True), None

        arguments = (template, [QUESTION], [declared()], None, conversation.normalise, write)
        text, _, format_ = tool_prompt.write_prompt(*arguments, continued=False)
        assert "get_weather" in text, path.stem
        formats[path.stem] = format_
        if format_ == "generic":
            answer = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
            for at in range(len(answer)):
                parser = _native.OutputParser(model.tokenizer._native, template.source, format_, [declared()], "")
                events = parser.push(answer[:at]) + parser.push(answer[at:]) + parser.finish()
                assert [event[2] for event in events if event[0] == "begin"] == ["get_weather"], path.stem
                arguments = "".join(event[2] for event in events if event[0] == "arguments")
                assert json.loads(arguments) == {"city": "Zürich"}
    generic = {name for name, format_ in formats.items() if format_ == "generic"}
    assert generic >= {
        "HuggingFaceTB-SmolLM3-3B",
        "classic-phi-4",
        "classic-teknium-OpenHermes-2.5-Mistral-7B",
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
        "deepseek-ai-DeepSeek-V3.1",
        "google-gemma-2-2b-it",
        "microsoft-Phi-3.5-mini-instruct",
    }
    assert len(formats) - len(generic) >= 17


def test_calls_and_results_reach_every_template(shared):
    """Arguments as text, as OpenAI's clients send them: the template gets what it was written for."""
    question = {"role": "user", "content": "Weather?"}
    calls = {"role": "assistant", "content": None, "tool_calls": [call("call_" + "a" * 24, "Zürich")]}
    messages = [question, calls, result("call_" + "a" * 24, "sunny")]
    for path in sorted(shared("templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        given = [[declared()], None]
        if "tool_use" in path.stem:  # these fail without tools
            given.pop()
        if path.stem == FRAMED:
            given.pop(0)
        for tools in given:
            text = render(source, messages, tools).rsplit("Weather?", 1)[1]
            assert "get_weather" in text, path.stem
            assert "Zürich" in text, path.stem
            assert "sunny" in text, path.stem
            assert '\\"city' not in text, path.stem


def test_a_format_that_does_not_read_the_template_is_not_taken():
    """By its markers this is hermes; its calls are something else."""
    source = (
        "{% if tools %}{% for t in tools %}{{ t.function.name }}{% endfor %}<tool_call>{% endif %}"
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% for c in m.tool_calls or [] %}@{{ c.function.name }}"
        "{% for k, v in c.function.arguments.items() %}~{{ k }}~{{ v }}{% endfor %}{% endfor %}\n{% endfor %}"
    )
    assert _native.detect_tool_format(source) == "hermes"
    text = render(source, [QUESTION], [declared()])
    assert text.startswith("[system] To answer without a tool")
    assert '{"name": "get_weather", "description": "d"' in text


CALLS = (
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}BEGIN"
    "{% for c in m.tool_calls %}CALL{% endfor %}END{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def calls_as(begin, call, argument, end):
    """A template that writes calls in this way; NAME, JSON, ARGUMENTS, KEY and VALUE are placeholders."""
    loop = "{% for k, v in c.function.arguments.items() %}" + argument + "{% endfor %}"
    values = {"NAME": "c.function.name", "JSON": "c.function.arguments | tojson", "KEY": "k", "VALUE": "v"}
    call = call.replace("ARGUMENTS", loop)
    for word, value in values.items():
        call = call.replace(word, f"{{{{ {value} }}}}")
    return CALLS.replace("BEGIN", begin).replace("CALL", call).replace("END", end)


# Calls of models without a format of their own here, with the format that their markers alone suggest.
MINIMAX = "]<]minimax[>["
SIMILAR = {
    "apriel-1.5": (
        "hermes",
        "{# <tool_call> #}<tool_calls>[",
        '{"name": "NAME", "arguments": JSON}',
        "",
        "]</tool_calls>",
    ),
    "apriel-1.5, tagged": (
        "hermes",
        "<tool_calls>",
        '<tool_call>{"name": "NAME", "arguments": JSON}',
        "",
        "</tool_calls>",
    ),
    "minimax-m3": (
        "hermes",
        f"{MINIMAX}<tool_call>",
        f'{MINIMAX}<invoke name="NAME">ARGUMENTS{MINIMAX}</invoke>',
        f"{MINIMAX}<KEY>VALUE{MINIMAX}</KEY>",
        f"{MINIMAX}</tool_call>",
    ),
    "functionary-3.1": ("llama3", "{# <|start_header_id|><|python_tag|> #}", "<function=NAME>JSON</function>", "", ""),
    "gemma-4": ("plain", "<|tool_call>", "call:NAME{{ '{' }}ARGUMENTS{{ '}' }}", 'KEY:<|"|>VALUE<|"|>', "<tool_call|>"),
    "own tags": (
        "qwen3_coder",
        "<own:call>",
        "<function=NAME>ARGUMENTS</function>",
        "<parameter=KEY>VALUE</parameter>",
        "</own:call>",
    ),
}


@pytest.mark.parametrize("name", SIMILAR)
def test_similar_formats_are_told_apart(name):
    taken_for, *parts = SIMILAR[name]
    source = calls_as(*parts)
    assert _native.detect_tool_format(source) == taken_for
    text = render(source, [QUESTION], [declared()])
    assert text.startswith("[system]To answer without a tool")
    called = {"role": "assistant", "content": "", "tool_calls": [call("1", "Rome")]}
    written = render(source, [QUESTION, called, result("1", "sunny")], [declared()])
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>' in written


KNOWN = {
    "seed_oss": (
        "",
        "<seed:tool_call>\n<function=NAME>\nARGUMENTS</function>\n</seed:tool_call>",
        "<parameter=KEY>VALUE</parameter>\n",
        "",
    ),
    "minimax_m2": (
        "<minimax:tool_call>\n",
        '<invoke name="NAME">\nARGUMENTS</invoke>\n',
        '<parameter name="KEY">VALUE</parameter>\n',
        "</minimax:tool_call>",
    ),
    "pythonic": ("<|tool_call_start|>[", "NAME(ARGUMENTS)", 'KEY="VALUE"', "]<|tool_call_end|>"),
    "qwen3_coder": (
        "",
        "<tool_call>\n<function=NAME>\nARGUMENTS</function>\n</tool_call>",
        "<parameter=KEY>\nVALUE\n</parameter>\n",
        "",
    ),
    "hermes": ("", '<tool_call>\n{"name": "NAME", "arguments": JSON}\n</tool_call>', "", ""),
}


@pytest.mark.parametrize("name", KNOWN)
def test_formats_that_are_known_are_taken(model, name):
    source = calls_as(*KNOWN[name])
    assert _native.detect_tool_format(source) == name
    text = render(source, [QUESTION], [declared()])
    assert text == "get_weather[user]What is the weather in Paris?\n[assistant]"
    called = {"role": "assistant", "content": "", "tool_calls": [call("1", "Zürich")]}
    written = render(source, [QUESTION, called], [declared()]).removesuffix("\n[assistant]")
    answer = written.rsplit("[assistant]", 1)[1]
    for at in range(len(answer)):
        parser = _native.OutputParser(model.tokenizer._native, source, None, [declared()], "")
        events = parser.push(answer[:at]) + parser.push(answer[at:]) + parser.finish()
        assert [event[2] for event in events if event[0] in {"begin", "content"}] == ["get_weather"]
        arguments = "".join(event[2] for event in events if event[0] == "arguments")
        assert json.loads(arguments) == {"city": "Zürich"}


def test_lfm2_5_without_calls_in_its_template():
    source = (
        "{% set keep_past_thinking = keep_past_thinking | default(false) %}{% if tools %}List of tools: "
        "{{ tools | tojson }}\n{% endif %}" + CHATML
    )
    assert _native.detect_tool_format(source) == "pythonic"
    called = {"role": "assistant", "content": "", "tool_calls": [call("1", "Rome")]}
    text = render(source, [QUESTION, called, result("1", "sunny")], [declared()])
    assert text.startswith('List of tools: [{"type": "function"')
    assert "[get_weather(city='Rome')]" in text
    assert "To answer without a tool" not in text


def test_tools_without_a_system_role():
    text = render(TWO_ROLES, [QUESTION], [declared()])
    assert text.startswith("[user] To answer without a tool")
    assert text.endswith("</tool_call>\n\nWhat is the weather in Paris?\n[assistant] ")
    answered = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call("1", "Paris"), call("2", "Rome")]},
        result("2", "rain"),
        result("1", "sun"),
        {"role": "user", "content": "And now?"},
    ]
    text = render(TWO_ROLES, answered, [declared()])
    assert text.count("[user]") == 2
    called = "".join(
        f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
        for city in ("Paris", "Rome")
    )
    tail = (
        f"[assistant] <reply>\nLet me see.\n</reply>\n{called}\n[user] <tool_response>\nsun\n</tool_response>\n"
        "<tool_response>\nrain\n</tool_response>\n\nAnd now?\n[assistant] "
    )
    assert text.endswith(tail)


def test_system_messages_are_kept():
    messages = [{"role": "system", "content": "Be brief."}, QUESTION, {"role": "assistant", "content": "18 degrees."}]
    text = render(CHATML, [*messages, {"role": "user", "content": "Thanks"}], [declared()])
    assert text.startswith("<|im_start|>system\nBe brief.\n\nTo answer without a tool:\n<reply>")
    assert "<|im_start|>assistant\n<reply>\n18 degrees.\n</reply><|im_end|>" in text
    assert render(CHATML, messages[:2], None) == render(CHATML, messages[:2], [])


def test_parts_of_content_are_kept():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": parts, "tool_calls": [call("1", "Rome")]},
        {"role": "tool", "tool_call_id": "1", "content": parts},
    ]
    text = render(CHATML, messages, [declared()])
    assert "<reply>\none two\n</reply>\n<tool_call>" in text
    assert "<tool_response>\none two\n</tool_response>" in text


def test_arguments_that_are_no_json_stay_text():
    broken = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    messages = [QUESTION, {"role": "assistant", "content": "", "tool_calls": [broken]}, result("1", "no")]
    assert '{"name": "f", "arguments": "{\\"a"}' in render(CHATML, messages)


def test_what_cannot_reach_the_model_is_refused(model, shared):
    source = shared("templates/meetkai-functionary-medium-v3.2.jinja").read_text(encoding="utf-8")
    framed = source.replace(">>>", "===")
    with pytest.raises(fastllm.ParameterError, match="writes 'all' before each answer"):
        render(framed, [QUESTION], [declared()])
    with pytest.raises(fastllm.ParameterError, match="writes neither tools nor"):
        render("Hello", [QUESTION], [declared()])
    with pytest.raises(fastllm.ParameterError, match="does not write tools"):
        model.chat([QUESTION], tools=[get_weather], tool_format="hermes", chat_template=CHATML)
    # Who describes the tools himself names the format.
    described = {"role": "system", "content": "Tools: get_weather"}
    model.chat([described, QUESTION], tools=[get_weather], tool_format="hermes", chat_template=CHATML, max_tokens=1)


# The generic format, held by its grammar


def test_any_model_calls_in_the_generic_format(model):
    options = {"tools": [get_weather, add], "tool_format": "generic", "max_tokens": 120}
    for seed in range(4):
        reply = model.chat([QUESTION], tool_choice="required", temperature=1.0, seed=seed, **options)
        if reply.finish_reason != "length":
            assert reply.finish_reason == "tool_calls"
            assert (reply.content, reply.malformed_calls) == ("", ())
        for made in reply.tool_calls:
            kinds = {"get_weather": {"city": str}, "add": {"a": int, "b": int}}[made.name]
            assert {key: type(value) for key, value in made.parse().items()} == kinds
        free = model.chat([QUESTION], temperature=1.0, seed=seed, **options)
        assert "<reply>" not in free.content
        assert not free.malformed_calls or free.finish_reason == "length"


def test_a_schema_that_no_grammar_follows(model):
    """Where a call is required it is refused; where the model decides, its arguments are any object."""
    tools = [declared(**{"$ref": "https://example.org/schema.json"})]
    options = {"tools": tools, "tool_format": "generic", "temperature": 0, "max_tokens": 40}
    with pytest.raises(fastllm.GrammarError):
        model.chat([QUESTION], tool_choice="required", **options)
    assert model.chat([QUESTION], **options).token_ids


def test_smollm2_calls(smollm2):
    options = {"tools": [get_weather, add], "temperature": 0, "max_tokens": 64}
    bare = smollm2.chat([QUESTION], temperature=0, max_tokens=4)
    reply = smollm2.chat([QUESTION], **options)
    assert reply.usage.prompt_tokens > bare.usage.prompt_tokens
    assert [(made.name, made.parse()) for made in reply.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert (reply.finish_reason, reply.content) == ("tool_calls", "")
    hello = smollm2.chat([{"role": "user", "content": "Hello! Who are you?"}], **options)
    assert hello.tool_calls == ()
    assert hello.content.strip()
    assert "reply>" not in hello.content
    none = smollm2.chat([QUESTION], tool_choice="none", **options)
    assert none.usage.prompt_tokens == bare.usage.prompt_tokens


def test_smollm2_reads_a_result(smollm2):
    options = {"tools": [get_weather], "temperature": 0, "max_tokens": 48}
    first = smollm2.chat([QUESTION], **options)
    (made,) = first.tool_calls
    messages = [QUESTION, first.message, {"role": "tool", "tool_call_id": made.id, "content": "18 degrees and sunny"}]
    second = smollm2.chat(messages, **options)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + 20
    assert second.tool_calls == ()
    assert second.content.strip()


@pytest.mark.parametrize("seed", range(5))
def test_a_required_call_of_smollm2_parses(smollm2, seed):
    questions = ["Hello!", "What is 2 plus 3?", "Write a poem.", "ありがとう", "<tool_call> is a tag"]
    options = {"tools": [get_weather, add], "temperature": 1.0, "seed": seed, "max_tokens": 100}
    messages = [{"role": "user", "content": questions[seed]}]
    reply = smollm2.chat(messages, tool_choice="required", **options)
    assert reply.finish_reason in ("tool_calls", "length")
    assert reply.malformed_calls == () or reply.finish_reason == "length"
    for made in reply.tool_calls:
        assert made.parse().keys() == {"get_weather": {"city"}, "add": {"a", "b"}}[made.name]
    named = {"type": "function", "function": {"name": "add"}}
    one = smollm2.chat(messages, tool_choice=named, parallel_tool_calls=False, **options)
    assert [made.name for made in one.tool_calls] == ["add"] or one.finish_reason == "length"


def test_a_stream_of_smollm2_is_the_same(smollm2):
    options = {"tools": [get_weather, add], "temperature": 0, "max_tokens": 64}
    for text in ("What is the weather in Paris?", "Hello! Who are you?"):
        messages = [{"role": "user", "content": text}]
        reply = smollm2.chat(messages, **options)
        with smollm2.chat_stream(messages, **options) as stream:
            chunks = list(stream)
        assert "".join(chunk.content for chunk in chunks) == reply.content
        arguments = "".join(delta.arguments for chunk in chunks for delta in chunk.tool_calls)
        assert arguments == "".join(made.arguments for made in reply.tool_calls)


def test_an_answer_is_continued_in_the_generic_format(smollm2):
    begun = {"role": "assistant", "content": "My name is"}
    messages = [{"role": "user", "content": "Hello! Who are you?"}, begun]
    options = {"tools": [get_weather], "temperature": 0, "max_tokens": 24, "continue_final_message": True}
    reply = smollm2.chat(messages, **options)
    assert reply.tool_calls == ()
    assert reply.content.strip()
    assert "reply>" not in reply.content
    text = smollm2.apply_chat_template(messages, tools=[get_weather])
    assert text.endswith("<reply>\nMy name is")
