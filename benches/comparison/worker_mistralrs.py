"""mistral.rs, through its Python package. Prompts are texts, so their length is near what was asked; rates are the engine's own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from protocol import serve

# Before the first thread starts.
os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(json.loads(sys.argv[1])["threads"])
os.environ["HF_HUB_OFFLINE"] = "1"

from mistralrs import CompletionRequest, Runner, Which  # noqa: E402


class MistralRs:
    def __init__(self, settings: dict[str, Any]) -> None:
        path = Path(settings["model"])
        if settings["kv_dtype"] != "f16":
            raise ValueError(f"no {settings['kv_dtype']} KV cache on the CPU")
        self.runner = Runner(
            which=Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name),
            max_seqs=1,
            prefix_cache_n=0,
            token_source="none",
        )

    def describe(self) -> dict[str, Any]:
        return {"version": importlib.metadata.version("mistralrs")}

    def text(self, n: int, seed: int) -> str:
        """A text of about `n` tokens, not more (but of one word at least)."""
        draw = random.Random(seed)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=2)) for _ in range(n)]
        while len(words) > 1 and (count := len(self.runner.tokenize_text(" ".join(words), True, None))) > n:
            words = words[: min(len(words) - 1, len(words) * n // count)]
        return " ".join(words)

    def request(self, prompt: str, n_gen: int) -> Any:
        request = CompletionRequest(prompt=prompt, model="default", max_tokens=n_gen, temperature=0.0, ignore_eos=True)
        return self.runner.send_completion_request(request).usage

    def run(self, n_prompt: int, n_gen: int, n_depth: int, seed: int) -> float:
        if n_gen:
            usage = self.request(self.text(max(n_depth, 1), seed), n_gen)
            return n_gen / usage.avg_compl_tok_per_sec
        text = self.text(n_depth + n_prompt, seed)
        whole = self.request(text, 1)
        if not n_depth:
            return n_prompt * whole.total_prompt_time_sec / whole.prompt_tokens
        # There is no way to time the end of a prompt alone.
        part = self.request(text[: len(text) * n_depth // (n_depth + n_prompt)], 1)
        seconds = whole.total_prompt_time_sec - part.total_prompt_time_sec
        return n_prompt * seconds / (whole.prompt_tokens - part.prompt_tokens)


if __name__ == "__main__":
    serve(MistralRs)
