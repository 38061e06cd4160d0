"""Anthropic's /v1/messages."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.responses import Response

from fastllm.conversation import THINKING
from fastllm.errors import FastLLMError
from fastllm.server import log
from fastllm.server.answer import EventStream, attend, event, json_response
from fastllm.server.errors import body_of
from fastllm.server.generate import ChatCall, Job, chat_ids, chat_job
from fastllm.server.routes.common import STREAMED, UNLIMITED, found, limit, new_router
from fastllm.server.wire.messages import (
    CountTokensRequest,
    MessagesRequest,
    check_thread,
    format_of,
    messages_of,
    skipped_of,
    tool_choice_of,
    tools_of,
)

if TYPE_CHECKING:
    from fastllm.model import Model

router = new_router("Anthropic")
_PATH = "/v1/messages"


@router.post(_PATH, response_model=None, responses=STREAMED)
async def messages(body: MessagesRequest, request: Request) -> Response:
    """Answers a conversation, at once or as server-sent events."""
    service, name, model = found(request, body.model)
    check_thread(body)
    sampling = {
        "max_tokens": limit(service, body.max_tokens, "max_tokens"),
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k == UNLIMITED else body.top_k,
        "stop": body.stop_sequences,
    }
    log.skipped_tools(request.scope["fastllm.id"], skipped_of(body))
    job = chat_job(service, name, _call(model, body, sampling))
    await attend(service, request.receive, job.start())
    head: dict[str, Any] = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": name,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    if body.stream:
        request.scope["fastllm.stream"] = True
        identity = request.scope["fastllm.id"]
        events = _events(job, head, _edits(body))
        return EventStream(service, job, events, lambda error: event(body_of(error, _PATH, identity), "error"))
    result = (await attend(service, request.receive, job.results()))[0]
    end = _end(result)
    return json_response({**head, "content": _content(result), **end["delta"], "usage": end["usage"], **_edits(body)})


@router.post(f"{_PATH}/count_tokens", response_model=None)
async def count_tokens(body: CountTokensRequest, request: Request) -> Response:
    """The number of tokens of a conversation, as the model would read it."""
    _, _, model = found(request, body.model)
    check_thread(body)
    return json_response({"input_tokens": len(await chat_ids(model, _call(model, body, {})))})


def _edits(body: MessagesRequest) -> dict[str, Any]:
    """What was left out of the conversation, where the request asks for that: nothing."""
    return {} if body.context_management is None else {"context_management": {"applied_edits": []}}


def _call(model: Model, body: CountTokensRequest, sampling: dict[str, Any]) -> ChatCall:
    choice, parallel = tool_choice_of(body)
    messages = messages_of(body)
    variables, budget = _thinking(model, body)
    return ChatCall(
        messages=messages,
        sampling=sampling,
        tools=tools_of(body),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=format_of(body),
        reasoning_effort=None if body.output_config is None else body.output_config.effort,
        reasoning_budget=budget,
        chat_template_kwargs=variables,
        hints=frozenset({"reasoning_effort", "reasoning_budget"}),
        # A last turn of the assistant is continued, as Anthropic documents it.
        continue_final_message=True if messages[-1]["role"] == "assistant" else None,
    )


def _thinking(model: Model, body: CountTokensRequest) -> tuple[dict[str, Any], int | None]:
    """The variable of the template that turns thinking on and off, and the budget."""
    thinking = body.thinking
    if thinking is None:
        return {}, None
    budget = getattr(thinking, "budget_tokens", None)
    try:
        template = model.chat_template
    except FastLLMError:
        return {}, budget  # the error comes where the prompt is written
    name = next((name for name in THINKING if name in template.variables), None)
    if name is not None:
        return {name: thinking.type != "disabled"}, budget
    # Thinking that cannot be turned off is ended at once.
    return {}, 0 if thinking.type == "disabled" and template.reasons else budget


def _content(result: Any) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if getattr(result, "reasoning_content", None):
        blocks.append({"type": "thinking", "thinking": result.reasoning_content, "signature": ""})
    if result.content:
        blocks.append({"type": "text", "text": result.content})
    return blocks + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}
        for call in getattr(result, "tool_calls", ())
    ]


def _input(arguments: str) -> dict[str, Any]:
    """The arguments of a call, which are an object here; of a call that was cut off, its text in one."""
    try:
        value = json.loads(arguments)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


def _end(result: Any) -> dict[str, Any]:
    stopped = result.finish_reason == "stop" and isinstance(result.stop_reason, str)
    reason = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}.get(
        result.finish_reason, "end_turn"
    )
    return {
        "type": "message_delta",
        "delta": {
            "stop_reason": "stop_sequence" if stopped else reason,
            "stop_sequence": result.stop_reason if stopped else None,
        },
        "usage": _usage(result.usage.prompt_tokens, result.usage.cached_tokens, result.usage.completion_tokens),
    }


def _usage(prompt: int, cached: int, completion: int) -> dict[str, Any]:
    """Here, unlike OpenAI, the cached tokens are not part of the input tokens."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def _named(value: dict[str, Any]) -> bytes:
    return event(value, value["type"])


async def _events(job: Job, head: dict[str, Any], edits: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    yield _named({"type": "message_start", "message": {**head, "usage": _usage(job.prompt_tokens, 0, 0)}})
    yield _named({"type": "ping"})
    blocks = _Blocks()
    async for _, item in job.chunks():
        if hasattr(item, "finish_reason"):
            for one in blocks.close():
                yield one
            yield _named({**_end(item), **edits})
            yield _named({"type": "message_stop"})
            continue
        for one in blocks.add(item):
            yield one


class _Blocks:
    """The blocks of an answer, one after the other."""

    def __init__(self) -> None:
        self._index = -1
        # What grows: "thinking", "text" or the index of a tool call.
        self._open: str | int | None = None

    def add(self, chunk: Any) -> Iterator[bytes]:
        """The events of a chunk."""
        if getattr(chunk, "reasoning_content", None):
            yield from self._start("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": chunk.reasoning_content})
        if chunk.content:
            yield from self._start("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": chunk.content})
        for call in getattr(chunk, "tool_calls", ()):
            yield from self._start(call.index, {"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
            if call.arguments:
                yield self._delta({"type": "input_json_delta", "partial_json": call.arguments})

    def close(self) -> Iterator[bytes]:
        """Ends the block that grows."""
        if self._open is not None:
            self._open = None
            yield _named({"type": "content_block_stop", "index": self._index})

    def _start(self, kind: str | int, block: dict[str, Any]) -> Iterator[bytes]:
        if self._open != kind:
            yield from self.close()
            self._open = kind
            self._index += 1
            yield _named({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _named({"type": "content_block_delta", "index": self._index, "delta": delta})
