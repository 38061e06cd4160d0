"""What routes share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

import fastllm
from fastllm.background import in_thread
from fastllm.server.answer import attend
from fastllm.server.errors import ApiError, from_validation

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.results import TokenLogprob, TopLogprob
    from fastllm.server.service import Service

__all__ = [
    "FINGERPRINT",
    "STREAMED",
    "UNLIMITED",
    "found",
    "limit",
    "logprob",
    "new_router",
    "service_of",
    "text_of",
    "usage",
]

FINGERPRINT = f"fastllm-{fastllm.__version__}"
# How clients write that an answer has no limit of its own.
UNLIMITED = -1
# What -inf is written as: JSON has no infinities.
_NEVER = -9999.0


class ErrorObject(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None = Field(description="The field that is wrong")
    code: str | None = Field(description="For programs")


class ErrorBody(BaseModel):
    """The answer that is an error."""

    error: ErrorObject


class AnthropicErrorObject(BaseModel):
    """What is wrong."""

    type: str
    message: str


class AnthropicErrorBody(BaseModel):
    """The answer that is an error, in Anthropic's shape."""

    type: str
    error: AnthropicErrorObject
    request_id: str | None


_ERRORS = {
    400: "The request is wrong",
    401: "The API key is missing or wrong",
    403: "The Host header is not this server's",
    404: "There is no such model",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "The body is not application/json",
    429: "Too many requests wait",
    503: "The server is stopping or full",
}


# The description of an answer that may be streamed.
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, or with `stream` its events", "content": {"text/event-stream": {}}}
}


class _Parsed(Request):
    """A request whose body was read, parsed and validated before."""

    async def body(self) -> bytes:
        return b"{}"  # that there was a body is enough

    async def json(self) -> Any:
        return self.scope.pop("fastllm.body")


class _Route(APIRoute):
    """Validates the value that the guard parsed, a large one beside the event loop, and ends when the client leaves."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        model = get_type_hints(self.endpoint).get("body")
        if model is None:
            return handler

        async def work(request: Request) -> Response:
            holder = [request.scope.pop("fastllm.json")]
            large = request.scope["fastllm.large"]
            body = await in_thread(_validate, model, holder) if large else _validate(model, holder)
            request.scope["fastllm.body"] = body
            return await handler(_Parsed(request.scope, request.receive))

        async def handle(request: Request) -> Response:
            return await attend(service_of(request), request.receive, work(request))

        return handle


def _validate(model: type[BaseModel], holder: list[Any]) -> BaseModel:
    value = holder.pop()
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise from_validation(problems, value) from None


def new_router(tag: str) -> APIRouter:
    """A router for JSON endpoints; the tag says whose interface it is."""
    body = AnthropicErrorBody if tag == "Anthropic" else ErrorBody
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": body, "description": text} for status, text in _ERRORS.items()
    }
    return APIRouter(route_class=_Route, tags=[tag], responses=errors)


def service_of(request: Request) -> Service:
    """The service of the application."""
    return cast("Service", request.app.state.service)


def found(request: Request, name: str | None) -> tuple[Service, str, Model]:
    """The service, and the model that a request names."""
    service = service_of(request)
    key, model = service.find(name)
    request.scope["fastllm.model"] = key
    return service, key, model


def limit(service: Service, asked: int | None, param: str) -> int | None:
    """The most tokens of an answer.

    Raises:
        ApiError: 400, more than this server gives.
    """
    most = service.options.max_tokens
    if asked == UNLIMITED:
        return most
    if asked is not None and most is not None and asked > most:
        raise ApiError(400, f"{param} = {asked} is more than the {most} of this server", param=param)
    return most if asked is None else asked


def usage(results: list[Any], *, choices: int, reasoning: int | None = None) -> dict[str, Any]:
    """The usage of several sequences in OpenAI's form; `choices` of them share a prompt, which counts once."""
    prompts = results[::choices]
    prompt = sum(result.usage.prompt_tokens for result in prompts)
    completion = sum(result.usage.completion_tokens for result in results)
    found = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(result.usage.cached_tokens for result in prompts)},
    }
    return found if reasoning is None else {**found, "completion_tokens_details": {"reasoning_tokens": reasoning}}


def logprob(model: Model, token: TokenLogprob) -> dict[str, Any]:
    """The log-probabilities at one token, in the form of OpenAI's chat."""
    return {**_one(model, token), "top_logprobs": [_one(model, top) for top in token.top]}


def text_of(model: Model, id_: int) -> str:
    """The text of a token alone, with U+FFFD for bytes that are no text."""
    return model.tokenizer._native.display(id_) or ""  # noqa: SLF001 - one package


def finite(value: float) -> float:
    """A log-probability that JSON can write."""
    return max(value, _NEVER)


def _one(model: Model, token: TopLogprob) -> dict[str, Any]:
    raw = model.tokenizer.decode_bytes([token.token_id], skip_special=False)
    return {"token": token.token, "logprob": finite(token.logprob), "bytes": list(raw)}
