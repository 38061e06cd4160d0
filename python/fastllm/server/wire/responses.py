"""The request of /v1/responses."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from fastllm.server.wire.chat import CacheRetention, Effort, Metadata, ServiceTier, ToolName, Verbosity
from fastllm.server.wire.common import Body, Finite, Integer, Name, StreamOptions, Wire
from fastllm.server.wire.compat import MaxTokens

__all__ = ["ResponsesRequest", "format_of", "messages_of", "seal", "skipped_of", "tools_of"]

Status = Literal["in_progress", "completed", "incomplete"]
# How reasoning travels through clients that keep nothing but `encrypted_content`. It is not secret to them.
_SEALED = "fastllm:"


class InputText(Wire):
    """Text of a user, or of an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = Field(None, description="Not used")
    logprobs: list[Any] | None = Field(None, description="Not used")


class RefusalPart(Wire):
    """The refusal of an earlier answer."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """As any other part."""
        return self.refusal


Parts = list[Annotated[InputText | RefusalPart, Field(discriminator="type")]]


class InputMessage(Wire):
    """A message; also an output item of an earlier answer."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts
    id: Name | None = None
    status: Status | None = None
    phase: Name | None = Field(None, description="Not used")
    end_turn: bool | None = Field(None, description="Not used")


class FunctionCallItem(Wire):
    """A tool call of an earlier answer."""

    type: Literal["function_call"]
    call_id: Name
    name: ToolName
    arguments: str = Field(description="JSON")
    id: Name | None = None
    status: Status | None = None
    namespace: Name | None = Field(None, description="Not used")
    caller: dict[str, Any] | None = Field(None, description="Not used")


class CustomCallItem(Wire):
    """A call of an earlier answer whose arguments are plain text."""

    type: Literal["custom_tool_call"]
    call_id: Name
    name: ToolName
    input: str
    id: Name | None = None
    status: Status | None = None
    namespace: Name | None = Field(None, description="Not used")
    caller: dict[str, Any] | None = Field(None, description="Not used")


class FunctionOutputItem(Wire):
    """What a tool returned."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Name
    output: str | Parts
    id: Name | None = None
    status: Status | None = None
    name: ToolName | None = Field(None, description="Not used")
    caller: dict[str, Any] | None = Field(None, description="Not used")


class ReasoningText(Wire):
    """Text of a reasoning."""

    type: Literal["reasoning_text", "text"]
    text: str


class SummaryText(Wire):
    """Text of the summary of a reasoning."""

    type: Literal["summary_text"]
    text: str


class ReasoningItem(Wire):
    """The reasoning of an earlier answer. What an answer of a different server has encrypted is left out."""

    type: Literal["reasoning"]
    id: Annotated[str, Field(max_length=256)] | None = None
    summary: list[SummaryText] | None = Field(None, description="Not used")
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = Field(None, description="What an answer of this server had there")
    status: Status | None = None

    @property
    def text(self) -> str:
        """What the model thought."""
        if self.content:
            return "".join(part.text for part in self.content)
        return _unsealed(self.encrypted_content or "")


class ServerItem(BaseModel):
    """What a tool of a different server did in an earlier answer: skipped."""

    model_config = ConfigDict(extra="allow")
    type: Name


# Items of earlier answers that hold no word of the conversation.
_SERVER_ITEMS = frozenset(
    (
        *("web_search_call", "file_search_call", "image_generation_call", "code_interpreter_call"),
        *("tool_search_call", "tool_search_output", "mcp_list_tools", "mcp_call", "ghost_snapshot"),
    )
)


def _kind(item: Any) -> str | None:
    """The type of an item; messages may leave it out."""
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)
    if not isinstance(kind, str):
        return None
    if kind in _SERVER_ITEMS:
        return "server"
    return "function_call_output" if kind == "custom_tool_call_output" else kind


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ServerItem, Tag("server")],
    Discriminator(_kind),
]


class ResponseTool(Wire):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema")
    strict: bool | None = None
    defer_loading: bool | None = Field(None, description="Not used: the model is told of all functions")


class ServerTool(BaseModel):
    """A tool of a different kind, which servers run or which is called with plain text: the model is not told of it."""

    model_config = ConfigDict(extra="allow")
    type: Name


def _tool_kind(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return "server" if isinstance(kind, str) and kind != "function" else "function"


ResponseTools = Annotated[
    list[
        Annotated[
            Annotated[ResponseTool, Tag("function")] | Annotated[ServerTool, Tag("server")], Discriminator(_tool_kind)
        ]
    ],
    Field(max_length=128),
]


class ChosenFunctionTool(Wire):
    """The tool that the model has to call."""

    type: Literal["function"]
    name: ToolName


class PlainTextFormat(Wire):
    """Any text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaTextFormat(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    name: ToolName
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextOptions(Wire):
    """The form of the text."""

    format: Annotated[PlainTextFormat | SchemaTextFormat, Field(discriminator="type")] | None = None
    verbosity: Verbosity | None = Field(None, description="Not used: the models know no verbosity")


class ReasoningOptions(Wire):
    """How much to think."""

    effort: Effort | None = Field(None, description="Left out for models that know none")
    summary: Literal["auto", "concise", "detailed", "none"] | None = Field(None, description="Not used: none is made")
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(None, description="Not used")
    context: Name | None = Field(None, description="Not used")


# What answers may hold besides their texts; what is not made here is never there.
Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
    "file_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
]


