"""The requests of Anthropic's /v1/messages."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from fastllm.server.wire.chat import ToolName
from fastllm.server.wire.common import Body, Finite, Integer, Name, Text, Wire

__all__ = ["CountTokensRequest", "MessagesRequest", "format_of", "messages_of", "tool_choice_of", "tools_of"]


class CacheControl(Wire):
    """A hint where a common beginning ends; not needed here."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Wire):
    """What all blocks have."""

    cache_control: CacheControl | None = Field(None, description="Not used: common beginnings are found without it")


class TextBlock(Block):
    """Text."""

    type: Literal["text"]
    text: str
    citations: Annotated[list[Any], Field(max_length=0)] | None = None


class ThinkingBlock(Wire):
    """The reasoning of an earlier answer."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(Block):
    """A tool call of an earlier answer."""

    type: Literal["tool_use"]
    id: Name
    name: ToolName
    input: dict[str, Any]
    caller: None = None


class ToolResultBlock(Block):
    """What a tool returned."""

    type: Literal["tool_result"]
    tool_use_id: Name
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


class UserTurn(Wire):
    """What the user said, and what tools returned."""

    role: Literal["user"]
    content: str | list[Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")]]


class AssistantTurn(Wire):
    """An earlier answer."""

    role: Literal["assistant"]
    content: str | list[Annotated[TextBlock | ThinkingBlock | ToolUseBlock, Field(discriminator="type")]]


class AnthropicTool(Block):
    """A tool that the model may call."""

    name: ToolName
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None


class ToolChoiceAny(Wire):
    """Whether the model may, must or must not call tools."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class ToolChoiceTool(Wire):
    """The tool that the model has to call."""

    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class Thinking(Wire):
    """Whether to think; sets `enable_thinking` of the template."""

    type: Literal["adaptive", "disabled"]


class LimitedThinking(Wire):
    """Thinking of a limited length; sets `enable_thinking` of the template, too."""

    type: Literal["enabled"]
    budget_tokens: Annotated[Integer, Field(ge=0, lt=2**31)]


class OutputFormat(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Wire):
    """The form of the answer, and how much to think."""

    format: OutputFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh"] | None = None


class UserMetadata(Wire):
    """Who asks; not used."""

    user_id: str | None = None


class CountTokensRequest(Body):
    """A conversation whose tokens are counted."""

    model: str | None = Field(None, description="Default: the first model")
    messages: Annotated[list[Annotated[UserTurn | AssistantTurn, Field(discriminator="role")]], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[AnthropicTool], Field(max_length=128)] | None = None
    tool_choice: Annotated[ToolChoiceAny | ToolChoiceTool, Field(discriminator="type")] | None = None
    thinking: Annotated[Thinking | LimitedThinking, Field(discriminator="type")] | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = Field(None, description="Not used: common beginnings are found without it")


class MessagesRequest(CountTokensRequest):
    """A conversation to answer."""

    max_tokens: Annotated[Integer, Field(ge=1, lt=2**31)]
    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = Field(None, description="Default: 1")
    top_p: Annotated[Finite, Field(ge=0, le=1)] | None = Field(None, description="Default: 1")
    top_k: Annotated[Integer, Field(ge=0, lt=2**32)] | None = Field(None, description="Keep this many tokens; 0: all")
    stop_sequences: Annotated[list[Text], Field(max_length=64)] | None = None
    stream: bool | None = None
    metadata: UserMetadata | None = Field(None, description="Not used")
    service_tier: Literal["auto", "standard_only"] | None = Field(None, description="There is one")


def messages_of(body: CountTokensRequest) -> list[dict[str, Any]]:
    """The turns as messages of a chat."""
    found: list[dict[str, Any]] = []
    if body.system is not None:
        found.append({"role": "system", "content": _text(body.system)})
    for turn in body.messages:
        if isinstance(turn.content, str):
            found.append({"role": turn.role, "content": turn.content})
        elif isinstance(turn, UserTurn):
            found += _user(turn)
        else:
            found.append(_assistant(turn))
    return found


def _user(turn: UserTurn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for block in turn.content:
        if isinstance(block, ToolResultBlock):
            content = _text(block.content or "")
            content = f"Error: {content}" if block.is_error else content
            found.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
        elif isinstance(block, TextBlock):
            if found and found[-1]["role"] == "user":
                found[-1]["content"] += block.text
            else:
                found.append({"role": "user", "content": block.text})
    return found or [{"role": "user", "content": ""}]


def _assistant(turn: AssistantTurn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls = []
    for block in turn.content:
        if isinstance(block, TextBlock):
            message["content"] += block.text
        elif isinstance(block, ThinkingBlock):
            message["reasoning_content"] = message.get("reasoning_content", "") + block.thinking
        elif isinstance(block, ToolUseBlock):
            function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
            calls.append({"id": block.id, "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    return message


def _text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)


def tools_of(body: CountTokensRequest) -> list[dict[str, Any]] | None:
    """The tools as those of a chat."""
    if not body.tools:
        return None
    found = []
    for tool in body.tools:
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
        if tool.description is not None:
            function["description"] = tool.description
        found.append({"type": "function", "function": function})
    return found


def format_of(body: CountTokensRequest) -> dict[str, Any] | None:
    """The form of the answer as that of a chat."""
    form = None if body.output_config is None else body.output_config.format
    if form is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.schema_, "strict": True}}


def tool_choice_of(body: CountTokensRequest) -> tuple[str | dict[str, Any] | None, bool | None]:
    """The choice as that of a chat, and whether several tools may be called."""
    choice = body.tool_choice
    if choice is None:
        return None, None
    parallel = None if choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use
    if isinstance(choice, ToolChoiceTool):
        return {"type": "function", "function": {"name": choice.name}}, parallel
    return {"auto": "auto", "any": "required", "none": "none"}[choice.type], parallel
