"""fastllm, through its Python package."""

from __future__ import annotations

import random
from typing import Any

import fastllm
from protocol import serve


class FastLlm:
    def __init__(self, settings: dict[str, Any]) -> None:
        threads = settings["threads"]
        self.model = fastllm.Model(
            settings["model"],
            context_length=settings["n_ctx"],
            threads=threads,
            prefill_threads=threads,
            kv_dtype=settings["kv_dtype"],
            isa=settings["isa"],
        )

    def describe(self) -> dict[str, Any]:
        return {"version": fastllm.__version__, "info": repr(self.model)}

    def tokens(self, n: int, seed: int) -> list[int]:
        draw = random.Random(seed)
        return [draw.randrange(self.model.tokenizer.vocab_size) for _ in range(n)]

    def request(self, ids: list[int], n_gen: int) -> Any:
        return self.model.generate(ids, max_tokens=n_gen, temperature=0, ignore_eos=True)

    def run(self, n_prompt: int, n_gen: int, n_depth: int, seed: int) -> float:
        if n_gen:
            # The first token belongs to the prompt.
            out = self.request(self.tokens(max(n_depth, 1), seed), n_gen + 1)
            if out.usage.completion_tokens != n_gen + 1:
                raise RuntimeError(
                    f"{out.usage.completion_tokens} tokens written, not {n_gen + 1}: {out.finish_reason}"
                )
            return n_gen / out.timings.decode_tokens_per_second
        ids = self.tokens(n_depth, seed)
        before = self.request(ids, 1) if n_depth else None
        out = self.request(ids + self.tokens(n_prompt, seed + 1), 1)
        cached = out.usage.cached_tokens
        if n_depth and not cached:
            # Nothing was kept, so the beginning was computed again: its time is taken off.
            return out.timings.prompt_seconds - before.timings.prompt_seconds
        if cached > n_depth:
            raise RuntimeError(f"{cached} tokens came from the cache, not {n_depth}")
        # The cache may keep a few tokens less than it was given: they count.
        return n_prompt * out.timings.prompt_seconds / (n_depth + n_prompt - cached)


if __name__ == "__main__":
    serve(FastLlm)
