"""/v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.responses import Response

from fastllm.chat_options import final_message
from fastllm.errors import ParameterError
from fastllm.server.answer import DONE, EventStream, attend, event, json_response
from fastllm.server.errors import ApiError, body_of
from fastllm.server.generate import ChatCall, Job, chat_job
from fastllm.server.routes.common import FINGERPRINT, STREAMED, found, limit, logprob, new_router, usage
from fastllm.server.wire.chat import ChatCompletionRequest, format_of, messages_of, tools_of

if TYPE_CHECKING:
    from fastllm.model import Model

router = new_router("OpenAI")


@router.post("/v1/chat/completions", response_model=None, responses=STREAMED)
async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """Answers a conversation, at once or as server-sent events."""
    service, name, model = found(request, body.model)
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream", param="stream_options")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise ApiError(400, "max_tokens and max_completion_tokens are the same: give one", param="max_tokens")
    if body.reasoning_budget is not None and body.thinking_token_budget is not None:
        message = "thinking_token_budget and reasoning_budget are the same: give one"
        raise ApiError(400, message, param="thinking_token_budget")
    count = body.n or 1
    job = chat_job(service, name, _call(body, limit(service, *_most(body))), count)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk" if body.stream else "chat.completion",
        "created": int(time.time()),
        "model": name,
        "system_fingerprint": FINGERPRINT,
        "service_tier": "default",
    }
    await attend(service, request.receive, job.start())
    if body.stream:
        request.scope["fastllm.stream"] = True
        want_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        events = _events(job, head, count, model, want_usage=want_usage)
        return EventStream(service, job, events, lambda error: event(body_of(error, "", None)))
    results = await attend(service, request.receive, job.results())
    choices = [_choice(model, index, result) for index, result in enumerate(results)]
    return json_response({**head, "choices": choices, "usage": _usage(job, results)})


def _most(body: ChatCompletionRequest) -> tuple[int | None, str]:
    if body.max_completion_tokens is not None:
        return body.max_completion_tokens, "max_completion_tokens"
    return body.max_tokens, "max_tokens"


def _call(body: ChatCompletionRequest, max_tokens: int | None) -> ChatCall:
    sampling = body.sampling()
    sampling["max_tokens"] = max_tokens
    if body.logprobs:
        sampling["logprobs"] = body.top_logprobs or 0
    choice = body.tool_choice
    return ChatCall(
        messages=messages_of(body.messages),
        sampling=sampling,
        tools=tools_of(body.tools),
        tool_choice=choice if choice is None or isinstance(choice, str) else choice.model_dump(),
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=format_of(body.response_format),
        chat_template_kwargs=body.chat_template_kwargs or {},
        reasoning_effort=body.reasoning_effort,
        reasoning_budget=body.thinking_token_budget if body.reasoning_budget is None else body.reasoning_budget,
        continue_final_message=_continues(body),
    )


def _continues(body: ChatCompletionRequest) -> bool | None:
    try:
        return final_message(body.continue_final_message, body.add_generation_prompt, body.messages[-1].role)
    except ParameterError as error:
        raise ApiError(400, str(error), param="add_generation_prompt") from None


def _usage(job: Job, results: list[Any]) -> dict[str, Any]:
    return usage(results, choices=len(results), reasoning=sum(job.reasoning_tokens))


def _choice(model: Model, index: int, result: Any) -> dict[str, Any]:
    calls = getattr(result, "tool_calls", ())
    message: dict[str, Any] = {
        "role": "assistant",
        "content": result.content or (None if calls else ""),
        "refusal": None,
    }
    if getattr(result, "reasoning_content", None):
        message["reasoning_content"] = result.reasoning_content
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    logprobs = None if result.logprobs is None else _logprobs(model, result.logprobs)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": result.finish_reason}


def _logprobs(model: Model, tokens: Any) -> dict[str, Any]:
    return {"content": [logprob(model, token) for token in tokens], "refusal": None}


async def _events(
    job: Job, head: dict[str, Any], count: int, model: Model, *, want_usage: bool
) -> AsyncGenerator[bytes, None]:
    tail: dict[str, Any] = {"usage": None} if want_usage else {}

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event({**head, "choices": [choice], **tail})

    for index in range(count):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
    results: list[Any] = [None] * count
    async for index, item in job.chunks():
        if hasattr(item, "finish_reason"):
            results[index] = item
            yield chunk(index, {}, item.finish_reason)
            continue
        delta = _delta(item)
        if delta or item.logprobs:
            logprobs = _logprobs(model, item.logprobs) if item.logprobs else None
            yield chunk(index, delta or {"content": ""}, logprobs=logprobs)
    if want_usage:
        yield event({**head, "choices": [], "usage": _usage(job, results)})
    yield DONE


def _delta(chunk: Any) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.content:
        delta["content"] = chunk.content
    if getattr(chunk, "reasoning_content", None):
        delta["reasoning_content"] = chunk.reasoning_content
    if getattr(chunk, "tool_calls", ()):
        delta["tool_calls"] = [_call_delta(call) for call in chunk.tool_calls]
    return delta


def _call_delta(call: Any) -> dict[str, Any]:
    function = {"arguments": call.arguments or ""}
    if call.id is None and call.name is None:
        return {"index": call.index, "function": function}
    return {"index": call.index, "id": call.id, "type": "function", "function": {"name": call.name, **function}}
