"""What requests return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from fastllm.structured import parse
from fastllm.tools import ToolCall, ToolCallDelta

__all__ = [
    "ChatChunk",
    "ChatReply",
    "Chunk",
    "EngineStats",
    "FinishReason",
    "Generation",
    "Timings",
    "TokenLogprob",
    "TopLogprob",
    "Usage",
]

T = TypeVar("T")
FinishReason = Literal["stop", "length", "cancelled", "timeout", "tool_calls"]


@dataclass(frozen=True)
class Usage:
    """Token counts.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Of these, the tokens that did not have to be computed.
        completion_tokens: Tokens made, without the one that ended the text.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class EngineStats:
    """What the engine of a model is doing.

    Attributes:
        running: Requests that own a sequence.
        waiting: Requests in the queue.
        computed_tokens: Tokens that went through the model since it was loaded.
        cached_tokens: Tokens of prompts that did not have to, because another request began alike.
        cache_bytes: Bytes of the KV cache.
        drafted_tokens: Tokens that were guessed and computed beside a certain one.
        accepted_tokens: Of these, the tokens that came true.
    """

    running: int
    waiting: int
    computed_tokens: int
    cached_tokens: int
    cache_bytes: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True)
class Timings:
    """Speed, as wall time: it includes what other requests took in the same steps. 0 for what was not reached.

    Attributes:
        time_to_first_token: Seconds from the call to the first token.
        prompt_seconds: Seconds from the start of the work to the first token.
        decode_seconds: Seconds from the first token to the end.
        prompt_tokens_per_second: Tokens of the prompt that were computed, per second.
        decode_tokens_per_second: Tokens after the first, per second.
        gigabytes_per_second: 10^9 bytes of weights and KV cache that were read per second after the first token.
    """

    time_to_first_token: float
    prompt_seconds: float
    decode_seconds: float
    prompt_tokens_per_second: float
    decode_tokens_per_second: float
    gigabytes_per_second: float


@dataclass(frozen=True)
class TopLogprob:
    """One of the most likely tokens at a position.

    Attributes:
        token_id: The token.
        token: Its text; U+FFFD for bytes that are no text by themselves.
        logprob: Natural logarithm of its probability.
    """

    token_id: int
    token: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob(TopLogprob):
    """The chosen token, and the most likely ones in its place. Of the model itself, before any sampling option.

    Attributes:
        top: The most likely tokens, the most likely one first.
    """

    top: tuple[TopLogprob, ...]


@dataclass(frozen=True)
class Chunk:
    """A part of the output.

    Attributes:
        text: Whole characters; may be empty while a character is incomplete.
        token_ids: The tokens that came with it.
        logprobs: One for each token, when asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class Generation:
    """A finished text.

    Attributes:
        text: The output, without what stopped it.
        token_ids: Its tokens.
        finish_reason: "stop" (the model ended its text, a stop string or token came, or nothing more may follow by a
            schema, regex, grammar or choice), "length", "cancelled" or "timeout".
        stop_reason: The stop string or the id of the token that ended the output, where one did.
        usage: Token counts.
        timings: Speed.
        logprobs: One for each token, when asked for.
        prompt_logprobs: One for each token of the prompt, when asked for; None for the first, which nothing precedes.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None
    usage: Usage
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None

    @overload
    def parse(self, model: None = None) -> Any: ...
    @overload
    def parse(self, model: type[T]) -> T: ...
    def parse(self, model: type[T] | None = None) -> Any:
        """The JSON value of the text.

        Args:
            model: A class with `model_validate_json`, such as a pydantic model, to make an instance of.

        Raises:
            OutputError: The text is not JSON (it may have ended by "length"), or not what the model takes.
        """
        return parse(self.text, self.finish_reason, model)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ChatChunk:
    """A part of an answer. Each of its texts may be empty.

    Attributes:
        content: Text of the answer, whole characters. What may be the beginning of a call is held back.
        token_ids: The tokens that came with it.
        logprobs: One for each token, when asked for.
        reasoning_content: Text of the reasoning before the answer.
        tool_calls: Parts of calls. A call that breaks off, or turns out to be none, is not in the reply, and its text
            comes as content.
    """

    content: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning_content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True)
class ChatReply:
    """A finished answer.

    Attributes:
        content: The answer, without reasoning and calls.
        token_ids: All tokens of the output.
        finish_reason: As that of `Generation`, or "tool_calls": the model made calls and ended its text.
        stop_reason: As that of `Generation`.
        usage: Token counts.
        timings: Speed.
        logprobs: One for each token, when asked for.
        reasoning_content: The reasoning before the answer; None: there was none.
        tool_calls: The calls that the model made.
        malformed_calls: For each text that began like a call and was none, why: the text itself is in the content.
    """

    content: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None
    usage: Usage
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    malformed_calls: tuple[str, ...] = ()

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, to append to the conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [call.message for call in self.tool_calls]
        return message

    @overload
    def parse(self, model: None = None) -> Any: ...
    @overload
    def parse(self, model: type[T]) -> T: ...
    def parse(self, model: type[T] | None = None) -> Any:
        """The JSON value of the content; as `Generation.parse`."""
        return parse(self.content, self.finish_reason, model)

    def __str__(self) -> str:
        return self.content
