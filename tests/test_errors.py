"""Errors: typed, also built-ins, and naming what is wrong."""

import os
import pickle

import pytest

import fastllm
from fastllm import Model, SamplingParams


def test_a_missing_file(tmp_path):
    with pytest.raises(fastllm.ModelFileNotFoundError) as caught:
        Model(tmp_path / "none.gguf")
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, fastllm.FastLLMError)
    assert caught.value.filename == str(tmp_path / "none.gguf")
    assert caught.value.errno == 2


def test_files_that_are_none(tmp_path):
    with pytest.raises(fastllm.ModelFileError):
        Model(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="regular"):
        Model(tmp_path / "fifo")
    for content in (b"", b"GGUF", b"not a model at all" * 99):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(fastllm.ModelFormatError) as caught:
            Model(tmp_path / "x.gguf")
        assert isinstance(caught.value, ValueError)
        assert "x.gguf" in str(caught.value)


def test_a_truncated_file(tmp_path, demo_path):
    whole = demo_path.read_bytes()
    for size in (100, 10_000, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.gguf").write_bytes(whole[:size])
        with pytest.raises(fastllm.ModelFormatError):
            Model(tmp_path / "x.gguf")


def test_an_unsupported_architecture_is_named(tmp_path, demo_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(demo_path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0llomo", 1))
    with pytest.raises(fastllm.UnsupportedModelError, match="llomo") as caught:
        Model(path)
    assert isinstance(caught.value, NotImplementedError)
    assert fastllm.GGUFFile(path).architecture == "llomo"


def test_a_prompt_that_is_too_long(model):
    for call in (model.generate, model.stream, model.logits):
        with pytest.raises(fastllm.ContextOverflowError) as caught:
            call([5] * 513)
        assert (caught.value.prompt_tokens, caught.value.context_length) == (513, 512)
        assert isinstance(caught.value, ValueError)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.prompt_tokens) == (str(caught.value), 513)


def test_prompts_that_are_none(model):
    for prompt in ("", [], ()):
        with pytest.raises(fastllm.ParameterError, match="no tokens"):
            model.stream(prompt)
    for prompt in ([1024], [-1], [2**40]):
        with pytest.raises(ValueError, match="id"):
            model.generate(prompt)
    for prompt in (None, 3, b"bytes", 1.5, {"a": 1}, ["text", None]):
        with pytest.raises(TypeError):
            model.generate(prompt)


def start(coroutine):
    """A coroutine says what is wrong with its arguments when it starts."""
    coroutine.send(None)


def test_an_unknown_keyword_is_a_type_error(model):
    for call in (model.generate, model.stream, model.agenerate, model.astream):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'temprature'; did you mean 'temperature'"):
            start(call("x", temprature=1))
    with pytest.raises(TypeError, match="tool_choise"):
        model.chat([{"role": "user", "content": "x"}], tool_choise="auto")
    with pytest.raises(TypeError):
        Model.demo(draft=None)
    with pytest.raises(TypeError):
        model.tokenizer.encode("x", normalize=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -2),
        ("max_tokens", 2**63),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", 1e308),
        ("temperature", 10**400),
        ("top_k", -2),
        ("top_k", 2**64),
        ("top_p", 1.5),
        ("top_p", -0.1),
        ("min_p", 2),
        ("typical_p", float("inf")),
        ("repetition_penalty", 0),
        ("presence_penalty", 1e38),
        ("dry_base", 0),
        ("mirostat", 1),
        ("seed", -(2**63) - 1),
        ("seed", 2**64),
        ("logprobs", -1),
        ("logprobs", 10**6),
        ("prompt_logprobs", 101),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("timeout", 1e300),
        ("stop", ""),
        ("stop", ["ok", ""]),
        ("stop", ["x"] * 10_000),
        ("stop", "x" * 2**20),
        ("stop_token_ids", [-1]),
        ("logit_bias", {0: 1e308}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: float("nan")}),
    ],
)
def test_a_value_out_of_range_names_the_option(name, value):
    with pytest.raises(fastllm.ParameterError, match=name) as caught:
        SamplingParams(**{name: value})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 1.5),
        ("max_tokens", "3"),
        ("max_tokens", True),
        ("temperature", "hot"),
        ("temperature", None),
        ("temperature", True),
        ("top_k", None),
        ("ignore_eos", 1),
        ("stop", 3),
        ("stop", [3]),
        ("stop_token_ids", "abc"),
        ("stop_token_ids", 3),
        ("logit_bias", [1]),
        ("logit_bias", {"abc": 1.0}),
        ("seed", 1.0),
        ("timeout", "1"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_option(name, value):
    with pytest.raises(TypeError, match=name):
        SamplingParams(**{name: value})


def test_ids_of_options_are_checked_against_the_vocabulary(model):
    for options in ({"logit_bias": {1024: 1.0}}, {"stop_token_ids": [1024]}, {"dry_sequence_breakers": [9999]}):
        with pytest.raises(fastllm.ParameterError, match="1024"):
            model.generate("x", **options)


def test_everything_banned_is_an_error_and_harms_no_one(model):
    with pytest.raises(fastllm.SamplingError):
        model.generate("x", logit_bias=dict.fromkeys(range(1024), float("-inf")), max_tokens=3)
    assert model.generate("x", max_tokens=3).token_ids


@pytest.mark.parametrize(
    ("option", "value"),
    [("threads", 0), ("threads", -1), ("threads", 10**6), ("context_length", 0), ("kv_dtype", "q4_0"), ("isa", "sse9")],
)
def test_wrong_loading_options(option, value):
    with pytest.raises(fastllm.ParameterError):
        Model.demo(**{option: value})


def test_a_model_without_template_says_what_to_do(tmp_path, demo_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(demo_path.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.chat_templat3"))
    with Model(path) as model:
        with pytest.raises(fastllm.TemplateError, match="chat_template="):
            model.chat([{"role": "user", "content": "x"}])
        assert model.chat([{"role": "user", "content": "x"}], chat_template="hi", max_tokens=1)


def test_the_hierarchy():
    for name in fastllm.errors.__all__:
        error = getattr(fastllm.errors, name)
        assert issubclass(error, fastllm.FastLLMError) or error is fastllm.FastLLMWarning
        assert getattr(fastllm, name) is error
        if error not in {fastllm.FastLLMError, fastllm.FastLLMWarning}:
            assert error.__mro__[-3] is Exception
            assert len(error.__bases__) == 2 or issubclass(error, fastllm.ContextOverflowError)
