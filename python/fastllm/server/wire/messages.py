"""The requests of Anthropic's /v1/messages."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from fastllm.server.errors import ApiError
from fastllm.server.wire.chat import ToolName
from fastllm.server.wire.common import Body, Finite, Integer, Name, Text, Wire
from fastllm.server.wire.compat import CacheControl

__all__ = [
    "CountTokensRequest",
    "MessagesRequest",
    "check_thread",
    "format_of",
    "messages_of",
    "skipped_of",
    "tool_choice_of",
    "tools_of",
]

# Blocks about tools that a different server ran.
_SERVER_BLOCK = re.compile(r"(server|mcp)_tool_use|[a-z_]+_tool_result|tool_reference|container_upload")


class Block(Wire):
    """What all blocks have."""

    cache_control: CacheControl | None = Field(None, description="Not used: common beginnings are found without it")


class TextBlock(Block):
    """Text."""

    type: Literal["text"]
    text: str
    citations: list[Any] | None = Field(None, description="Not used")


class ThinkingBlock(Wire):
    """The reasoning of an earlier answer."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Wire):
    """Reasoning of a different server's answer, which cannot be read: skipped."""

    type: Literal["redacted_thinking"]
    data: str


class ServerBlock(BaseModel):
    """What a tool of a different server did, or was found to be: skipped."""

    model_config = ConfigDict(extra="allow")
    type: Name


def _kind(block: Any) -> str | None:
    kind = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
    if not isinstance(kind, str):
        return None
    return "server" if kind != "tool_result" and _SERVER_BLOCK.fullmatch(kind[:256]) else kind


class ToolUseBlock(Block):
    """A tool call of an earlier answer."""

    type: Literal["tool_use"]
    id: Name
    name: ToolName
    input: dict[str, Any]
    caller: dict[str, Any] | None = Field(None, description="Not used")


ResultBlock = Annotated[Annotated[TextBlock, Tag("text")] | Annotated[ServerBlock, Tag("server")], Discriminator(_kind)]


class ToolResultBlock(Block):
    """What a tool returned."""

    type: Literal["tool_result"]
    tool_use_id: Name
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


class UserTurn(Wire):
    """What the user said, and what tools returned."""

    role: Literal["user"]
    content: (
        str
        | list[
            Annotated[
                Annotated[TextBlock, Tag("text")]
                | Annotated[ToolResultBlock, Tag("tool_result")]
                | Annotated[ServerBlock, Tag("server")],
                Discriminator(_kind),
            ]
        ]
    )


class AssistantTurn(Wire):
    """An earlier answer."""

    role: Literal["assistant"]
    content: (
        str
        | list[
            Annotated[
                Annotated[TextBlock, Tag("text")]
                | Annotated[ThinkingBlock, Tag("thinking")]
                | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
                | Annotated[ToolUseBlock, Tag("tool_use")]
                | Annotated[ServerBlock, Tag("server")],
                Discriminator(_kind),
            ]
        ]
    )


class SystemTurn(Wire):
    """What the model is told in the middle of a conversation."""

    role: Literal["system"]
    content: str | list[TextBlock]


class AnthropicTool(Block):
    """A tool that the model may call."""

    name: ToolName
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = Field(None, description="Calls follow the schema")
    eager_input_streaming: bool | None = Field(None, description="Not used: arguments are streamed as they are made")
    defer_loading: bool | None = Field(None, description="Not used: the model is told of all tools")
    allowed_callers: Annotated[list[Name], Field(max_length=16)] | None = Field(
        None, description="Not used: the model is the only caller"
    )


class ServerTool(BaseModel):
    """A tool that Anthropic's servers define or run: the model is not told of it."""

    model_config = ConfigDict(extra="allow")
    type: Name


def _tool_kind(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return "server" if isinstance(kind, str) and kind != "custom" else "custom"


AnthropicTools = Annotated[
    list[
        Annotated[
            Annotated[AnthropicTool, Tag("custom")] | Annotated[ServerTool, Tag("server")], Discriminator(_tool_kind)
        ]
    ],
    Field(max_length=128),
]


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
    display: Name | None = Field(None, description="Not used: all of it is shown")


class LimitedThinking(Wire):
    """Thinking of a limited length; sets `enable_thinking` of the template, too."""

    type: Literal["enabled"]
    budget_tokens: Annotated[Integer, Field(ge=0, lt=2**31)]
    display: Name | None = Field(None, description="Not used: all of it is shown")


class OutputFormat(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Wire):
    """The form of the answer, and how much to think."""

    format: OutputFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="Left out for models that know none"
    )


