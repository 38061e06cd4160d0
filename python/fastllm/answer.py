"""What a chat makes of the output: content, reasoning and tool calls."""

from __future__ import annotations

import secrets
import string
from typing import TYPE_CHECKING

from fastllm import _native
from fastllm.results import ChatChunk, ChatReply, FinishReason, Timings, TokenLogprob, Usage
from fastllm.stream import Progress, _Output
from fastllm.tools import ToolCall, ToolCallDelta

if TYPE_CHECKING:
    from fastllm.conversation import Prepared
    from fastllm.stream import _Event
    from fastllm.tokenizer import Tokenizer

__all__ = ["ChatOutput"]

_LETTERS = string.ascii_letters + string.digits


class _Call:
    """A call that is being made."""

    def __init__(self, name: str) -> None:
        self.id = "call_" + "".join(secrets.choice(_LETTERS) for _ in range(24))
        self.name = name
        self.arguments: list[str] = []


class ChatOutput(_Output[ChatChunk, ChatReply]):
    """What a chat has made so far."""

    def __init__(self, prepared: Prepared, tokenizer: Tokenizer, progress: Progress | None) -> None:
        super().__init__(self._chunk_of, self._reply, tokenizer, prepared.params, progress)
        self._parser = prepared.parser
        # What the prompt has of the answer is not given again.
        self._held_content, self._held_reasoning = prepared.held
        self._parallel = prepared.parallel
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._malformed: list[str] = []

    def add(self, event: _Event) -> ChatChunk | None:
        """Takes an event; the chunk that it makes, if it does."""
        if self.enough and isinstance(event, _native.Token):
            return None  # made before the request was cancelled
        chunk = super().add(event)
        if not isinstance(event, _native.Finished):
            return chunk
        content, reasoning, deltas = self._take(self._parser.finish())
        if chunk is None:
            if not (content or reasoning or deltas):
                return None
            return ChatChunk(content, (), None if self._logprobs is None else (), reasoning, deltas)
        return ChatChunk(
            chunk.content + content,
            chunk.token_ids,
            chunk.logprobs,
            chunk.reasoning_content + reasoning,
            chunk.tool_calls + deltas,
        )

    def _chunk_of(self, text: str, ids: tuple[int, ...], logprobs: tuple[TokenLogprob, ...] | None) -> ChatChunk:
        content, reasoning, deltas = self._take(self._parser.push(text))
        return ChatChunk(content, ids, logprobs, reasoning, deltas)

    def _take(self, parts: list[_native._Part]) -> tuple[str, str, tuple[ToolCallDelta, ...]]:
        """Takes what the parser found: content, reasoning and parts of calls."""
        content: list[str] = []
        reasoning: list[str] = []
        deltas: list[ToolCallDelta] = []
        for kind, index, text in parts:
            if self.enough:
                break
            if kind == "content":
                text, self._held_content = _without(text, self._held_content)  # noqa: PLW2901
                content.append(text)
            elif kind == "reasoning":
                text, self._held_reasoning = _without(text, self._held_reasoning)  # noqa: PLW2901
                reasoning.append(text)
            elif kind == "malformed":
                self._malformed.append(text)
                if index is not None:
                    del self._calls[index]
            elif index is None:
                continue
            elif kind == "begin":
                call = self._calls[index] = _Call(text)
                deltas.append(ToolCallDelta(index, call.id, text, ""))
            elif kind == "arguments":
                self._calls[index].arguments.append(text)
                deltas.append(ToolCallDelta(index, None, None, text))
            else:
                self.enough = not self._parallel
        self._content += content
        self._reasoning += reasoning
        return "".join(content), "".join(reasoning), tuple(deltas)

    def _reply(  # noqa: PLR0917 - as a result is made
        self,
        _text: str,
        ids: tuple[int, ...],
        reason: FinishReason,
        stop: str | int | None,
        usage: Usage,
        timings: Timings,
        logprobs: tuple[TokenLogprob, ...] | None,
    ) -> ChatReply:
        calls = tuple(ToolCall(call.id, call.name, "".join(call.arguments)) for call in self._calls.values())
        if self.enough:
            # However far the engine was ahead.
            reason, stop = "tool_calls", None
            usage = Usage(usage.prompt_tokens, usage.cached_tokens, len(ids))
        elif calls and reason == "stop":
            reason = "tool_calls"
        return ChatReply(
            "".join(self._content),
            ids,
            reason,
            stop,
            usage,
            timings,
            logprobs,
            "".join(self._reasoning) or None,
            calls,
            tuple(self._malformed),
        )


def _without(text: str, held: str) -> tuple[str, str]:
    """A text without what was held back before it, and what is still held back."""
    if text.startswith(held):
        return text[len(held) :], ""
    return ("", held[len(text) :]) if held.startswith(text) else (text, "")
