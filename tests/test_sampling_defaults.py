"""Sampling options that a file recommends, and those of conversations."""

import pytest

import fastllm
from fastllm import Model, SamplingParams
from fastllm.sampling_defaults import CHAT_SAMPLING, recommended

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install gguf")

MESSAGES = [{"role": "user", "content": "Hello!"}]


def copy_with(source, target, **sampling):
    """A copy of a model file that recommends sampling options."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
    for name, value in sampling.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_int32
        add(f"general.sampling.{name}", value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_recommendation_of_a_file_is_the_default(demo_path, tmp_path):
    path = tmp_path / "model.gguf"
    copy_with(demo_path, path, temp=1.7, top_k=20, top_p=0.95, penalty_repeat=1.05)
    expected = {"temperature": 1.7, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05}
    with Model(path) as model:
        assert model.default_sampling == model.default_chat_sampling == expected
        options = {"max_tokens": 12, "seed": 5}
        drawn = model.generate("Once", **options).token_ids
        assert drawn == model.generate("Once", SamplingParams(**expected, **options)).token_ids
        assert model.stream("Once", **options).result().token_ids == drawn
        assert drawn != model.generate("Once", SamplingParams(**options)).token_ids
        # What is given goes first.
        greedy = model.generate("Once", temperature=0, max_tokens=12).token_ids
        assert (
            greedy
            == model.generate("Once", SamplingParams(**{**expected, "temperature": 0, "max_tokens": 12})).token_ids
        )
        reply = model.chat(MESSAGES, **options).token_ids
        assert reply == model.chat(MESSAGES, SamplingParams(**expected, **options)).token_ids


def test_conversations_have_defaults_of_their_own(model):
    assert model.default_sampling == {}
    assert model.default_chat_sampling == CHAT_SAMPLING == {"temperature": 0.7, "top_p": 0.95}
    options = {"max_tokens": 12, "seed": 5}
    assert (
        model.chat(MESSAGES, **options).token_ids
        == model.chat(MESSAGES, SamplingParams(**CHAT_SAMPLING, **options)).token_ids
    )
    assert model.generate("Once", **options).token_ids == model.generate("Once", SamplingParams(**options)).token_ids


def test_what_cannot_be_used_is_not_with_a_warning():
    with pytest.warns(fastllm.FastLLMWarning, match="general.sampling.*temperature"):
        assert recommended({"general.sampling.temp": -3.0, "general.sampling.top_k": 5}) == {}
    assert recommended({"general.sampling.temp": "hot", "general.sampling.sequence": "k;p", "general.name": "x"}) == {}
