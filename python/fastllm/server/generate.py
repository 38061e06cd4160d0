"""The seam to the library: the only file of the server that starts work on a model."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastllm.background import in_thread
from fastllm.errors import FastLLMError, ParameterError
from fastllm.model import Model
from fastllm.options import SamplingParams
from fastllm.server.caller import CALLER
from fastllm.server.errors import ApiError, from_library
from fastllm.server.metrics import Clock

if TYPE_CHECKING:
    from fastllm.server.service import Service
    from fastllm.stream import AsyncChatStream

__all__ = ["ChatCall", "Job", "chat_ids", "chat_job", "completion_job"]

# Names in templates that a request may not set.
_RESERVED = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "tokenize", "now"),
        *("chat_template", "chat_template_kwargs", "bos_token", "eos_token", "self", "template"),
        *("raise_exception", "strftime_now", "namespace", "range", "dict"),
        *("tool_choice", "parallel_tool_calls", "reasoning_effort", "reasoning_budget", "response_format"),
    )
)
# What restricts tokens; errors of it are put down to the first one that a request has.
_CONSTRAINTS = ("response_format", "regex", "grammar", "choices", "tool_choice", "logit_bias", "tools")


@dataclass(frozen=True)
class ChatCall:
    """What a model is asked, in the terms of the library.

    Attributes:
        messages: OpenAI's messages.
        sampling: Fields of `SamplingParams`.
        tools: OpenAI's descriptions of tools.
        tool_choice: "auto", "none", "required" or OpenAI's dict of one tool.
        parallel_tool_calls: Whether one answer may call several tools.
        response_format: OpenAI's dict.
        chat_template_kwargs: Further variables of the template.
        reasoning_effort: How much to think.
        reasoning_budget: Most tokens of thinking.
        hints: Of the last two, the names of those that are left out for a model that cannot follow them: clients send
            them with every request, whatever the model is.
        continue_final_message: Whether a last message of the assistant is continued; None: it is refused.
    """

    messages: list[dict[str, Any]]
    sampling: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    hints: frozenset[str] = frozenset()
    continue_final_message: bool | None = None

    def stream(self, model: Model, params: SamplingParams | None, keywords: Mapping[str, Any]) -> AsyncChatStream:
        """The stream of an answer, not started; the keywords are those of this call."""
        try:
            return model.achat_stream(self.messages, params, **keywords)
        except ParameterError as error:
            name = str(error).partition(":")[0]
            if name not in self.hints or name not in keywords:
                raise
        return self.stream(model, params, {key: value for key, value in keywords.items() if key != name})

    def keywords(self) -> dict[str, Any]:
        """The keywords of `Model.achat_stream`.

        Raises:
            ApiError: 400, a field cannot be meant.
        """
        for name in self.chat_template_kwargs:
            if not name.isidentifier() or name in _RESERVED:
                raise ApiError(
                    400, f"{name[:100]!r} is no variable that a request may set", param="chat_template_kwargs"
                )
        found: dict[str, Any] = {"chat_template_kwargs": dict(self.chat_template_kwargs)}
        if self.tools:
            found["tools"] = list(self.tools)
            for name in ("tool_choice", "parallel_tool_calls"):
                if getattr(self, name) is not None:
                    found[name] = getattr(self, name)
        elif self.tool_choice not in (None, "none", "auto"):
            raise ApiError(400, "tool_choice names a tool, but there are no tools", param="tool_choice")
        if self.response_format is not None and self.response_format.get("type") != "text":
            found["response_format"] = self.response_format
        for name in ("reasoning_effort", "reasoning_budget", "continue_final_message"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        return found


def _params(defaults: Mapping[str, Any], sampling: Mapping[str, Any], salt: str) -> SamplingParams:
    given = {name: value for name, value in sampling.items() if value is not None}
    return SamplingParams(**{**defaults, **given, "cache_salt": salt})


def _salt(service: Service, sampling: Mapping[str, Any]) -> str:
    """The salt of the prefix cache for the request that this task answers."""
    return CALLER.get().cache_salt(sampling.get("cache_salt"), shared=service.options.share_prefix_cache)


class Job:
    """Sequences that answer one request.

    Args:
        service: Where the model is.
        model: Its name.
        count: How many sequences.
        build: Makes the streams; called on another thread.
        prompt: The field that holds the prompt, for errors.
        constraint: The field that restricts tokens; None: none does.
    """

    def __init__(
        self,
        service: Service,
        model: str,
        count: int,
        build: Callable[[], list[Any]],
        *,
        prompt: str,
        constraint: str | None,
    ) -> None:
        self._service = service
        self._model = model
        self._count = count
        self._build = build
        self._prompt = prompt
        self._constraint = constraint
        self._streams: list[Any] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._clocks: list[Clock] = []
        self._results: list[Any] = []
        # Of each sequence, the tokens that came with reasoning.
        self.reasoning_tokens = [0] * count
        self._places = contextlib.ExitStack()

    async def start(self) -> None:
        """Queues the sequences; errors of the request are raised here, and then nothing is left to close."""
        try:
            self._places.enter_context(self._service.admit(self._model, self._count))
            self._clocks = [Clock(self._service.metrics, self._model) for _ in range(self._count)]
            self._results = [None] * self._count
            with self._errors():
                self._streams = await in_thread(self._build)
                for stream in self._streams:
                    await stream.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stops the work. In the event loop of the start."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for stream in self._streams:
            stream.close()
        self._places.close()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; of the first one, where there are several."""
        return self._streams[0].prompt_tokens or 0

    @property
    def prompt_ids(self) -> list[list[int]]:
        """The tokens of the prompts, of one for each sequence. After the start."""
        return [list(stream.prompt_ids or ()) for stream in self._streams]

    def prompt_logprobs(self, index: int) -> tuple[Any, ...]:
        """What `Generation.prompt_logprobs` will be, as far as the prompt was read."""
        return self._streams[index].prompt_logprobs or ()

    async def chunks(self) -> AsyncIterator[tuple[int, Any]]:
        """The index of a sequence and a chunk of it, as they come; at the end of a sequence its result."""
        with self._errors():
            if self._count == 1:
                async for chunk in self._one(0):
                    yield 0, chunk
                return
            news: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(self._count)
            self._pumps = [asyncio.ensure_future(self._pump(index, news)) for index in range(self._count)]
            ended = 0
            while ended < self._count:
                index, item = await news.get()
                if isinstance(item, BaseException):
                    raise item
                ended += self._results[index] is item
                yield index, item

    async def results(self) -> list[Any]:
        """All results, at their end; the job is closed."""
        try:
            async for _ in self.chunks():
                pass
        finally:
            await self.close()
        return self._results

    async def _one(self, index: int) -> AsyncIterator[Any]:
        stream, clock = self._streams[index], self._clocks[index]
        while (chunk := await anext(stream, None)) is not None:
            clock.tick()
            if getattr(chunk, "reasoning_content", None):
                self.reasoning_tokens[index] += len(chunk.token_ids)
            yield chunk
        result = await stream.result()
        self._service.metrics.end(self._model, result.usage, result.finish_reason)
        self._results[index] = result
        yield result

    async def _pump(self, index: int, news: asyncio.Queue[tuple[int, Any]]) -> None:
        try:
            async for item in self._one(index):
                await news.put((index, item))
        except Exception as error:  # noqa: BLE001 - raised where the queue is read
            await news.put((index, error))

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except (FastLLMError, ValueError, OverflowError) as error:
            known = from_library(error, prompt=self._prompt, constraint=self._constraint)
            if known is None and not isinstance(error, FastLLMError):
                # What the template's variables, messages or tools cannot be turned into.
                known = ApiError(400, str(error), param=self._prompt, code="invalid_value")
            if known is None:
                raise
            raise known from error


