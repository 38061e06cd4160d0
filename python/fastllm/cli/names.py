"""Tells names of models from texts: a mistyped model must not become a prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["WHAT_TO_DO", "is_file", "looks_like_model"]

WHAT_TO_DO = (
    "models are not downloaded by name: give the path of a GGUF file (from huggingface.co, for example with "
    "hf download OWNER/REPOSITORY FILE.gguf)"
)
# Files of models, of this and of other formats.
_SUFFIXES = (".gguf", ".safetensors", ".ggml", ".bin", ".pt", ".pth", ".onnx")
_FAMILIES = (
    "aya|baichuan|bloom|chatglm|codellama|command-?r|dbrx|deepseek|devstral|dolphin|ernie|exaone|falcon|gemma|glm|"
    "gpt-?(?:2|j|neo|oss)|granite|hermes|hunyuan|internlm|jamba|kimi|lfm|llama|llava|magistral|mamba|mi[sx]tral|minicpm|"
    "ministral|nemo(?:tron)?|olmo|openchat|orca|phi|qwen|qwq|refact|rwkv|seed-oss|smollm|solar|stablelm|starcoder|"
    "tinyllama|tulu|vicuna|wizard|yi|zephyr"
)
_NAME = r"[A-Za-z0-9][\w.-]*"
_QUANTIZATION = r"(?:I?Q\d(?:_[0-9A-Z]+)*|T?Q[12]_0|[BF]?F?(?:16|32)|MXFP4|NVFP4)"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:hf|hf\.co|huggingface|ollama|https?)[:/].+",
        # A path.
        r"(?:\.{1,2}|~)?/.+|~|[A-Za-z]:\\.+|\.{1,2}\\.+",
        # owner/name, also with a tag; more parts are a path.
        rf"{_NAME}(?:/{_NAME})+(?::{_NAME})?",
        # A name of a family with a version, a size or a variant: llama3.2, qwen2.5-coder, phi-4-mini.
        rf"(?:{_FAMILIES})[-_]?\d[\w.-]*(?::[\w.-]+)?",
        rf"(?:{_FAMILIES})[-_:]{_NAME}(?::[\w.-]+)?",
        # name:tag where either has a digit, but not a time or a ratio.
        rf"(?=[\w.:-]*\d)[A-Za-z][\w.-]*:{_NAME}|{_NAME}:latest",
        # A size or a quantization in a name of several parts: TinyStories-33M, model-Q4_K_M.
        rf"[A-Za-z][\w.]*(?:-[\w.]+)*-(?:\d+(?:\.\d+)?[bm]|{_QUANTIZATION})(?:-[\w.]+)*",
    )
)


def is_file(argument: str) -> bool:
    """Whether an argument that may be a model or a text is the model: it ends in .gguf, or is a file."""
    try:
        return argument.endswith(".gguf") or Path(argument).is_file()
    except (OSError, ValueError):  # too long or too odd for a path
        return False


def looks_like_model(words: Sequence[str]) -> bool:
    """Whether the first of the words that are about to become a prompt was meant as a model."""
    first = words[0]
    if not first or any(c.isspace() for c in first):
        return False
    if first.lower().endswith(_SUFFIXES) or any(pattern.fullmatch(first) for pattern in _PATTERNS):
        return True
    try:
        if Path(first).is_dir() and (len(words) == 1 or "/" in first):
            return True
    except (OSError, ValueError):
        return False
    # MODEL "a quoted prompt": nobody quotes all of a prompt but its first word.
    return len(words) == 2 and any(c.isspace() for c in words[1].strip())  # noqa: PLR2004
