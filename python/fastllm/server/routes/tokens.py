"""/tokenize and /detokenize."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.responses import Response

from fastllm.errors import ParameterError
from fastllm.server.answer import json_response
from fastllm.server.errors import ApiError
from fastllm.server.generate import ChatCall, chat_ids
from fastllm.server.routes.common import found, new_router
from fastllm.server.wire.chat import messages_of
from fastllm.server.wire.completions import DetokenizeRequest, TokenizeRequest

router = new_router("tokens")


@router.post("/tokenize", response_model=None)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a text, or of a conversation as its template writes it."""
    _, _, model = found(request, body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "give either prompt or messages", param="prompt")
    if body.prompt is not None:
        if body.tools is not None or body.chat_template_kwargs is not None:
            raise ApiError(400, "tools and chat_template_kwargs belong to messages", param="prompt")
        special = body.add_special_tokens is not False
        ids = await asyncio.to_thread(model.tokenizer.encode, body.prompt, add_special=special)
    else:
        if body.add_special_tokens is not None:
            raise ApiError(
                400, "the template of a conversation decides about special tokens", param="add_special_tokens"
            )
        tools = None if not body.tools else [tool.model_dump(exclude_none=True) for tool in body.tools]
        call = ChatCall(
            messages_of(body.messages or []), {}, tools=tools, chat_template_kwargs=body.chat_template_kwargs or {}
        )
        ids = await chat_ids(model, call)
    return json_response({"tokens": ids, "count": len(ids), "max_model_len": model.context_length})


@router.post("/detokenize", response_model=None)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of tokens, with U+FFFD for bytes that are no text."""
    _, _, model = found(request, body.model)
    try:
        text = await asyncio.to_thread(model.tokenizer.decode, body.tokens, skip_special=False)
    except ParameterError as error:
        raise ApiError(400, str(error), param="tokens", code="invalid_value") from error
    return json_response({"prompt": text})