def chat_job(service: Service, name: str, call: ChatCall, count: int = 1) -> Job:
    """Answers a conversation `count` times."""
    model = service.models[name]
    keywords = call.keywords()
    salt = _salt(service, call.sampling)

    def build() -> list[Any]:
        params = _params(model.default_chat_sampling, call.sampling, salt)
        return [call.stream(model, _choice(params, choice), keywords) for choice in range(count)]

    return Job(service, name, count, build, prompt="messages", constraint=_constraint({**call.sampling, **keywords}))


def completion_job(
    service: Service,
    name: str,
    prompts: Sequence[str | list[int]],
    sampling: Mapping[str, Any],
    count: int = 1,
    *,
    parse_special: bool = True,
) -> Job:
    """Continues prompts, `count` times each. The texts of control tokens in them become tokens if `parse_special`."""
    model = service.models[name]
    salt = _salt(service, sampling)

    def build() -> list[Any]:
        params = _params(model.default_sampling, sampling, salt)
        return [
            model.astream(prompt, _choice(params, choice), parse_special=parse_special)
            for prompt in prompts
            for choice in range(count)
        ]

    constraint = _constraint(sampling)
    return Job(service, name, count * len(prompts), build, prompt="prompt", constraint=constraint)


def _constraint(fields: Mapping[str, Any]) -> str | None:
    return next((name for name in _CONSTRAINTS if fields.get(name)), None)


async def chat_ids(model: Model, call: ChatCall) -> list[int]:
    """The tokens of a conversation, as they would be answered."""
    keywords = call.keywords()

    def ids() -> list[int]:
        stream = call.stream(model, None, keywords)  # it is never started
        return list(stream._output.prompt_ids or ())  # noqa: SLF001 - one package

    try:
        return await in_thread(ids)
    except (FastLLMError, ValueError, OverflowError) as error:
        raise from_library(error) or ApiError(400, str(error), param="messages", code="invalid_value") from error


def _choice(params: SamplingParams, index: int) -> SamplingParams:
    """The options of one of several choices: its seed is the request's, plus its index."""
    if index == 0 or params.seed is None:
        return params
    return dataclasses.replace(params, seed=(params.seed + index) % 2**64)
