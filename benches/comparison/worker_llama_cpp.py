"""llama.cpp, through the low-level interface of llama-cpp-python."""

from __future__ import annotations

import ctypes
import random
import sys
import time
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as lib
from protocol import serve

N_BATCH = 512
GGML_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR = 3, 4


@lib.llama_log_callback
def log(level: int, text: bytes, _: Any) -> None:
    """Warnings and errors to standard error. The library keeps the pointer: this function lives as long as the module."""
    if level in (GGML_LOG_LEVEL_WARN, GGML_LOG_LEVEL_ERROR):
        sys.stderr.write(text.decode("utf-8", "replace"))


def present(pointer: Any, what: str) -> Any:
    """`pointer`, unless it is NULL."""
    if not pointer:
        raise RuntimeError(f"{what} returned NULL")
    return pointer


class LlamaCpp:
    def __init__(self, settings: dict[str, Any]) -> None:
        lib.llama_log_set(log, ctypes.c_void_p(0))
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = bool(settings["repack"])
        self.model = present(
            lib.llama_model_load_from_file(settings["model"].encode(), params), "llama_model_load_from_file"
        )
        params = lib.llama_context_default_params()
        params.n_ctx = (settings["n_ctx"] + 255) // 256 * 256
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_threads = params.n_threads_batch = settings["threads"]
        params.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if settings["fa"] else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = params.type_v = GGML_TYPES[settings["kv_dtype"]]
        params.offload_kqv = params.op_offload = False
        params.no_perf = True
        self.context = present(lib.llama_init_from_model(self.model, params), "llama_init_from_model")
        self.memory = present(lib.llama_get_memory(self.context), "llama_get_memory")
        self.vocab = lib.llama_vocab_n_tokens(present(lib.llama_model_get_vocab(self.model), "llama_model_get_vocab"))
        self.depth = 0

    def describe(self) -> dict[str, Any]:
        info = lib.llama_print_system_info().decode().strip()
        version = lib.llama_version().decode() if hasattr(lib, "llama_version") else "?"
        return {"version": f"{version} (llama-cpp-python {llama_cpp.__version__})", "info": info, "n_batch": N_BATCH}

    def decode(self, tokens: list[int]) -> None:
        for at in range(0, len(tokens), N_BATCH):
            part = tokens[at : at + N_BATCH]
            # The batch points into the array: the name keeps it alive during the call.
            array = (lib.llama_token * len(part))(*part)
            if (rc := lib.llama_decode(self.context, lib.llama_batch_get_one(array, len(part)))) != 0:
                raise RuntimeError(f"llama_decode returned {rc}")
            lib.llama_synchronize(self.context)

    def prepare(self, n_depth: int) -> None:
        """Leaves the first `n_depth` positions in the cache, computing them if the last run had others."""
        if n_depth and self.depth == n_depth and lib.llama_memory_seq_rm(self.memory, 0, n_depth, -1):
            return
        lib.llama_memory_clear(self.memory, False)
        self.depth = 0
        self.decode(self.tokens(n_depth, 0))
        self.depth = n_depth

    def tokens(self, n: int, seed: int) -> list[int]:
        draw = random.Random(seed)
        return [draw.randrange(self.vocab) for _ in range(n)]

    def run(self, n_prompt: int, n_gen: int, n_depth: int, seed: int) -> float:
        self.prepare(n_depth)
        tokens = self.tokens(n_prompt + n_gen, seed)
        start = time.perf_counter()
        if n_prompt:
            self.decode(tokens[:n_prompt])
        for token in tokens[n_prompt:]:
            self.decode([token])
        return time.perf_counter() - start


if __name__ == "__main__":
    serve(LlamaCpp)
