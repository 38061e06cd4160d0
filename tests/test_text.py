"""Tokenizers and chat templates through the Python interface."""

import array
import json
from datetime import datetime

import numpy as np
import pytest

import fastllm
from fastllm import ChatTemplate, Tokenizer

from .conftest import ROOT

MADE = sorted(path.name for path in (ROOT / "tests/data/tokenizers").iterdir() if path.is_dir())
PUBLISHED = ["llama-spm", "phi-3", "llama-bpe", "qwen2", "gpt-2", "falcon", "deepseek-llm", "command-r", "gemma-4"]


def check(folder):
    tokenizer = Tokenizer.from_gguf(folder / "vocab.gguf")
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    for case in cases:
        ids = tokenizer.encode(case["text"], add_special=False)
        assert ids == case["ids"], case["text"]
    return tokenizer, cases


@pytest.mark.filterwarnings("ignore::fastllm.FastLLMWarning")
@pytest.mark.parametrize("name", MADE)
def test_made_vocabularies(name):
    tokenizer, cases = check(ROOT / "tests/data/tokenizers" / name)
    for case in cases:
        assert tokenizer.decode(case["ids"], skip_special=False) == case["text"]
        assert tokenizer.decode_bytes(case["ids"], skip_special=False) == case["text"].encode()


@pytest.mark.filterwarnings("ignore::fastllm.FastLLMWarning")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_vocabularies(shared, name):
    check(shared(f"tokenizers/{name}"))


def test_tokens(model):
    tokenizer = model.tokenizer
    assert tokenizer.bos_id is None or tokenizer.token(tokenizer.bos_id)
    assert {tokenizer.token(i) for i in tokenizer.eos_ids} == {"<|endoftext|>", "<|im_end|>"}
    assert tokenizer.eos_id in tokenizer.eos_ids
    assert all(tokenizer.token_id(tokenizer.token(i)) is not None for i in range(tokenizer.vocab_size))
    assert tokenizer.token_id("no such token") is None
    for wrong in (-1, tokenizer.vocab_size, 2**40):
        with pytest.raises(fastllm.ParameterError):
            tokenizer.token(wrong)
        with pytest.raises(fastllm.ParameterError):
            tokenizer.decode([wrong])


def test_control_tokens_come_from_trusted_text_only(model):
    tokenizer = model.tokenizer
    text = "<|im_start|>user"
    assert len(tokenizer.encode(text)) > len(tokenizer.encode(text, parse_special=True))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode(text, parse_special=True)
    assert tokenizer.decode(ids) == "user"
    assert tokenizer.decode(ids, skip_special=False) == text


@pytest.mark.parametrize("text", ["", " ", "é", "नमस्ते", "🎉👩‍👩‍👧", "\x00\n\t", "a" * 10_000, "��"])
def test_round_trips(model, text):
    ids = model.tokenizer.encode(text)
    assert model.tokenizer.decode(ids) == text
    assert model.tokenizer.decode_bytes(ids) == text.encode()


def test_the_bytes_of_tokens(model):
    tokenizer = model.tokenizer
    ids = tokenizer.encode(" é 🎉")
    assert b"".join(map(tokenizer.token_bytes, ids)) == " é 🎉".encode()
    assert tokenizer.token_bytes(tokenizer.token_id("<|im_end|>")) == b"<|im_end|>"
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(fastllm.ParameterError):
            tokenizer.token_bytes(wrong)


def test_bytes_that_a_vocabulary_lacks_are_left_out_with_one_warning(shared):
    tokenizer = Tokenizer.from_gguf(shared("tokenizers/falcon") / "vocab.gguf")
    with pytest.warns(fastllm.FastLLMWarning, match="0x0B") as caught:
        ids = tokenizer.encode("a\x0bb")
    assert tokenizer.decode(ids) == "ab"
    assert [warning.filename for warning in caught] == [__file__]
    assert tokenizer.encode("a\x0bb") == ids


