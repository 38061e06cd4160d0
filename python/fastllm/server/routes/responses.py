"""/v1/responses. Nothing is stored: there is no `previous_response_id`, and nothing to fetch later."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.responses import Response

from fastllm.server import log
from fastllm.server.answer import EventStream, attend, event, json_response
from fastllm.server.errors import ApiError
from fastllm.server.generate import ChatCall, Job, chat_job
from fastllm.server.routes.common import STREAMED, found, limit, logprob, new_router
from fastllm.server.wire.responses import (
    ResponsesRequest,
    ResponseTool,
    format_of,
    messages_of,
    seal,
    skipped_of,
    tools_of,
)

if TYPE_CHECKING:
    from fastllm.model import Model

router = new_router("OpenAI")


@router.post("/v1/responses", response_model=None, responses=STREAMED)
async def responses(body: ResponsesRequest, request: Request) -> Response:
    """Answers a conversation of items, at once or as server-sent events."""
    service, name, model = found(request, body.model)
    if body.stream_options is not None and body.stream_options.include_usage is not None:
        raise ApiError(400, "the last event has the usage in any case", param="stream_options.include_usage")
    included = frozenset(body.include or ())
    with_logprobs = "message.output_text.logprobs" in included
    log.skipped_tools(request.scope["fastllm.id"], skipped_of(body))
    if body.top_logprobs and not with_logprobs:
        raise ApiError(400, "top_logprobs needs include message.output_text.logprobs", param="top_logprobs")
    most = limit(service, body.max_output_tokens, "max_output_tokens")
    sampling = {"temperature": body.temperature, "top_p": body.top_p, "max_tokens": most}
    if with_logprobs:
        sampling["logprobs"] = body.top_logprobs or 0
    job = chat_job(service, name, _call(body, sampling))
    await attend(service, request.receive, job.start())
    sealed = "reasoning.encrypted_content" in included
    answer = _Answer(_head(body, name), model if with_logprobs else None, sealed=sealed)
    if body.stream:
        request.scope["fastllm.stream"] = True
        return EventStream(service, job, _events(job, answer), answer.failed)
    result = (await attend(service, request.receive, job.results()))[0]
    for _ in answer.end(result, job.reasoning_tokens[0]):
        pass
    return json_response(answer.response)


def _call(body: ResponsesRequest, sampling: dict[str, Any]) -> ChatCall:
    choice: Any = body.tool_choice
    if choice is not None and not isinstance(choice, str):
        choice = {"type": "function", "function": {"name": choice.name}}
    return ChatCall(
        messages=messages_of(body),
        sampling=sampling,
        tools=tools_of(body),
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=format_of(body),
        reasoning_effort=None if body.reasoning is None else body.reasoning.effort,
        hints=frozenset({"reasoning_effort"}),
    )


def _head(body: ResponsesRequest, name: str) -> dict[str, Any]:
    """The response before anything is in it: it repeats the request."""
    given = body.model_dump(exclude_none=True, by_alias=True)
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": name,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **given.get("reasoning", {})},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": {"type": "text"}, **given.get("text", {})},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or () if isinstance(tool, ResponseTool)],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
        "metadata": body.metadata or {},
    }


async def _events(job: Job, answer: _Answer) -> AsyncGenerator[bytes, None]:
    for one in answer.begin():
        yield one
    async for _, item in job.chunks():
        ended = hasattr(item, "finish_reason")
        for one in answer.end(item, job.reasoning_tokens[0]) if ended else answer.add(item):
            yield one


class _Answer:
    """A response that grows item by item, and the events that tell so.

    Args:
        response: What stays the same.
        model: Whose log-probabilities are wanted; None: nobody's.
        sealed: Whether reasoning also comes as `encrypted_content`, for clients that give back nothing else of it.
    """

    def __init__(self, response: dict[str, Any], model: Model | None, *, sealed: bool = False) -> None:
        self.response = response
        self._model = model
        self._sealed = sealed
        self._sequence = 0
        # The item that grows, by kind: "reasoning", "message" or the index of a tool call.
        self._open: str | int | None = None
        self._text: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._streamed = False

    def begin(self) -> Iterator[bytes]:
        """The first events."""
        self._streamed = True
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def add(self, chunk: Any) -> Iterator[bytes]:
        """The events of a chunk."""
        if getattr(chunk, "reasoning_content", None):
            yield from self._grow("reasoning", chunk.reasoning_content, {"type": "reasoning", "summary": []})
        if chunk.content:
            logprobs = self._some(chunk.logprobs)
            item = {"type": "message", "role": "assistant"}
            yield from self._grow("message", chunk.content, item, logprobs)
        for call in getattr(chunk, "tool_calls", ()):
            item = {"type": "function_call", "call_id": call.id, "name": call.name}
            yield from self._grow(call.index, call.arguments or "", item)

    def end(self, result: Any, reasoning_tokens: int) -> Iterator[bytes]:
        """The last events."""
        if self._streamed:
            yield from self._close()
        else:
            self._fill(result)
        if not self.response["output"]:
            yield from self._grow("message", "", {"type": "message", "role": "assistant"})
            yield from self._close()
        whole = result.finish_reason in {"stop", "tool_calls"}
        usage = result.usage
        self.response.update(
            status="completed" if whole else "incomplete",
            incomplete_details=None if whole else {"reason": "max_output_tokens"},
            usage={
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
                "total_tokens": usage.total_tokens,
            },
        )
        if not whole:
            self.response["output"][-1]["status"] = "incomplete"
        yield self._event("response.completed" if whole else "response.incomplete", response=self.response)

    def failed(self, error: ApiError) -> bytes:
        """The last event of an answer that failed."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"  # noqa: PLR2004
        self.response.update(status="failed", error={"code": code, "message": error.message})
        return self._event("response.failed", response=self.response)

    def _fill(self, result: Any) -> None:
        """The items of an answer that was not streamed."""
        if getattr(result, "reasoning_content", None):
            content = [{"type": "reasoning_text", "text": result.reasoning_content}]
            item = self._item("reasoning", {"type": "reasoning", "summary": [], "content": content})
            if self._sealed:
                item["encrypted_content"] = seal(result.reasoning_content)
        if result.content:
            part = _part(result.content, self._some(result.logprobs))
            self._item("message", {"type": "message", "role": "assistant", "content": [part]})
        for call in getattr(result, "tool_calls", ()):
            self._item(0, {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments})
        for item in self.response["output"]:
            item["status"] = "completed"
        self._open = None

    def _some(self, logprobs: Any) -> list[dict[str, Any]]:
        return [] if self._model is None else [logprob(self._model, token) for token in logprobs or ()]

    def _item(self, kind: str | int, item: dict[str, Any]) -> dict[str, Any]:
        prefix = {"reasoning": "rs", "message": "msg"}.get(str(kind), "fc")
        new = {"id": f"{prefix}_{uuid.uuid4().hex}", "status": "in_progress", **item}
        self.response["output"].append(new)
        self._open = kind
        return new

    def _where(self) -> dict[str, Any]:
        return {"item_id": self.response["output"][-1]["id"], "output_index": len(self.response["output"]) - 1}

    def _grow(
        self, kind: str | int, text: str, item: dict[str, Any], logprobs: list[dict[str, Any]] | None = None
    ) -> Iterator[bytes]:
        if self._open != kind:
            yield from self._close()
            empty: dict[str, Any] = {"arguments": ""} if isinstance(kind, int) else {"content": []}
            new = self._item(kind, {**item, **empty})
            yield self._event("response.output_item.added", item=new, output_index=self._where()["output_index"])
            if kind == "message":
                yield self._event("response.content_part.added", **self._where(), content_index=0, part=_part("", []))
        if not text:
            return
        self._text.append(text)
        where = self._where()
        if kind == "message":
            self._logprobs += logprobs or []
            yield self._event(
                "response.output_text.delta", **where, content_index=0, delta=text, logprobs=logprobs or []
            )
        elif kind == "reasoning":
            yield self._event("response.reasoning_text.delta", **where, content_index=0, delta=text)
        else:
            yield self._event("response.function_call_arguments.delta", **where, delta=text)

    def _close(self) -> Iterator[bytes]:
        """Ends the item that grows."""
        kind, text, logprobs = self._open, "".join(self._text), self._logprobs
        self._open, self._text, self._logprobs = None, [], []
        if kind is None:
            return
        where, item = self._where(), self.response["output"][-1]
        if kind == "message":
            part = _part(text, logprobs)
            item["content"] = [part]
            yield self._event("response.output_text.done", **where, content_index=0, text=text, logprobs=logprobs)
            yield self._event("response.content_part.done", **where, content_index=0, part=part)
        elif kind == "reasoning":
            item["content"] = [{"type": "reasoning_text", "text": text}]
            if self._sealed:
                item["encrypted_content"] = seal(text)
            yield self._event("response.reasoning_text.done", **where, content_index=0, text=text)
        else:
            item["arguments"] = text
            yield self._event("response.function_call_arguments.done", **where, name=item["name"], arguments=text)
        item["status"] = "completed"
        yield self._event("response.output_item.done", item=item, output_index=where["output_index"])

    def _event(self, name: str, /, **fields: Any) -> bytes:
        self._sequence += 1
        return event({"type": name, "sequence_number": self._sequence - 1, **fields}, name)


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
