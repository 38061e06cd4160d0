"""`Model`: generation, streams, numbers, facts."""

import copy
import dataclasses
import gc
import math
import multiprocessing
import pickle
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import fastllm
from fastllm import Model, SamplingParams

STORY = "Once upon a time"


def idle(model, seconds=60.0):
    """Whether all sequences of a model are free, soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if model.stats().running + model.stats().waiting == 0:
            return True
        time.sleep(0.002)
    return False


def test_greedy_outputs_are_those_of_the_reference(model, golden):
    """Rounding of activations may flip near ties; no prompt here has one, by `min_margin`."""
    clear = [x for x in golden if x["min_margin"] > 0.5]
    assert len(clear) > 40
    prompts = [x["prompt_ids"] for x in clear]
    for x, out in zip(clear, model.generate(prompts, max_tokens=220, temperature=0), strict=True):
        end = [out.stop_reason] if out.finish_reason == "stop" else []
        assert [*out.token_ids, *end] == x["ids"][: x["max_tokens"]], x["id"]
        assert out.text == x["text"]


def test_prompts_are_tokenized_and_rendered_as_in_the_reference(model, golden):
    for x in golden:
        assert model.tokenizer.encode(x["prompt"], parse_special=True) == x["prompt_ids"]
        if "messages" in x:
            assert "user" in model.apply_chat_template(x["messages"])


def test_chat_answers_with_the_template_of_the_file(model):
    reply = model.chat([{"role": "user", "content": "What is the capital of France?"}], temperature=0)
    assert reply.content == "The capital of France is Paris."
    assert reply.finish_reason == "stop"
    assert reply.message == {"role": "assistant", "content": reply.content}
    assert str(reply) == reply.content


def test_chat_takes_another_template_and_its_variables(model):
    messages = [{"role": "user", "content": "ignored"}]
    template = "<|im_start|>user\n{{ question }}<|im_end|>\n<|im_start|>assistant\n"
    reply = model.chat(
        messages,
        chat_template=template,
        chat_template_kwargs={"question": "What is the capital of France?"},
        temperature=0,
    )
    assert "Paris" in reply.content
    compiled = fastllm.ChatTemplate(template)
    again = model.chat(
        messages,
        chat_template=compiled,
        chat_template_kwargs={"question": "What is the capital of France?"},
        temperature=0,
    )
    assert again.content == reply.content


def test_a_list_gives_a_list_in_order_and_the_same_texts(model):
    prompts = [f"Once upon a time there was a {animal}" for animal in ("cat", "dog", "bird", "fox")] * 40
    together = model.generate(prompts, max_tokens=8, temperature=0.7, seed=3)
    assert [x.token_ids for x in together[:4]] == [
        model.generate(p, max_tokens=8, temperature=0.7, seed=3).token_ids for p in prompts[:4]
    ]
    assert [x.token_ids for x in together[4:8]] == [x.token_ids for x in together[:4]]
    assert model.generate([]) == []
    assert [x.text for x in model.generate([[565, 567], STORY], max_tokens=1)]


def test_ids_of_any_integer_type_are_a_prompt(model):
    ids = model.tokenizer.encode(STORY)
    texts = {model.generate(p, max_tokens=8, temperature=0).text for p in (STORY, ids, tuple(ids), np.array(ids))}
    assert len(texts) == 1


def test_the_stream_is_the_generation(model):
    options = {"max_tokens": 50, "temperature": 0.9, "seed": 11, "logprobs": 2}
    with model.stream(STORY, **options) as stream:
        chunks = list(stream)
        result = stream.result()
    assert "".join(c.text for c in chunks) == result.text
    assert sum((c.token_ids for c in chunks), ()) == result.token_ids
    assert sum((c.logprobs for c in chunks), ()) == result.logprobs
    whole = model.generate(STORY, **options)
    assert (whole.text, whole.token_ids, whole.logprobs) == (result.text, result.token_ids, result.logprobs)
    assert result.usage.prompt_tokens == 4
    assert result.usage.completion_tokens == len(result.token_ids)
    assert result.usage.total_tokens == 4 + len(result.token_ids)
    assert result.timings.decode_seconds > 0


def test_a_stream_gives_whole_characters(model):
    for _ in range(3):
        stream = model.stream("नमस्ते 🎉 é", max_tokens=200, temperature=3.0, seed=5, ignore_eos=True)
        chunks = [chunk.text for chunk in stream]
        assert "".join(chunks).encode()  # no lone surrogates
        ids = stream.result().token_ids
        assert len(ids) == 200
        assert "".join(chunks) == model.tokenizer.decode([1, *ids]).removeprefix(model.tokenizer.decode([1]))


def test_chat_stream_is_chat(model):
    messages = [{"role": "user", "content": "Hello!"}]
    with model.chat_stream(messages, temperature=0) as stream:
        text = "".join(chunk.content for chunk in stream)
        assert stream.result().content == text
    assert model.chat(messages, temperature=0).content == text


def test_stop_strings_never_show(model):
    whole = model.generate(STORY, max_tokens=60, temperature=0).text
    for stop in ("Mia", "ed house. She", "wa", whole[10:40]):
        chunks = []
        stream = model.stream(STORY, max_tokens=60, temperature=0, stop=stop)
        for chunk in stream:
            chunks.append(chunk.text)
            assert stop not in "".join(chunks)
        result = stream.result()
        assert result.text == "".join(chunks) == whole[: whole.index(stop)]
        assert (result.finish_reason, result.stop_reason) == ("stop", stop)


def test_stop_tokens_length_and_timeout(model):
    full = model.generate(STORY, max_tokens=20, temperature=0)
    assert full.finish_reason == "length"
    stopped = model.generate(STORY, max_tokens=20, temperature=0, stop_token_ids=[full.token_ids[5]])
    assert stopped.token_ids == full.token_ids[:5]
    assert stopped.stop_reason == full.token_ids[5]
    slow = model.generate(STORY, temperature=1.5, ignore_eos=True, timeout=0.005, seed=1)
    assert slow.finish_reason in {"timeout", "length"}
    end = model.generate(STORY, ignore_eos=True, temperature=0)
    assert end.finish_reason == "length"
    assert end.usage.total_tokens in {model.context_length, model.context_length + 1}


def test_seeds_repeat_and_differ(model):
    def text(seed):
        return model.generate(STORY, max_tokens=40, temperature=1.2, seed=seed).text

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(8)}) > 4
    assert len({text(None) for _ in range(8)}) > 4


def test_logprobs_are_those_of_the_logits(model):
    out = model.generate(STORY, max_tokens=4, temperature=0, logprobs=3)
    ids = model.tokenizer.encode(STORY)
    logits = model.logits([*ids, *out.token_ids])[len(ids) - 1 : -1].astype(np.float64)
    expected = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    for row, token_id, got in zip(expected, out.token_ids, out.logprobs, strict=True):
        assert got.token_id == token_id == got.top[0].token_id
        assert got.logprob == pytest.approx(row[token_id], abs=1e-4)
        assert [t.logprob for t in got.top] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-4)
        assert got.token == got.top[0].token != ""


def test_logits_are_writable_float32_and_the_same_one_by_one(model):
    ids = model.tokenizer.encode("What is the capital of France?")
    logits = model.logits(ids)
    assert logits.shape == (len(ids), model.vocab_size)
    assert logits.dtype == np.float32
    logits[0, 0] = 0
    np.testing.assert_array_equal(model.logits(ids[:3])[1:], model.logits(ids)[1:3])


def test_score_and_perplexity(model):
    good = model.score(STORY, " there was a little cat")
    bad = model.score(STORY, " zebra quantum of of")
    assert bad < good < 0
    context = model.tokenizer.encode(STORY)
    continuation = model.tokenizer.encode(", there", add_special=False)
    assert model.score(context, continuation) == pytest.approx(model.score(STORY, ", there"))
    ids = context + continuation
    mean = sum(model.score(ids[:i], ids[i : i + 1]) for i in range(1, len(ids))) / (len(ids) - 1)
    assert model.perplexity(ids) == pytest.approx(math.exp(-mean))
    assert model.perplexity(ids * 200) > 1  # more windows than one
    for wrong in (
        lambda: model.score("", "x"),
        lambda: model.score("x", ""),
        lambda: model.perplexity("x"),
        lambda: model.perplexity("x" * 9, window=1),
    ):
        with pytest.raises(fastllm.ParameterError):
            wrong()


@pytest.mark.parametrize("isa", fastllm.available_isas())
@pytest.mark.parametrize("threads", [1, 2])
def test_results_depend_on_neither_instruction_set_nor_threads(model, isa, threads):
    expected = model.generate(STORY, max_tokens=40, temperature=0.8, seed=1).token_ids
    with Model.demo(isa=isa, threads=threads, prefill_threads=3 - threads) as other:
        assert (other.isa, other.threads, other.prefill_threads) == (isa, threads, 3 - threads)
        assert other.generate(STORY, max_tokens=40, temperature=0.8, seed=1).token_ids == expected


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "q8_0"])
def test_every_cache_type_tells_the_story(kv_dtype):
    with Model.demo(kv_dtype=kv_dtype, context_length=64) as model:
        assert (model.kv_dtype, model.context_length) == (kv_dtype, 64)
        assert "little cat" in model.generate(STORY, max_tokens=12, temperature=0).text


def test_leaving_the_loop_frees_the_sequence(model):
    for chunk in model.stream(STORY, ignore_eos=True):
        assert chunk.text
        break
    assert idle(model)
    stream = model.stream(STORY, ignore_eos=True)
    for _ in stream:
        break
    assert idle(model), "the stream is still held"
    assert stream.result().finish_reason == "cancelled"


def test_dropping_a_stream_frees_the_sequence(model):
    streams = [model.stream(STORY, ignore_eos=True) for _ in range(20)]
    next(streams[0])
    del streams
    gc.collect()
    assert idle(model)


def test_cancel_ends_a_stream_and_keeps_what_there_is(model):
    with model.stream(STORY, ignore_eos=True) as stream:
        first = next(stream)
        stream.cancel()
        result = stream.result()
    assert result.finish_reason == "cancelled"
    assert result.text.startswith(first.text)
    assert list(stream) == []
    stream.cancel()


def test_a_stream_outlives_its_model():
    model = Model.demo()
    stream = model.stream(STORY, max_tokens=30, temperature=0)
    del model
    gc.collect()
    assert "little cat" in stream.result().text


def test_a_closed_model_says_so():
    model = Model.demo()
    stream = model.stream(STORY, ignore_eos=True)
    model.close()
    model.close()
    with pytest.raises(fastllm.CancelledError):
        stream.result()
    for call in (lambda: model.generate(STORY), lambda: model.logits([1]), lambda: model.score([1], [2])):
        with pytest.raises(fastllm.CancelledError, match="closed"):
            call()


def test_progress_of_loading_and_of_prompts():
    loaded, read = [], []
    with Model.demo(progress=lambda *x: loaded.append(x)) as model:
        list(model.stream([5] * 500, max_tokens=1, progress=lambda *x: read.append(x)))
    for steps in (loaded, read):
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1][0] == steps[-1][1]
    assert read[-1] == (500, 500)


def test_what_a_progress_callback_raises_arrives():
    def stop(_done, _total):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        Model.demo(progress=stop)


def test_facts(model, demo_path):
    assert model.path == str(demo_path)
    assert model.architecture == "llama"
    assert model.vocab_size == model.tokenizer.vocab_size == 1024
    assert model.metadata["llama.context_length"] == model.context_length == 512
    assert len(model.metadata["tokenizer.ggml.tokens"]) == 1024
    assert len(model.metadata) == len(list(model.metadata)) == len(dict(model.metadata))
    assert "no.such.key" not in model.metadata
    with pytest.raises(KeyError):
        model.metadata["no.such.key"]
    embedding = next(t for t in model.tensors if t.name == "token_embd.weight")
    assert (embedding.shape, embedding.dtype, embedding.elements) == ((1024, 256), "q6_k", 1024 * 256)
    assert model.parameters == sum(t.elements for t in model.tensors)
    text = repr(model)
    for part in ("fastllm-tiny-q4_0.gguf", "llama", "2.03 M", "q4_0", model.isa, f"{model.threads} threads"):
        assert part in text


def test_plan(demo_path):
    plan = fastllm.plan(demo_path)
    assert plan.total == plan.weights + plan.kv_cache + plan.scratch + plan.other
    assert plan.context_length == 512
    assert fastllm.plan(demo_path, batch=4).kv_cache == 4 * plan.kv_cache
    assert fastllm.plan(demo_path, kv_dtype="f32").kv_cache == 2 * plan.kv_cache
    huge = fastllm.plan(demo_path, context_length=2**30, batch=64)
    if huge.available is not None:
        assert plan.fits is True
        assert huge.fits is False
    with pytest.raises(fastllm.ParameterError):
        fastllm.plan(demo_path, batch=0)
    with pytest.raises(fastllm.ParameterError, match="q8_0"):
        fastllm.plan(demo_path, kv_dtype="q9")


def test_options_survive_a_pickle_and_compare():
    params = SamplingParams(temperature=0.5, stop="x", logit_bias={3: -1})
    assert pickle.loads(pickle.dumps(params)) == params
    assert params == SamplingParams(temperature=0.5, stop=("x",), logit_bias={3: -1.0})


def test_negative_numbers_that_mean_the_default():
    """As in other engines, whose clients write them."""
    params = SamplingParams(seed=-1, top_k=-1, max_tokens=-1)
    assert params == SamplingParams()
    assert SamplingParams(seed=-(2**63)).seed is None
    for wrong in ({"max_tokens": -2}, {"top_k": -2}, {"seed": -(2**63) - 1}, {"logprobs": -1}):
        with pytest.raises(fastllm.ParameterError):
            SamplingParams(**wrong)


PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def test_control_tokens_in_raw_prompts(model):
    greedy = {"max_tokens": 12, "temperature": 0}
    parsed = model.tokenizer.encode(PROMPT, parse_special=True)
    plain = model.tokenizer.encode(PROMPT)
    assert len(parsed) < len(plain)
    out = model.generate(PROMPT, **greedy)
    assert out.text == "The capital of France is Paris."
    assert out.usage.prompt_tokens == len(parsed)
    assert model.stream(PROMPT, **greedy).result().text == out.text
    for options, ids in (({}, parsed), ({"parse_special": False}, plain)):
        assert model.generate([PROMPT], **greedy, **options)[0].usage.prompt_tokens == len(ids)
        assert model.stream(PROMPT, **greedy, **options).result().usage.prompt_tokens == len(ids)
        assert model.session().append(PROMPT, **options).token_ids == tuple(ids)
        assert model.perplexity(PROMPT, **options) == model.perplexity(ids)
        assert model.score(PROMPT, " Paris", **options) == model.score(ids, " Paris")
    with pytest.raises(TypeError, match="parse_special"):
        model.generate(PROMPT, parse_special="no")


def test_control_tokens_never_come_from_messages(model):
    messages = [{"role": "user", "content": "<|im_end|>"}]
    with pytest.raises(TypeError, match="parse_special"):
        model.chat(messages, parse_special=True)
    with pytest.raises(TypeError, match="parse_special"):
        SamplingParams(parse_special=True)


def test_models_pickle_by_path(demo_path, monkeypatch, tmp_path):
    monkeypatch.chdir(demo_path.parent)
    with Model(demo_path.name, context_length=64, threads=1, kv_dtype="q8_0", draft=demo_path.name) as model:
        expected = model.generate(STORY, max_tokens=9, temperature=0).text
        pickled = pickle.dumps(model)
        assert copy.copy(model) is copy.deepcopy({"model": model})["model"] is model
    monkeypatch.chdir(tmp_path)
    with pickle.loads(pickled) as other:
        assert (other.path, other.context_length, other.threads, other.kv_dtype) == (str(demo_path), 64, 1, "q8_0")
        assert other.generate(STORY, max_tokens=9, temperature=0).text == expected


def test_a_pickled_model_runs_in_a_spawned_process(model):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        out = pool.submit(Model.generate, model, STORY, max_tokens=9, temperature=0).result(120)
    assert out == dataclasses.replace(
        model.generate(STORY, max_tokens=9, temperature=0), timings=out.timings, usage=out.usage
    )


def test_params_are_changed_by_keywords(model):
    params = SamplingParams(temperature=0, max_tokens=5)
    assert len(model.generate(STORY, params).token_ids) == 5
    assert len(model.generate(STORY, params, max_tokens=7).token_ids) == 7


def test_logprobs_of_a_prompt_are_those_of_generation(model):
    made = model.generate(STORY, max_tokens=6, temperature=0, logprobs=2, prompt_logprobs=2)
    ids = model.tokenizer.encode(STORY)
    assert made.prompt_logprobs[0] is None
    assert [token.token_id for token in made.prompt_logprobs[1:]] == ids[1:]
    again = model.generate([*ids, *made.token_ids], max_tokens=0, prompt_logprobs=2)
    assert again.prompt_logprobs == made.prompt_logprobs + made.logprobs
    assert (again.text, again.token_ids, again.finish_reason) == ("", (), "length")
    total = sum(token.logprob for token in again.prompt_logprobs[len(ids) :])
    assert model.score(ids, made.token_ids) == pytest.approx(total, abs=1e-3)
    assert model.generate(STORY, max_tokens=1).prompt_logprobs is None
    with pytest.raises(fastllm.ParameterError, match="prompt_logprobs"):
        model.chat([{"role": "user", "content": "Hi"}], prompt_logprobs=1)
