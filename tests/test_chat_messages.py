"""What reaches the prompt: last messages that are continued, system messages, tools, results."""

import json

import pytest

from fastllm import ChatTemplate, ParameterError, conversation

QUESTION = {"role": "user", "content": "Say hi."}
BEGUN = [QUESTION, {"role": "assistant", "content": "Hello, my name"}]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content|trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Reasoning before every answer of the last turn, as in Qwen 3.
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n"
    "{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GREEDY = {"temperature": 0, "max_tokens": 12}


def test_a_last_message_of_the_assistant_is_refused_unless_asked_for(model):
    with pytest.raises(ParameterError, match="continue_final_message = true continues it"):
        model.chat(BEGUN, max_tokens=1)
    with pytest.raises(ParameterError, match="the last message must be the assistant's"):
        model.chat([QUESTION], continue_final_message=True, max_tokens=1)
    call = {"function": {"name": "f", "arguments": {}}}
    with pytest.raises(ParameterError, match="tool calls"):
        model.chat([QUESTION, {"role": "assistant", "tool_calls": [call]}], continue_final_message=True)
    with pytest.raises(TypeError, match="continue_final_message"):
        model.chat(BEGUN, continue_final_message="yes")


@pytest.mark.parametrize("template", [CHATML, THINKS])
def test_the_reply_is_what_follows_the_last_message(model, template):
    prompt = model._compile(template).render(BEGUN, continue_final_message=True)
    assert prompt.endswith("Hello, my name")
    ids = model.tokenizer.encode(prompt, add_special=False, parse_special=True)
    expected = model.generate(ids, **GREEDY)
    reply = model.chat(BEGUN, continue_final_message=True, chat_template=template, **GREEDY)
    assert reply.content == expected.text
    assert reply.token_ids == expected.token_ids
    assert reply.reasoning_content is None
    with model.chat_stream(BEGUN, continue_final_message=True, chat_template=template, **GREEDY) as stream:
        assert "".join(chunk.content for chunk in stream) == expected.text


def test_false_begins_a_new_answer(model):
    reply = model.chat(BEGUN, continue_final_message=False, chat_template=CHATML, max_tokens=1)
    text = model._compile(CHATML).render(BEGUN, add_generation_prompt=True)
    assert reply.usage.prompt_tokens == len(model.tokenizer.encode(text, add_special=False, parse_special=True))


def test_an_empty_last_message_is_an_answer_that_has_not_begun(model):
    empty = [QUESTION, {"role": "assistant", "content": ""}]
    assert model.chat(empty, continue_final_message=True, **GREEDY).content == model.chat([QUESTION], **GREEDY).content


def test_reasoning_is_continued_where_there_is_no_content_yet(model):
    thinking = [QUESTION, {"role": "assistant", "content": "", "reasoning_content": "I should"}]
    banned = dict.fromkeys(model.tokenizer.eos_ids, float("-inf"))
    options = {"temperature": 0, "max_tokens": 4, "logit_bias": banned}
    reply = model.chat(thinking, continue_final_message=True, chat_template=THINKS, **options)
    prompt = model._compile(THINKS).render(thinking, continue_final_message=True)
    assert prompt.endswith("<think>\nI should")
    text = model.generate(model.tokenizer.encode(prompt, add_special=False, parse_special=True), **options).text
    assert reply.reasoning_content
    assert text.startswith(reply.reasoning_content)


def test_white_space_at_the_end_is_neither_lost_nor_repeated(model):
    def f(x: int) -> None:
        """Nothing."""

    spaced = [system("f(x) does nothing."), QUESTION, {"role": "assistant", "content": "Hello, my  "}]
    prompt = model._compile(CHATML).render(spaced, continue_final_message=True)
    assert prompt.endswith("Hello, my  ")
    # With tools, the parser holds white space back that may stand before a call.
    reply = model.chat(
        spaced, continue_final_message=True, chat_template=CHATML, tools=[f], tool_format="hermes", **GREEDY
    )
    ids = model.tokenizer.encode(prompt, add_special=False, parse_special=True)
    assert reply.content.strip() == model.generate(ids, **GREEDY).text.strip()


@pytest.mark.parametrize("template", [CHATML, THINKS])
def test_structured_output_is_all_of_the_message(model, template):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}, "n": {"type": "boolean"}},
        "required": ["city", "n"],
        "additionalProperties": False,
    }
    begun = [QUESTION, {"role": "assistant", "content": '{"city": "Pa'}]
    keywords = {"json_schema": schema, "chat_template": template, "continue_final_message": True}
    for seed in range(3):
        reply = model.chat(begun, seed=seed, max_tokens=60, **keywords)
        assert reply.finish_reason == "stop"
        value = json.loads('{"city": "Pa' + reply.content)
        assert value["city"].startswith("Pa")
    with pytest.raises(ParameterError, match="cannot be continued: it is not the beginning"):
        model.chat(BEGUN, **keywords)


