"""/tokenize, /detokenize and /tokenizer_info, in the words of vLLM and of llama.cpp's server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastapi import Request
from starlette.responses import Response

from fastllm.background import in_thread
from fastllm.errors import ParameterError
from fastllm.server.answer import json_response
from fastllm.server.errors import ApiError
from fastllm.server.generate import ChatCall, chat_ids
from fastllm.server.routes.common import found, new_router, text_of
from fastllm.server.wire.chat import messages_of, tools_of
from fastllm.server.wire.completions import DetokenizeRequest, TokenizeRequest

if TYPE_CHECKING:
    from fastllm.model import Model

router = new_router("tokens")


@router.post("/tokenize", response_model=None)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a text, or of a conversation as its template writes it."""
    _, _, model = found(request, body.model)
    if sum(value is not None for value in (body.prompt, body.content, body.messages)) != 1:
        raise ApiError(400, "give exactly one of prompt, content and messages", param="prompt")
    ids = await (_text_ids(model, body) if body.messages is None else _chat_ids(model, body))
    answer = {"tokens": ids, "count": len(ids), "max_model_len": model.context_length}
    if body.return_token_strs:
        answer["token_strs"] = [text_of(model, id_) for id_ in ids]
    return json_response(answer)


async def _text_ids(model: Model, body: TokenizeRequest) -> list[int]:
    if body.tools is not None or body.chat_template_kwargs is not None:
        raise ApiError(400, "tools and chat_template_kwargs belong to messages", param="prompt")
    if body.prompt is not None:
        text, special = body.prompt, body.add_special_tokens is not False
        wrong = "add_special" if body.add_special is not None else None
    else:
        text, special = body.content or "", body.add_special is True
        wrong = "add_special_tokens" if body.add_special_tokens is not None else None
    if wrong is not None:
        raise ApiError(400, "add_special_tokens belongs to prompt, add_special to content", param=wrong)
    parse = body.parse_special is not False
    return await in_thread(partial(model.tokenizer.encode, text, add_special=special, parse_special=parse))


async def _chat_ids(model: Model, body: TokenizeRequest) -> list[int]:
    for name in ("add_special_tokens", "add_special", "parse_special"):
        if getattr(body, name) is not None:
            raise ApiError(400, "the template of a conversation decides about special tokens", param=name)
    messages, variables = messages_of(body.messages or []), body.chat_template_kwargs or {}
    return await chat_ids(model, ChatCall(messages, {}, tools=tools_of(body.tools), chat_template_kwargs=variables))


@router.post("/detokenize", response_model=None)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of tokens, with U+FFFD for bytes that are no text."""
    _, _, model = found(request, body.model)
    try:
        text = await in_thread(partial(model.tokenizer.decode, body.tokens, skip_special=False))
    except ParameterError as error:
        raise ApiError(400, str(error), param="tokens", code="invalid_value") from error
    return json_response({"prompt": text, "content": text})


@router.get("/tokenizer_info", response_model=None)
async def tokenizer_info(request: Request, model: str | None = None) -> Response:
    """What programs that prepare prompts need to know of a tokenizer: control tokens and the chat template."""
    _, _, served = found(request, model)
    tokenizer, metadata = served.tokenizer, served.metadata

    def token(id_: int | None) -> str | None:
        return None if id_ is None else tokenizer.token(id_)

    padding = metadata.get("tokenizer.ggml.padding_token_id")
    return json_response(
        {
            "tokenizer_class": metadata.text("tokenizer.ggml.model"),
            "bos_token": token(tokenizer.bos_id),
            "eos_token": token(tokenizer.eos_id),
            "pad_token": token(padding) if isinstance(padding, int) and padding < tokenizer.vocab_size else None,
            "add_bos_token": tokenizer.bos_id is not None and tokenizer.encode("x")[:1] == [tokenizer.bos_id],
            "chat_template": metadata.text("tokenizer.chat_template"),
            "model_max_length": served.context_length,
            "vocab_size": served.vocab_size,
        }
    )
