"""The exceptions. Each one is a `FastLLMError` and also the built-in exception that fits."""

from __future__ import annotations

__all__ = [
    "BusyError",
    "CancelledError",
    "ContextOverflowError",
    "EventLoopError",
    "FastLLMError",
    "FastLLMWarning",
    "ForkError",
    "GrammarError",
    "InternalError",
    "MissingExtraError",
    "ModelFileError",
    "ModelFileNotFoundError",
    "ModelFilePermissionError",
    "ModelFormatError",
    "OutOfMemoryError",
    "OutputError",
    "ParameterError",
    "SamplingError",
    "SavedStateError",
    "TemplateError",
    "UnsupportedModelError",
]


class FastLLMError(Exception):
    """Base of all exceptions of this package."""


class FastLLMWarning(UserWarning):
    """Something about a file that may make results differ from the model's own."""


class ModelFileError(FastLLMError, OSError):
    """The file cannot be read, or is not a regular file."""


class ModelFileNotFoundError(ModelFileError, FileNotFoundError):
    """There is no such file, or a shard of the model is missing."""


class ModelFilePermissionError(ModelFileError, PermissionError):
    """The file may not be read."""


class ModelFormatError(FastLLMError, ValueError):
    """The file is not a GGUF file, is damaged, or contradicts itself."""


class UnsupportedModelError(FastLLMError, NotImplementedError):
    """The file is sound, but this version cannot run it: the message names the architecture, type or tokenizer."""


class ParameterError(FastLLMError, ValueError):
    """An option has a value that is not allowed."""


class SavedStateError(FastLLMError, ValueError):
    """A saved state is damaged, or belongs to another model, version or options."""


class ContextOverflowError(ParameterError):
    """The prompt is longer than the context.

    Attributes:
        prompt_tokens: Length of the prompt.
        context_length: Positions that the context has.
    """

    def __init__(self, message: str, *, prompt_tokens: int, context_length: int) -> None:
        super().__init__(message)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length

    def __reduce__(self) -> tuple[object, ...]:
        return _context_overflow, (str(self), self.prompt_tokens, self.context_length)


def _context_overflow(message: str, prompt_tokens: int, context_length: int) -> ContextOverflowError:
    return ContextOverflowError(message, prompt_tokens=prompt_tokens, context_length=context_length)


class TemplateError(FastLLMError, ValueError):
    """A chat template is missing or wrong, refuses the conversation, or asks for too much."""


class GrammarError(FastLLMError, ValueError):
    """A schema, regex, grammar or choice is wrong, asks for too much, or allows nothing to follow the output so far."""


class OutputError(FastLLMError, ValueError):
    """The output is not of the form that it is read as."""


class SamplingError(FastLLMError, ArithmeticError):
    """No token can be chosen: the model computed NaN, or every token is banned."""


class CancelledError(FastLLMError, RuntimeError):
    """The work was given up before it had a result: the model was closed."""


class BusyError(FastLLMError, RuntimeError):
    """Too many requests are waiting for the model; try again later."""


class ForkError(FastLLMError, RuntimeError):
    """The model was loaded before this process was forked from its parent; its threads are not here."""


class EventLoopError(FastLLMError, RuntimeError):
    """The asynchronous methods need asyncio: there is no running event loop, or it is that of a different library."""


class OutOfMemoryError(FastLLMError, MemoryError):
    """There is not enough memory."""


class MissingExtraError(FastLLMError, ImportError):
    """A package is missing that an extra of this one installs: the message names the extra."""


class InternalError(FastLLMError, RuntimeError):
    """A bug of fastllm. Other requests and the model go on."""