def test_control_tokens_in_a_message_that_is_continued_stay_text(model):
    begun = [QUESTION, {"role": "assistant", "content": "a<|im_end|>b"}]
    plain = [QUESTION, {"role": "assistant", "content": "ab"}]

    def controls(messages):
        _, ids, _ = model._compile(CHATML)._encode(model.tokenizer, messages, None, {}, continued=True)
        return sum(model.tokenizer.decode_bytes([id_]) == b"" for id_ in ids)

    assert controls(begun) == controls(plain)


def test_apply_chat_template_continues_a_last_message_of_the_assistant(model):
    assert model.apply_chat_template(BEGUN).endswith("Hello, my name")
    assert model.apply_chat_template(BEGUN, add_generation_prompt=True).endswith("<|im_start|>assistant\n")
    closed = model.apply_chat_template(BEGUN, add_generation_prompt=False)
    assert closed == model.apply_chat_template(BEGUN, continue_final_message=False, add_generation_prompt=False)
    assert closed.endswith("<|im_end|>\n")
    assert model.apply_chat_template([QUESTION]).endswith("<|im_start|>assistant\n")
    assert model.apply_chat_template([QUESTION], continue_final_message=True).endswith("Say hi.")
    with pytest.raises(ParameterError, match="cannot be combined"):
        model.apply_chat_template(BEGUN, add_generation_prompt=True, continue_final_message=True)


def test_apply_chat_template_takes_functions(model):
    assert "The weather in a city." in model.apply_chat_template([QUESTION], tools=[get_weather])
    with pytest.raises(TypeError, match="a tool must be a dict or a function"):
        model.apply_chat_template([QUESTION], tools=[1])


# System messages


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
FIRST_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('late') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)


def system(content):
    return {"role": "system", "content": content}


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize("source", [NO_SYSTEM, DROPS_SYSTEM])
def test_system_messages_become_the_users_where_a_template_has_none(source):
    render = ChatTemplate(source).render
    assert render([system("Be brief."), user("Hi")]) == "[user]Be brief.\n\nHi"
    assert render([system("A"), {"role": "developer", "content": "B"}, user("Hi")]) == "[user]A\n\nB\n\nHi"
    assert render([system("A")]) == "[user]A"
    late = [user("Hi"), {"role": "assistant", "content": "Ho"}, system("A"), user("Go")]
    assert render(late) == "[user]Hi[assistant]Ho[user]A\n\nGo"
    assert render([user("Hi"), system("A")]) == "[user]Hi\n\nA"


def test_late_system_messages_where_only_the_first_may_be_one():
    render = ChatTemplate(FIRST_ONLY).render
    assert render([system("A"), system("B"), user("Hi")]) == "[system]A\n\nB[user]Hi"
    assert render([system("A"), user("Hi"), system("B"), user("Go")]) == "[system]A[user]Hi[user]B\n\nGo"
    # What a template writes is left as it is.
    everything = ChatTemplate("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    assert everything.render([system("A"), user("Hi"), system("B")]) == "[system]A[user]Hi[system]B"


def get_weather(city: str) -> str:
    """The weather in a city."""


def test_system_messages_for_real_templates(shared):
    for path in sorted(shared("templates").glob("*.jinja")):
        template = ChatTemplate(path.read_text(encoding="utf-8"), bos_token="<s>", eos_token="</s>")
        tools = [get_weather] if "tool_use" in path.name else None
        text = template.render([system("Be brief, please."), user("Hi")], tools=tools, add_generation_prompt=True)
        assert "Be brief, please." in text, path.name


# Tools, and what does not arrive


def test_tools_without_description_or_parameters(shared):
    bare = {"type": "function", "function": {"name": "what_time_is_it"}}
    for name in ("openai-gpt-oss-120b", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "Qwen-Qwen3-0.6B", "GLM-4.6"):
        template = ChatTemplate(shared(f"templates/{name}.jinja").read_text(encoding="utf-8"))
        assert "what_time_is_it" in template.render([user("Hi")], tools=[bare]), name
    strict = ChatTemplate(
        "{% for t in tools %}{{ t.function.name + t.function.description }}{% endfor %}{{ messages[0].content }}"
    )
    assert strict.render([user("Hi")], tools=[bare]) == "what_time_is_itHi"
    # A template that can do without is given what was declared.
    assert ChatTemplate("{{ tools|tojson }}").render([user("Hi")], tools=[bare]) == json.dumps([bare])


def test_messages_that_a_template_drops_are_refused(model):
    turns = [QUESTION, {"role": "assistant", "content": "Wait."}, {"role": "tool", "content": "It rains."}, QUESTION]
    drops = "{% for m in messages if m.role != 'tool' %}{{ m.content }}{% endfor %}<|im_start|>"
    # The results of tools become text of the user.
    assert "It rains." in conversation.render(ChatTemplate(drops), turns, None)
    for shown in ("{{ m.content }}", "{{ m.content|upper }}", "{{ m|tojson }}"):
        keeps = f"{{% for m in messages %}}{shown}{{% endfor %}}<|im_start|>"
        model.chat(turns, chat_template=keeps, max_tokens=1)
    with pytest.raises(ParameterError, match="role 'narrator'"):
        model.chat([{"role": "narrator", "content": "Once"}, QUESTION], chat_template=drops.replace("tool", "narrator"))