class ResponsesRequest(Body):
    """A conversation to answer, as items."""

    model: str | None = Field(None, description="Default: the first model")
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = Field(None, description="What the model is told first")
    max_output_tokens: MaxTokens | None = None
    max_tool_calls: Annotated[Integer, Field(ge=1)] | None = Field(None, description="Not used: no tool runs here")
    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = Field(None, description="Default: the model's")
    top_p: Annotated[Finite, Field(ge=0, le=1)] | None = Field(None, description="Default: the model's")
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = None
    include: Annotated[list[Include], Field(max_length=32)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    text: TextOptions | None = None
    tools: ResponseTools | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunctionTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    store: Literal[False] | None = Field(None, description="Nothing is stored")
    background: Literal[False] | None = None
    truncation: Literal["auto", "disabled"] | None = Field(None, description="Nothing is cut off")
    service_tier: ServiceTier | None = Field(None, description="There is one")
    client_metadata: dict[str, Any] | None = Field(None, description="Not used")
    prompt_cache_retention: CacheRetention | None = Field(None, description="Not used")
    metadata: Metadata | None = Field(None, description="Comes back in the response")
    user: str | None = Field(None, description="Not used")
    safety_identifier: str | None = Field(None, description="Not used")
    prompt_cache_key: str | None = Field(None, description="Not used: common beginnings are found without it")


def messages_of(body: ResponsesRequest) -> list[dict[str, Any]]:
    """The items as messages of a chat."""
    found: list[dict[str, Any]] = []
    if body.instructions is not None:
        found.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*found, {"role": "user", "content": body.input}]
    for item in body.input:
        if isinstance(item, InputMessage):
            _add_message(found, item)
        elif isinstance(item, FunctionCallItem):
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            _assistant(found).setdefault("tool_calls", []).append(call)
        elif isinstance(item, CustomCallItem):
            function = {"name": item.name, "arguments": json.dumps({"input": item.input}, ensure_ascii=False)}
            call = {"id": item.call_id, "type": "function", "function": function}
            _assistant(found).setdefault("tool_calls", []).append(call)
        elif isinstance(item, FunctionOutputItem):
            found.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        elif isinstance(item, ReasoningItem) and item.text:
            _assistant(found, new=True)["reasoning_content"] = item.text
    return found


def seal(reasoning: str) -> str:
    """The `encrypted_content` of a reasoning."""
    return _SEALED + base64.b64encode(reasoning.encode()).decode()


def _unsealed(text: str) -> str:
    """What was sealed here; empty for anything else."""
    if not text.startswith(_SEALED):
        return ""
    try:
        return base64.b64decode(text[len(_SEALED) :], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _add_message(found: list[dict[str, Any]], item: InputMessage) -> None:
    role = "system" if item.role == "developer" else item.role
    if role == "assistant" and found and found[-1]["role"] == "assistant" and "tool_calls" not in found[-1]:
        found[-1]["content"] = (found[-1].get("content") or "") + _text(item.content)
    else:
        found.append({"role": role, "content": _text(item.content)})


def _assistant(found: list[dict[str, Any]], *, new: bool = False) -> dict[str, Any]:
    """The answer that an item belongs to: the items of one answer follow each other."""
    if new or not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": None})
    return found[-1]


def _text(content: str | Parts) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def tools_of(body: ResponsesRequest) -> list[dict[str, Any]] | None:
    """The tools as those of a chat, without those of other servers."""
    left_out = {"type", "defer_loading"}
    return [
        {"type": "function", "function": tool.model_dump(exclude=left_out, exclude_none=True)}
        for tool in body.tools or ()
        if isinstance(tool, ResponseTool)
    ] or None


def skipped_of(body: ResponsesRequest) -> list[str]:
    """The kinds of the tools that the model is not told of, and of their traces in earlier answers."""
    tools = [tool.type for tool in body.tools or () if isinstance(tool, ServerTool)]
    items = () if isinstance(body.input, str) else body.input
    return tools + [item.type for item in items if isinstance(item, ServerItem)]


def format_of(body: ResponsesRequest) -> dict[str, Any] | None:
    """The form of the text as that of a chat."""
    form = None if body.text is None else body.text.format
    if form is None:
        return None
    if isinstance(form, SchemaTextFormat):
        schema = form.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
        return {"type": "json_schema", "json_schema": schema}
    return {"type": form.type}
