"""Small models of other shapes, against their references, through the Python interface."""

import json

import numpy as np
import pytest

from fastllm import Model

from .conftest import ROOT

GOLDEN = ROOT / "tests/data/golden"
FAMILIES = sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_greedy_ids(name):
    """The files hold the weights exactly; the differences are those of half-precision caches and activations."""
    reference = np.load(GOLDEN / name / "golden.npz")
    prompt, generated = reference["prompt_ids"].tolist(), reference["gen_ids"].tolist()
    with Model(GOLDEN / name / "model-f16.gguf", kv_dtype="f32") as model:
        logits = model.logits(prompt + generated[:-1])
        expected = np.concatenate([reference["prompt_logits"], reference["gen_logits"][1:]])
        assert np.abs(logits - expected).max() < 1e-3
        out = model.generate(prompt, max_tokens=len(generated), temperature=0, ignore_eos=True)
        assert list(out.token_ids) == generated


@pytest.mark.parametrize("name", ["model-f32.gguf", "model-f16.gguf"])
def test_stories_are_told_as_by_the_checkpoint(shared, name):
    golden = json.loads(shared("golden/stories260K/golden.json").read_text(encoding="utf-8"))
    with Model(shared(f"golden/stories260K/{name}"), kv_dtype="f32") as model:
        for case in golden["files"][name]["prompts"]:
            ids = case["prompt_ids"]
            out = model.generate(ids, max_tokens=200, temperature=0, ignore_eos=True)
            assert list(out.token_ids) == case["gen_ids"][:200]
