"""Conversations that are kept: nothing is computed twice, and no result changes."""

from pathlib import Path

import pytest

import fastllm
from fastllm import ContextOverflowError, Model, SavedStateError

GOLDEN = Path(__file__).parent / "data" / "golden"
STORY = "Once upon a time there was a little fox. "


@pytest.fixture(scope="module")
def model():
    with Model.demo() as model:
        yield model


def test_a_second_turn_computes_only_what_is_new(model):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    first = model.chat(messages, temperature=0)
    messages += [first.message, {"role": "user", "content": "And of Japan?"}]
    second = model.chat(messages, temperature=0)
    assert second.usage.cached_tokens >= first.usage.prompt_tokens + first.usage.completion_tokens - 1
    with Model.demo(prefix_cache=0) as alone:
        again = alone.chat(messages, temperature=0)
        assert (again.content, again.usage.cached_tokens, alone.stats().cache_bytes) == (second.content, 0, 0)


def test_a_session_grows(model):
    session = model.session().append(STORY)
    text = session.generate(temperature=0, max_tokens=20)
    assert text.usage.cached_tokens == text.usage.prompt_tokens - 1
    assert text.text == model.generate(STORY, temperature=0, max_tokens=20).text
    assert session.text == STORY + text.text
    assert session.append(" One day").token_ids[len(session) - 1] == session.token_ids[-1]


def test_forks_go_their_own_ways(model):
    session = model.session().append(STORY)
    forks = [session.fork() for _ in range(4)]
    texts = [fork.generate(temperature=1, seed=seed, max_tokens=20).text for seed, fork in enumerate(forks)]
    alone = [model.generate(STORY, temperature=1, seed=seed, max_tokens=20).text for seed in range(4)]
    assert texts == alone
    assert session.text == STORY


def test_a_saved_session_comes_back(model, tmp_path):
    session = model.session().append(STORY * 8)
    session.save(tmp_path / "state")
    session.save(tmp_path / "state")
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    with Model.demo() as other:
        loaded = other.load_session(tmp_path / "state")
        assert loaded.token_ids == session.token_ids
        assert other.stats().computed_tokens == 0
        text = loaded.generate(temperature=0, max_tokens=10)
        assert text.usage.cached_tokens == text.usage.prompt_tokens - 1
        assert text.text == session.generate(temperature=0, max_tokens=10).text


def test_other_files_and_models_are_refused(model, tmp_path):
    path = tmp_path / "state"
    model.session().append(STORY).save(path)
    with (
        Model.demo(kv_dtype="q8_0") as other,
        pytest.raises((SavedStateError, fastllm.ModelFormatError), match="model"),
    ):
        other.load_session(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SavedStateError, match="damaged"):
        model.load_session(path)
    path.write_bytes(data[:1000])
    with pytest.raises(SavedStateError, match="cut off"):
        model.load_session(path)
    path.write_bytes(b"")
    with pytest.raises(SavedStateError):
        model.load_session(path)
    with pytest.raises(FileNotFoundError):
        model.load_session(tmp_path / "nothing")
    with pytest.raises(OSError, match="directory"):
        model.load_session(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        model.session([1, 2]).save(tmp_path / "no" / "such" / "folder")
    with pytest.raises(fastllm.ParameterError):
        model.session().save(tmp_path / "empty")
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_text_that_is_too_long_changes_nothing(model):
    session = model.session().append(STORY)
    before = session.token_ids
    with pytest.raises(ContextOverflowError):
        session.append(STORY * 100)
    assert session.token_ids == before
    assert "tokens" in repr(session)


def test_options_are_checked():
    with pytest.raises(fastllm.ParameterError, match="prefix_cache"):
        Model.demo(prefix_cache=-1)
    with pytest.raises(fastllm.ParameterError, match="priority"):
        fastllm.SamplingParams(priority=2**40)


def test_texts_share_nothing_with_those_of_another_salt(model, tmp_path):
    def cached(text, **options):
        return model.generate(text, max_tokens=1, **options).usage.cached_tokens

    story = "A salt keeps this text apart from others. " * 5
    session = model.session(cache_salt="one").append(story)
    ids = [*session.token_ids, 5]
    assert cached(ids) == cached(ids, cache_salt="two") == 0
    assert cached(ids, cache_salt="one") == len(ids) - 1
    assert session.fork().generate(max_tokens=1).usage.cached_tokens == len(session) - 1
    assert session.fork().generate(max_tokens=1, cache_salt="three").usage.cached_tokens == 0
    session.save(tmp_path / "state")
    restored = model.load_session(tmp_path / "state", cache_salt="four")
    assert restored.fork().generate(max_tokens=1).usage.cached_tokens == len(session) - 1
    assert cached(ids, cache_salt="five") == 0
    with pytest.raises(TypeError, match="cache_salt"):
        model.generate("x", cache_salt=5)


def test_guesses_change_nothing():
    prompt = "Say these words again: red blue green red blue green red blue green"
    with Model.demo(speculate=False) as plain, Model.demo() as guessing:
        for seed in range(6):
            options = {"max_tokens": 60, "temperature": 0.5, "seed": seed, "ignore_eos": True, "logprobs": 1}
            assert plain.generate(prompt, **options).logprobs == guessing.generate(prompt, **options).logprobs
        assert plain.stats().drafted_tokens == 0


def test_a_draft_model_changes_nothing(tmp_path):
    prompt = "Once upon a time"
    with Model.demo(speculate=False) as plain, Model(fastllm.model.DEMO, draft=fastllm.model.DEMO) as drafted:
        for seed in range(4):
            options = {"max_tokens": 80, "temperature": 0.7, "seed": seed, "ignore_eos": True}
            assert drafted.generate(prompt, **options).token_ids == plain.generate(prompt, **options).token_ids
    with pytest.raises(fastllm.ParameterError, match="tokens are other tokens"):
        Model(fastllm.model.DEMO, draft=GOLDEN / "llama" / "model-f16.gguf")
    with pytest.raises(FileNotFoundError):
        Model(fastllm.model.DEMO, draft=tmp_path / "nothing.gguf")
