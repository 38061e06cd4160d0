"""fastllm, through its Python package: forward passes alone, as of the others."""

from __future__ import annotations

import random
from typing import Any

import fastllm
from fastllm import _native
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
        self.decoder = _native.Decoder(self.model._weights)

    def describe(self) -> dict[str, Any]:
        return {"version": fastllm.__version__, "info": repr(self.model)}

    def passes(self, sequence: int, first: int, n: int, step: int, seed: int) -> list[list[tuple[int, int, int, bool]]]:
        """`n` random tokens from position `first` on, `step` at a time; logits after the last of each pass, as llama.cpp gives them."""
        draw = random.Random(seed)
        rows = [(sequence, first + at, draw.randrange(self.model.vocab_size), False) for at in range(n)]
        passes = [rows[at : at + step] for at in range(0, n, step)]
        return [[*part[:-1], (*part[-1][:3], True)] for part in passes]

    def run(self, n_prompt: int, n_gen: int, n_depth: int, seed: int) -> float:
        sequence = self.decoder.open()
        try:
            if n_depth:
                self.decoder.run(self.passes(sequence, 0, n_depth, self.decoder.max_rows, 0))
            prompt = self.passes(sequence, n_depth, n_prompt, self.decoder.max_rows, seed)
            generated = self.passes(sequence, n_depth + n_prompt, n_gen, 1, seed + 1)
            seconds, _ = self.decoder.run(prompt + generated)
            return seconds
        finally:
            self.decoder.close(sequence)


if __name__ == "__main__":
    serve(FastLlm)