def test_ids_of_any_sequence_are_decoded(model):
    ids = model.tokenizer.encode("Hello")
    for sequence in (ids, tuple(ids), np.array(ids), array.array("q", ids), range(40, 42)):
        assert model.tokenizer.decode(sequence) == model.tokenizer.decode(list(sequence))
    for wrong in ({1, 2}, {1: 2}, 7, ["a"], "ab", [1.5]):
        with pytest.raises(TypeError):
            model.tokenizer.decode(wrong)


def test_text_that_is_none(model):
    with pytest.raises(UnicodeEncodeError):
        model.tokenizer.encode("\ud800")
    with pytest.raises(TypeError):
        model.tokenizer.encode(b"bytes")


def test_the_template_of_the_embedded_model(model, golden):
    x = next(x for x in golden if "messages" in x)
    assert model.apply_chat_template(x["messages"]) == x["prompt"]
    assert not model.apply_chat_template(x["messages"], add_generation_prompt=False).endswith("assistant\n")


def test_published_templates(shared):
    cases = json.loads(shared("templates/golden.json").read_text(encoding="utf-8"))
    assert cases
    for case in cases:
        source = shared(f"templates/{case['template']}.jinja").read_text(encoding="utf-8")
        template = ChatTemplate(source, bos_token=case["bos_token"], eos_token=case["eos_token"])
        now = datetime.fromisoformat(case["date"])
        arguments = {"tools": case["tools"], "add_generation_prompt": case["add_generation_prompt"], "now": now}
        if "lenient_output" in case:  # the reference fails for a reason of its own
            assert template.render(case["messages"], **arguments, **case["kwargs"]) == case["lenient_output"]
        elif "output" not in case:
            # The template as it is: `render` gives it the system message in a place that it has.
            native, moment = template._native, (now.year, now.month, now.day, 10, 30, 0, 0)
            with pytest.raises(fastllm.TemplateError):
                native.render(case["messages"], case["tools"], case["add_generation_prompt"], moment, case["kwargs"])
        else:
            assert template.render(case["messages"], **arguments, **case["kwargs"]) == case["output"], case["template"]


def test_template_values():
    template = ChatTemplate("{{ messages | tojson }} {{ x | tojson }} {{ bos_token }}", bos_token="<s>")
    messages = [{"role": "user", "content": "é", "n": [1, 2.5, None, True, 2**63], "t": (1,)}]
    expected = json.dumps([{**messages[0], "t": [1]}], ensure_ascii=False)
    assert template.render(messages, x={"b": 1, "a": 2}) == f'{expected} {{"b": 1, "a": 2}} <s>'
    for wrong in (object(), {1: 2}, b"x", {"x": {1, 2}}):
        with pytest.raises(TypeError):
            template.render(messages, x=wrong)
    deep = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(ValueError, match="deep"):
        template.render(messages, x=deep)
    with pytest.raises(ValueError, match="NaN"):
        template.render(messages, x=float("nan"))


def test_the_clock_of_a_template():
    template = ChatTemplate("{{ strftime_now('%Y-%m-%d %H:%M:%S') }}")
    assert template.render([], now=datetime(2024, 2, 29, 1, 2, 3)) == "2024-02-29 01:02:03"
    before = datetime.now().replace(microsecond=0)
    assert before <= datetime.fromisoformat(template.render([])) <= datetime.now()


@pytest.mark.parametrize(
    "source",
    [
        "{{ x",
        "{% for %}",
        "{{ raise_exception('no') }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_templates_that_are_wrong_or_hostile(source):
    with pytest.raises(fastllm.TemplateError) as caught:
        ChatTemplate(source).render([])
    assert isinstance(caught.value, ValueError)


def test_a_vocabulary_is_no_model(tmp_path):
    path = ROOT / "tests/data/tokenizers" / MADE[0] / "vocab.gguf"
    with pytest.raises((fastllm.ModelFormatError, fastllm.UnsupportedModelError)):
        fastllm.Model(path)
    file = fastllm.GGUFFile(path)
    assert file.tensors == ()
    assert "tokenizer.ggml.tokens" in file.metadata
    (tmp_path / "x.gguf").write_bytes(path.read_bytes().replace(b"tokenizer.ggml.model", b"tokenizer.ggml.modem"))
    with pytest.raises(fastllm.ModelFormatError):
        Tokenizer.from_gguf(tmp_path / "x.gguf")
