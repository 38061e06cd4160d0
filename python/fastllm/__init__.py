"""Fast inference of open-weight language models (GGUF files) on CPUs.

>>> from fastllm import Model
>>> model = Model.demo()
>>> print(model.generate("Once upon a time", max_tokens=32, temperature=0).text)  # doctest: +SKIP
"""

from __future__ import annotations

import atexit as _atexit

from fastllm import _native
from fastllm._native import __version__, available_isas
from fastllm.chat import ChatTemplate
from fastllm.clients import async_openai, openai
from fastllm.errors import (
    BusyError,
    CancelledError,
    ContextOverflowError,
    EventLoopError,
    FastLLMError,
    FastLLMWarning,
    ForkError,
    GrammarError,
    InternalError,
    MissingExtraError,
    ModelFileError,
    ModelFileNotFoundError,
    ModelFilePermissionError,
    ModelFormatError,
    OutOfMemoryError,
    OutputError,
    ParameterError,
    SamplingError,
    SavedStateError,
    TemplateError,
    UnsupportedModelError,
)
from fastllm.gguf import GGUFFile, TensorInfo
from fastllm.model import Model
from fastllm.options import SamplingParams
from fastllm.plan import MemoryPlan, plan
from fastllm.results import (
    ChatChunk,
    ChatReply,
    Chunk,
    EngineStats,
    Generation,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from fastllm.session import Session
from fastllm.stream import AsyncChatStream, AsyncTokenStream, ChatStream, TokenStream
from fastllm.tokenizer import Tokenizer
from fastllm.tools import ToolCall, ToolCallDelta, describe_tool

__all__ = [
    "AsyncChatStream",
    "AsyncTokenStream",
    "BusyError",
    "CancelledError",
    "ChatChunk",
    "ChatReply",
    "ChatStream",
    "ChatTemplate",
    "Chunk",
    "ContextOverflowError",
    "EngineStats",
    "EventLoopError",
    "FastLLMError",
    "FastLLMWarning",
    "ForkError",
    "GGUFFile",
    "Generation",
    "GrammarError",
    "InternalError",
    "MemoryPlan",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "ModelFileNotFoundError",
    "ModelFilePermissionError",
    "ModelFormatError",
    "OutOfMemoryError",
    "OutputError",
    "ParameterError",
    "SamplingError",
    "SamplingParams",
    "SavedStateError",
    "Session",
    "TemplateError",
    "TensorInfo",
    "Timings",
    "TokenLogprob",
    "TokenStream",
    "Tokenizer",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
    "UnsupportedModelError",
    "Usage",
    "__version__",
    "async_openai",
    "available_isas",
    "describe_tool",
    "openai",
    "plan",
]

# Nothing computes while the interpreter goes.
_atexit.register(_native.shutdown)
