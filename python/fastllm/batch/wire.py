"""From the JSON of a request to a call of `Model`, and from what it returns to JSON.

Names and shapes are those of OpenAI's API; every field of `SamplingParams` is understood beside them. A field that is
not known is refused. Knows no files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastllm.batch.errors import RequestError
from fastllm.chat_options import final_message
from fastllm.errors import ParameterError
from fastllm.options import SamplingParams, _suggestion
from fastllm.results import ChatReply, Generation

if TYPE_CHECKING:
    from fastllm.results import TokenLogprob, TopLogprob

__all__ = ["CHAT", "COMPLETIONS", "Call", "response_body", "translate"]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

_SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingParams))
# Keywords of `Model.chat` that a request may have as they are.
_CHAT_KEYWORDS = frozenset(
    (
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "chat_template_kwargs"),
        *("reasoning_effort", "reasoning_budget", "enable_thinking", "continue_final_message"),
    )
)
# Keywords of `Model.generate` alone that a request may have.
_COMPLETION_KEYWORDS = frozenset(("parse_special",))
_MOST_CHOICES = 128
_SEEDS = 2**64
# OpenAI's number for a token that is as good as impossible.
_LEAST_LOGPROB = -9999.0


@dataclasses.dataclass(frozen=True)
class Call:
    """A request, understood.

    Attributes:
        endpoint: `CHAT` or `COMPLETIONS`.
        inputs: The conversation, or the prompts.
        n: Answers to each.
        keywords: Those of `Model.chat` or `Model.generate`.
    """

    endpoint: str
    inputs: Sequence[Any]
    n: int
    keywords: Mapping[str, Any]

    def calls(self) -> list[tuple[Any, dict[str, Any]]]:
        """What to ask the model, in the order of the choices: a conversation or prompt, and keywords for it."""
        made = []
        for one in self.inputs:
            for index in range(self.n):
                keywords = dict(self.keywords)
                # Answers to one prompt differ, and are the same in each run.
                if index and isinstance(keywords.get("seed"), int):
                    keywords["seed"] = (keywords["seed"] + index) % _SEEDS
                made.append((one, keywords))
        return made


def translate(endpoint: str, body: Mapping[str, Any], model_name: str) -> Call:
    """Understands the body of a request.

    Args:
        endpoint: `CHAT` or `COMPLETIONS`.
        body: The JSON object. A field that is null counts as absent.
        model_name: The only `model` that it may ask for.

    Raises:
        RequestError: A field is missing, unknown, or wrong. Values of sampling options are checked by the model.
    """
    if endpoint not in (CHAT, COMPLETIONS):
        raise RequestError(f"url = {endpoint!r} is not supported: {CHAT} or {COMPLETIONS}", "url")
    fields = {name: value for name, value in body.items() if value is not None}
    model = fields.pop("model", model_name)
    if model != model_name:
        raise RequestError(f"the model {model!r} is not here, only {model_name!r}", "model")
    if fields.pop("stream", False) is not False:
        raise RequestError("stream must be false: a batch has no one to stream to", "stream")
    if not isinstance(fields.pop("user", ""), str):  # a label: it has no effect by definition
        raise RequestError("user must be a string", "user")
    n = fields.pop("n", 1)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MOST_CHOICES:
        raise RequestError(f"n must be an integer from 1 to {_MOST_CHOICES}", "n")
    inputs = [_messages(fields.pop("messages", None))] if endpoint == CHAT else _prompts(fields.pop("prompt", None))
    allowed = _SAMPLING
    if endpoint == COMPLETIONS:
        allowed |= _COMPLETION_KEYWORDS
    else:
        allowed |= _CHAT_KEYWORDS
        _rename_chat_options(fields)
        _final_message(fields, inputs[0][-1]["role"])
    unknown = next((name for name in fields if name not in allowed), None)
    if unknown is not None:
        raise RequestError(f"unknown field {unknown!r}{_suggestion(unknown)}", unknown)
    if "logit_bias" in fields:
        fields["logit_bias"] = _logit_bias(fields["logit_bias"])
    return Call(endpoint, inputs, n, fields)


def _rename_chat_options(fields: dict[str, Any]) -> None:
    """Gives options of chat requests the names that the model's keywords have."""
    if "max_completion_tokens" in fields:
        if "max_tokens" in fields:
            raise RequestError("max_tokens and max_completion_tokens are the same; give one", "max_tokens")
        fields["max_tokens"] = fields.pop("max_completion_tokens")
    wanted = fields.pop("logprobs", False)
    if not isinstance(wanted, bool):
        raise RequestError("logprobs must be true or false; top_logprobs is their number", "logprobs")
    top = fields.pop("top_logprobs", None)
    if wanted:
        fields["logprobs"] = 0 if top is None else top
    elif top is not None:
        raise RequestError("top_logprobs needs logprobs = true", "top_logprobs")
    if not isinstance(fields.get("tools", []), list):
        raise RequestError("tools must be a list", "tools")
    if not isinstance(fields.get("chat_template_kwargs", {}), dict):
        raise RequestError("chat_template_kwargs must be an object", "chat_template_kwargs")
    if fields.get("response_format") == {"type": "text"}:
        del fields["response_format"]  # the default


