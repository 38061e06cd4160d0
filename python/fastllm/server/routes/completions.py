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
from fastllm.server.routes.common import FINGERPRINT, STREAMED, finite, found, limit, new_router, text_of, usage
from fastllm.server.wire.completions import CompletionRequest, EmbeddingRequest

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.results import TokenLogprob

router = new_router("OpenAI")
# Of OpenAI's interface; its chat has no such default.
_MAX_TOKENS = 16
_MOST_SEQUENCES = 256
# Numbers of one answer, for tokens of prompts and their alternatives.
_MAX_PROMPT_LOGPROBS = 1 << 19
# Characters of a prompt between the texts of two tokens: bytes that are no whole character have no text of their own.
_LAG = 4


@router.post("/v1/completions", response_model=None, responses=STREAMED)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continues texts, at once or as server-sent events."""
    service, name, model = found(request, body.model)
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream", param="stream_options")
    prompts = _prompts(body.prompt)
    count = body.n or 1
    if count * len(prompts) > _MOST_SEQUENCES:
        raise ApiError(400, f"{count} texts for {len(prompts)} prompts are more than {_MOST_SEQUENCES}", param="n")
    most = limit(service, body.max_tokens, "max_tokens")
    sampling = {
        **body.sampling(),
        "max_tokens": min(_MAX_TOKENS, most or _MAX_TOKENS) if body.max_tokens is None else most,
        "logprobs": body.logprobs,
        "prompt_logprobs": body.logprobs if body.echo else None,
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
    if body.echo and body.logprobs is not None:
        await _check_size(job, body.logprobs)
    if body.stream:
        want_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        events = _events(job, model, head, echoes, count, want_usage=want_usage)
        return EventStream(service, job, events, lambda error: event(body_of(error, "", None)))
    results = await attend(service, request.receive, job.results())
    choices = []
    for index, result in enumerate(results):
        echo = echoes[index] if echoes else ""
        logprobs = None if result.logprobs is None else _logprobs(result.logprobs, len(echo))
        if logprobs is not None and echoes:
            logprobs = _joined(_prompt_logprobs(model, job, index, echo), logprobs)
        choices.append(_choice(index, echo + result.text, logprobs, result.finish_reason))
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


async def _check_size(job: Job, count: int) -> None:
    """Refuses log-probabilities of prompts that would take too much memory."""
    entries = sum(len(ids) for ids in job.prompt_ids) * (count + 1)
    if entries > _MAX_PROMPT_LOGPROBS:
        await job.close()
        message = f"the log-probabilities of the prompts are {entries} numbers, more than {_MAX_PROMPT_LOGPROBS}"
        raise ApiError(400, f"logprobs with echo: {message}; send fewer or shorter prompts", param="logprobs")


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _prompt_logprobs(model: Model, job: Job, index: int, text: str) -> dict[str, Any]:
    """The log-probabilities of the tokens of a prompt; the first one has none.

    Tokens that are not in the text of the prompt, such as the one that begins a text, have no width.
    """
    tokens = [text_of(model, id_) for id_ in job.prompt_ids[index]]
    logprobs = job.prompt_logprobs(index)
    offsets, offset = [], 0
    for token in tokens:
        at = text.find(token, offset, offset + len(token) + _LAG)
        offsets.append(offset if at < 0 else at)
        offset = offset if at < 0 else at + len(token)
    known = [one for one in logprobs if one is not None]
    return {
        "tokens": tokens,
        "token_logprobs": [None, *(finite(token.logprob) for token in known)],
        "top_logprobs": [None, *(_top(token) for token in known)],
        "text_offset": offsets,
    }


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {name: values + second[name] for name, values in first.items()}


def _top(token: TokenLogprob) -> dict[str, float]:
    # Tokens that look the same are one key; the likelier one, which comes first, stays.
    return {top.token: finite(top.logprob) for top in reversed(token.top)}


def _logprobs(tokens: tuple[TokenLogprob, ...], offset: int) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [finite(token.logprob) for token in tokens],
        "top_logprobs": [_top(token) for token in tokens],
        "text_offset": offsets,
    }


async def _events(
    job: Job, model: Model, head: dict[str, Any], echoes: list[str] | None, count: int, *, want_usage: bool
) -> AsyncGenerator[bytes, None]:
    tail: dict[str, Any] = {"usage": None} if want_usage else {}
    results: dict[int, Any] = {}
    offsets: dict[int, int] = {}

    def chunk(choice: dict[str, Any]) -> bytes:
        return event({**head, "choices": [choice], **tail})

    async for index, item in job.chunks():
        if echoes is not None and index not in offsets:
            # The log-probabilities of the prompt are there when the first token is.
            echo = echoes[index]
            offsets[index] = len(echo)
            logprobs = None if not job.prompt_logprobs(index) else _prompt_logprobs(model, job, index, echo)
            yield chunk(_choice(index, echo, logprobs, None))
        if hasattr(item, "finish_reason"):
            results[index] = item
            yield chunk(_choice(index, "", None, item.finish_reason))
        elif item.text or item.logprobs:
            offset = offsets.get(index, 0)
            offsets[index] = offset + sum(len(token.token) for token in item.logprobs or ())
            logprobs = None if item.logprobs is None else _logprobs(item.logprobs, offset)
            yield chunk(_choice(index, item.text, logprobs, None))
    if want_usage:
        in_order = [results[index] for index in sorted(results)]
        yield event({**head, "choices": [], "usage": usage(in_order, choices=count)})
    yield DONE
