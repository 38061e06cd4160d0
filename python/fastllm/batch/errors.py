"""What can be wrong with a batch."""

from __future__ import annotations

from fastllm.errors import FastLLMError, ParameterError

__all__ = ["BatchFileError", "RequestError"]


class BatchFileError(FastLLMError, ValueError):
    """The input or the output of a batch cannot be used: nothing was answered."""


class RequestError(ParameterError):
    """A request says something that is not understood.

    Attributes:
        param: The field that is wrong; None: the request itself.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[object, ...]:
        return RequestError, (str(self), self.param)
