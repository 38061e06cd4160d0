"""The embedded model from ids to ids: prompt and decode, alone and in a batch.

    make bench
    python -m pytest benches --benchmark-enable --benchmark-only

The model has two million parameters, so this measures the engine around the kernels (scheduling, attention, sampling, crossing from Rust
to Python) more than the kernels. `extra_info` has tokens per second.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fastllm import Model

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

PROMPT = 384
WRITTEN = 96


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.demo()


def prompt(model: Model, seed: int, n: int) -> list[int]:
    """`n` token ids that no earlier round had, so that no cache has them either."""
    draw = random.Random(seed)
    return [draw.randrange(model.tokenizer.vocab_size) for _ in range(n)]


def rounds(benchmark: BenchmarkFixture, model: Model, n_prompt: int, tokens: int, work: Any) -> None:
    seeds = iter(range(10**6))
    benchmark.pedantic(work, setup=lambda: ((prompt(model, next(seeds), n_prompt),), {}), rounds=20, warmup_rounds=2)
    benchmark.extra_info["tokens_per_second"] = tokens / benchmark.stats.stats.median


def test_prompt(benchmark: BenchmarkFixture, model: Model) -> None:
    def work(ids: list[int]) -> None:
        out = model.generate(ids, max_tokens=1, temperature=0, ignore_eos=True)
        assert (out.usage.prompt_tokens, out.usage.cached_tokens) == (PROMPT, 0)

    rounds(benchmark, model, PROMPT, PROMPT, work)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_decode(benchmark: BenchmarkFixture, model: Model, temperature: float) -> None:
    def work(ids: list[int]) -> None:
        out = model.generate(ids, max_tokens=WRITTEN, temperature=temperature, seed=1, ignore_eos=True)
        assert out.usage.completion_tokens == WRITTEN

    rounds(benchmark, model, 1, WRITTEN, work)


@pytest.mark.parametrize("requests", [2, 8])
def test_decode_batch(benchmark: BenchmarkFixture, model: Model, requests: int) -> None:
    """Several requests at once: the weights are read once for all."""
    with ThreadPoolExecutor(requests) as pool:

        def one(ids: list[int]) -> int:
            return model.generate(ids, max_tokens=WRITTEN, temperature=0, ignore_eos=True).usage.completion_tokens

        def work(ids: list[int]) -> None:
            prompts = [[(i + shift) % model.tokenizer.vocab_size for i in ids] for shift in range(requests)]
            assert list(pool.map(one, prompts)) == [WRITTEN] * requests

        rounds(benchmark, model, 1, requests * WRITTEN, work)
