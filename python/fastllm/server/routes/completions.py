"""/v1/completions and /v1/embeddings."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.responses import Response

from fastllm.server.answer import DONE, EventStream, attend, event, json_response
from fastllm.server.errors import ApiError, body_of
from fastllm.server.generate import Job, completion_job
from fastllm.server.routes.common import FINGERPRINT, STREAMED, finite, found, limit, new_router, usage
from fastllm.server.wire.completions import CompletionRequest, EmbeddingRequest

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.results import TokenLogprob

router = new_router("OpenAI")
# Of OpenAI's interface; its chat has no such default.
_MAX_TOKENS = 16
_MOST_SEQUENCES = 256


@router.post("/v1/completions", response_model=None, responses=STREAMED)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continues texts, at once or as server-sent events."""
    service, name, model = found(request, body.model)
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream", param="stream_options")
    if body.echo and body.logprobs is not None:
        raise ApiError(400, "echo together with logprobs is not supported", param="echo")
    prompts = _prompts(body.prompt)
    count = body.n or 1
    if count * len(prompts) > _MOST_SEQUENCES:
        raise ApiError(400, f"{count} texts for {len(prompts)} prompts are more than {_MOST_SEQUENCES}", param="n")
    most = limit(service, body.max_tokens, "max_tokens")
    sampling = {
        **body.sampling(),
        "max_tokens": min(_MAX_TOKENS, most or _MAX_TOKENS) if body.max_tokens is None else most,
        "logprobs": body.logprobs,
    }
    echoes = [_echo(model, prompt) for prompt in prompts for _ in range(count)] if body.echo else None
    job = completion_job(service, name, prompts, sampling, count, parse_special=body.parse_special is not False)
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
        "system_fingerprint": FINGERPRINT,
    }
    await attend(service, request.receive, job.start())
    if body.stream:
        want_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        events = _events(job, head, echoes, count, want_usage=want_usage)
        return EventStream(service, job, events, lambda error: event(body_of(error, "", None)))
    results = await attend(service, request.receive, job.results())
    choices = [
        _choice(index, (echoes[index] if echoes else "") + result.text, result.logprobs, 0, result.finish_reason)
        for index, result in enumerate(results)
    ]
    return json_response({**head, "choices": choices, "usage": usage(results, choices=count)})


@router.post("/v1/embeddings", response_model=None)
async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """Refused: the models have no embeddings."""
    _, name, _ = found(request, body.model)
    raise ApiError(400, f"the model {name!r} has no embeddings", param="model", code="model_has_no_embeddings")


def _prompts(prompt: Any) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    return [prompt] if isinstance(prompt[0], int) else list(prompt)


def _echo(model: Model, prompt: str | list[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    if any(id_ >= model.vocab_size for id_ in prompt):
        raise ApiError(400, f"a token id is beyond the vocabulary of {model.vocab_size} tokens", param="prompt")
    return model.tokenizer.decode(prompt)


def _choice(
    index: int, text: str, logprobs: tuple[TokenLogprob, ...] | None, offset: int, reason: str | None
) -> dict[str, Any]:
    found = None if logprobs is None else _logprobs(logprobs, offset)
    return {"index": index, "text": text, "logprobs": found, "finish_reason": reason}


def _logprobs(tokens: tuple[TokenLogprob, ...], offset: int) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [finite(token.logprob) for token in tokens],
        # Tokens that look the same are one key; the likelier one, which comes first, stays.
        "top_logprobs": [{top.token: finite(top.logprob) for top in reversed(token.top)} for token in tokens],
        "text_offset": offsets,
    }


async def _events(
    job: Job, head: dict[str, Any], echoes: list[str] | None, count: int, *, want_usage: bool
) -> AsyncGenerator[bytes, None]:
    tail: dict[str, Any] = {"usage": None} if want_usage else {}
    results: dict[int, Any] = {}
    offsets: dict[int, int] = {}

    def chunk(choice: dict[str, Any]) -> bytes:
        return event({**head, "choices": [choice], **tail})

    for index, text in enumerate(echoes or ()):
        yield chunk(_choice(index, text, None, 0, None))
    async for index, item in job.chunks():
        if hasattr(item, "finish_reason"):
            results[index] = item
            yield chunk(_choice(index, "", None, 0, item.finish_reason))
        elif item.text or item.logprobs:
            offset = offsets.get(index, 0)
            offsets[index] = offset + sum(len(token.token) for token in item.logprobs or ())
            yield chunk(_choice(index, item.text, item.logprobs, offset, None))
    if want_usage:
        in_order = [results[index] for index in sorted(results)]
        yield event({**head, "choices": [], "usage": usage(in_order, choices=count)})
    yield DONE