class UserMetadata(Wire):
    """Who asks; not used."""

    user_id: str | None = None


class NewThread(Wire):
    """A conversation that begins with this request."""

    type: Literal["create"]


class ContinuedThread(Wire):
    """A conversation of which the request holds only what is new."""

    type: Literal["continue"]
    previous_message_id: Name


class CountTokensRequest(Body):
    """A conversation whose tokens are counted."""

    model: str | None = Field(None, description="Default: the first model")
    messages: Annotated[
        list[Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]], Field(min_length=1)
    ]
    system: str | list[TextBlock] | None = None
    tools: AnthropicTools | None = None
    tool_choice: Annotated[ToolChoiceAny | ToolChoiceTool, Field(discriminator="type")] | None = None
    thinking: Annotated[Thinking | LimitedThinking, Field(discriminator="type")] | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(None, description="As output_config.format")
    context_management: dict[str, Any] | None = Field(None, description="Not used: nothing is left out")
    thread: Annotated[NewThread | ContinuedThread, Field(discriminator="type")] | None = Field(
        None, description="No conversation is stored: a new one is answered, and none can be continued"
    )
    speed: Name | None = Field(None, description="Not used")
    inference_geo: Name | None = Field(None, description="Not used")
    mcp_servers: Annotated[list[Any], Field(max_length=0)] | None = None
    container: None = None
    cache_control: CacheControl | None = Field(None, description="Not used: common beginnings are found without it")


class MessagesRequest(CountTokensRequest):
    """A conversation to answer."""

    max_tokens: Annotated[Integer, Field(ge=1, lt=2**31)]
    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = Field(None, description="Default: the model's")
    top_p: Annotated[Finite, Field(ge=0, le=1)] | None = Field(None, description="Default: the model's")
    top_k: Annotated[Integer, Field(ge=-1, lt=2**32)] | None = Field(
        None, description="Keep this many tokens; 0 or -1: all"
    )
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
        elif isinstance(turn, SystemTurn):
            found.append({"role": "system", "content": _text(turn.content)})
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


def _text(content: str | list[TextBlock] | list[ResultBlock]) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.text for block in content if isinstance(block, TextBlock))


def tools_of(body: CountTokensRequest) -> list[dict[str, Any]] | None:
    """The tools as those of a chat."""
    found = []
    for tool in body.tools or ():
        if not isinstance(tool, AnthropicTool):
            continue
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
        for name in ("description", "strict"):
            if getattr(tool, name) is not None:
                function[name] = getattr(tool, name)
        found.append({"type": "function", "function": function})
    return found or None


def check_thread(body: CountTokensRequest) -> None:
    """Refuses to continue a stored conversation, so that the client sends all of it.

    Raises:
        ApiError: 404, nothing is stored.
    """
    if isinstance(body.thread, ContinuedThread):
        message = "thread: no conversation is stored here; send all messages"
        details = {"error_code": "thread_not_found"}
        raise ApiError(404, message, param="thread.previous_message_id", code="thread_not_found", details=details)


def skipped_of(body: CountTokensRequest) -> list[str]:
    """The kinds of the tools that the model is not told of, and of their traces in earlier turns."""
    tools = [tool.type for tool in body.tools or () if isinstance(tool, ServerTool)]
    contents = [turn.content for turn in body.messages if not isinstance(turn.content, str)]
    return tools + [block.type for content in contents for block in content if isinstance(block, ServerBlock)]


def format_of(body: CountTokensRequest) -> dict[str, Any] | None:
    """The form of the answer as that of a chat."""
    form = body.output_format
    if body.output_config is not None and body.output_config.format is not None:
        if form is not None:
            message = "output_format and output_config.format are the same: give one"
            raise ApiError(400, message, param="output_format", code="invalid_value")
        form = body.output_config.format
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