def _final_message(fields: dict[str, Any], role: str) -> None:
    """What to do with a last message of the assistant."""
    options = {name: fields.pop(name, None) for name in ("continue_final_message", "add_generation_prompt")}
    for name, value in options.items():
        if not isinstance(value, bool | None):
            raise RequestError(f"{name} must be true or false", name)
    try:
        found = final_message(**options, role=role)
    except ParameterError as error:
        raise RequestError(str(error), "add_generation_prompt") from None
    if found is not None:
        fields["continue_final_message"] = found


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise RequestError("messages must be a list of at least one message", "messages")
    return [_message(index, message) for index, message in enumerate(value)]


def _message(index: int, message: Any) -> dict[str, Any]:
    """A message whose content, where it is a list of parts, is their text."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(f"messages[{index}] must be an object with a role", "messages")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message
    if not isinstance(content, list):
        raise RequestError(f"content of messages[{index}] must be a string or a list of parts", "messages")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise RequestError(f"content of messages[{index}] has a part that is no text", "messages")
        texts.append(text)
    return {**message, "content": "".join(texts)}


def _prompts(value: Any) -> list[Any]:
    """The prompts: one text, the ids of one, or a list of either."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise RequestError("prompt must be a string, token ids, or a list of either", "prompt")
    if all(isinstance(one, int) for one in value):
        return [value]
    for one in value:
        ids = isinstance(one, list) and one and all(isinstance(id_, int) for id_ in one)
        if not isinstance(one, str) and not ids:
            raise RequestError("prompt must be a string, token ids, or a list of either", "prompt")
    return value


def _logit_bias(value: Any) -> dict[int, Any]:
    """Token ids are text in JSON objects."""
    try:
        return {int(id_): number for id_, number in value.items()}
    except (AttributeError, ValueError):
        raise RequestError("logit_bias must be an object from token ids to numbers", "logit_bias") from None


def response_body(
    call: Call, results: Sequence[ChatReply | Generation], *, id_: str, created: int, model_name: str
) -> dict[str, Any]:
    """The JSON of a response.

    Args:
        call: What was asked.
        results: The answers, in the order of `call.calls()`.
        id_: Ends the response's id.
        created: Seconds since 1970.
        model_name: What to call the model.
    """
    chat = call.endpoint == CHAT
    # The prompt of several choices counts once.
    prompts = results[:: call.n]
    prompt_tokens = sum(result.usage.prompt_tokens for result in prompts)
    completion_tokens = sum(result.usage.completion_tokens for result in results)
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{id_}",
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": model_name,
        "choices": [_choice(index, result) for index, result in enumerate(results)],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(result.usage.cached_tokens for result in prompts)},
        },
    }


def _choice(index: int, result: ChatReply | Generation) -> dict[str, Any]:
    logprobs = result.logprobs
    if isinstance(result, ChatReply):
        shown: Any = None if logprobs is None else {"content": [_chat_logprob(token) for token in logprobs]}
        part: dict[str, Any] = {"message": result.message}
    else:
        shown = None if logprobs is None else _completion_logprobs(logprobs)
        part = {"text": result.text}
    return {"index": index, **part, "logprobs": shown, "finish_reason": result.finish_reason}


def _chat_logprob(token: TokenLogprob) -> dict[str, Any]:
    def one(token: TopLogprob) -> dict[str, Any]:
        # A part of a character is no text: its bytes cannot be told from the text shown for it.
        raw = None if "\N{REPLACEMENT CHARACTER}" in token.token else list(token.token.encode())
        return {"token": token.token, "logprob": _finite(token.logprob), "bytes": raw}

    return {**one(token), "top_logprobs": [one(top) for top in token.top]}


def _completion_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [{top.token: _finite(top.logprob) for top in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _finite(logprob: float) -> float:
    """JSON has no infinity."""
    return max(logprob, _LEAST_LOGPROB)
