"""What goes wrong, as a client sees it: a status, and an error object in the shape of OpenAI or Anthropic."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastllm import errors as library

__all__ = ["ApiError", "ClientGoneError", "StoppingError", "body_of", "from_library", "from_validation", "mistake"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: The HTTP status.
        message: For people.
        param: The field that is wrong.
        code: For programs.
        headers: Of the answer.
        details: More for programs, in Anthropic's shape.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        self.details = details

    @property
    def kind(self) -> str:
        """The `type` of the error object."""
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")  # noqa: PLR2004


class ClientGoneError(Exception):
    """The client closed the connection: nobody hears an answer."""


class StoppingError(ApiError):
    """The server ends before the answer."""

    def __init__(self) -> None:
        super().__init__(503, "the server is stopping", code="server_stopping", headers={"retry-after": "5"})


def busy(message: str) -> ApiError:
    """Too much to do; the client may come again."""
    return ApiError(429, message, code="queue_full", headers={"retry-after": "1"})


def mistake(error: Exception) -> ApiError:
    """What a client hears of an exception that nothing here foresees: no word of it, which may quote a request."""
    if isinstance(error, MemoryError):
        return ApiError(503, "there is not enough memory", code="out_of_memory", headers={"retry-after": "5"})
    return ApiError(500, "the server made a mistake", code="internal_error")


def body_of(error: ApiError, path: str, request_id: str | None) -> dict[str, Any]:
    """The body of the answer: Anthropic's shape on its path, elsewhere OpenAI's."""
    if path.startswith("/v1/messages"):
        kind = "api_error" if error.kind == "server_error" else error.kind
        found: dict[str, Any] = {"type": kind, "message": error.message}
        if error.details is not None:
            found["details"] = dict(error.details)
        return {"type": "error", "error": found, "request_id": request_id}
    kind = "invalid_request_error" if error.status in {403, 404, 408, 413} else error.kind
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def from_library(error: Exception, *, prompt: str = "messages", constraint: str | None = None) -> ApiError | None:
    """What an exception of the library means for a client; None for a bug.

    Args:
        error: The exception.
        prompt: The field that holds the prompt.
        constraint: The field that restricts tokens; None: none does.
    """
    text = str(error)
    if isinstance(error, library.ContextOverflowError):
        text = _overflow(error)
    bans = constraint is not None and isinstance(error, library.SamplingError)
    rules: tuple[tuple[bool, int, str | None, str, str | None], ...] = (
        (isinstance(error, library.ContextOverflowError), 400, prompt, "context_length_exceeded", None),
        (isinstance(error, library.BusyError), 429, None, "queue_full", "1"),
        (bans, 400, constraint, "no_token_left", None),
        # Nothing in the request did it: the model's numbers are none.
        (isinstance(error, library.SamplingError), 500, None, "no_token_left", None),
        (isinstance(error, library.OutOfMemoryError), 503, None, "out_of_memory", "5"),
        (isinstance(error, library.CancelledError), 503, None, "model_closed", None),
        (isinstance(error, library.GrammarError), 400, constraint, "invalid_grammar", None),
        (isinstance(error, library.TemplateError), 400, prompt, "invalid_messages", None),
        (
            isinstance(error, library.FastLLMError) and isinstance(error, ValueError),
            400,
            _param(text),
            "invalid_value",
            None,
        ),
    )
    for applies, status, param, code, retry in rules:
        if applies:
            return ApiError(status, text, param=param, code=code, headers={"retry-after": retry} if retry else None)
    return None


def _overflow(error: library.ContextOverflowError) -> str:
    """In words by which clients of both interfaces know what happened, and shorten the conversation."""
    return (
        f"prompt is too long: {error.prompt_tokens} tokens > {error.context_length} maximum. "
        f"This model's maximum context length is {error.context_length} tokens: shorten the prompt, or serve the model "
        "with a longer context"
    )


def _param(message: str) -> str | None:
    """The field that a message of the library names first: `top_k = -1 is ...`, `tool 1: ...`."""
    found = re.match(r"[a-z_]+", message)
    word = found[0] if found else ""
    return word if "_" in word or word in _FIELDS else _PLURALS.get(word)


def from_validation(problems: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """The problem that pydantic found deepest in a body: with alternatives, it is that of the one that was meant."""
    found = [(_path(problem["loc"], body), problem) for problem in problems]
    parts, problem = max(found, key=lambda one: len(one[0]))
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)[:200].lstrip(".") or None
    if problem["type"] == "extra_forbidden":
        message, code = f"the field {param!r} is unknown or not supported", "unknown_parameter"
    elif problem["type"] == "missing":
        message, code = f"the field {param!r} is missing", "missing_required_parameter"
    else:
        message, code = f"{param or 'the body'}: {problem['msg']}"[:500], "invalid_value"
    return ApiError(400, message, param=param, code=code)


def _path(location: Sequence[Any], body: Any) -> list[Any]:
    """Where a problem is: the parts of its location that exist in the body, without names of alternatives."""
    parts, value = [], body
    for at, part in enumerate(location):
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            parts.append(part)
            value = value[part]
        elif isinstance(value, dict) and at == len(location) - 1 and part not in {"body", "[key]"}:
            parts.append(part)  # what is missing
    return parts


_FIELDS = frozenset({"temperature", "seed", "stop", "logprobs", "regex", "grammar", "choices"})
_PLURALS = {"tool": "tools", "message": "messages"}
