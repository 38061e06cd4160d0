"""The request of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fastllm.server.wire.common import Finite, Integer, Name, Sampling, StreamOptions, Wire

__all__ = ["ChatCompletionRequest", "FunctionTool", "Message", "ResponseFormat", "ToolChoice", "messages_of"]

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Budget = Annotated[Integer, Field(ge=0, lt=2**31)]
Empty = Annotated[list[Any], Field(max_length=0)]


class TextPart(Wire):
    """A part of a message; the only kind there is."""

    type: Literal["text"]
    text: str


Content = str | list[TextPart]


class SystemMessage(Wire):
    """What the model is told first. "developer" is the same as "system"."""

    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserMessage(Wire):
    """What the user said."""

    role: Literal["user"]
    content: Content
    name: Name | None = None


class FunctionCall(Wire):
    """The call of a function."""

    name: ToolName
    arguments: str = Field(description="JSON")


class ToolCall(Wire):
    """A tool call of an earlier answer."""

    id: Name
    type: Literal["function"]
    function: FunctionCall
    index: Integer | None = None


class AssistantMessage(Wire):
    """An earlier answer, also as it came from this server."""

    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=1024)] | None = None
    name: Name | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Empty | None = None


class ToolMessage(Wire):
    """What a tool returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Name
    name: Name | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDescription(Wire):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema")
    strict: bool | None = None


class FunctionTool(Wire):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionDescription


class ChosenFunction(Wire):
    """The name of a function."""

    name: ToolName


class ChosenTool(Wire):
    """The tool that the model has to call."""

    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | ChosenTool


class PlainFormat(Wire):
    """Any text, or any JSON object."""

    type: Literal["text", "json_object"]


class JsonSchema(Wire):
    """A JSON Schema with a name."""

    name: ToolName
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class SchemaFormat(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")]


class ChatCompletionRequest(Sampling):
    """A conversation to answer."""

    model: str | None = Field(None, description="Default: the first model")
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[Integer, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[Integer, Field(ge=1, lt=2**31)] | None = None
    n: Annotated[Integer, Field(ge=1, le=32)] | None = Field(None, description="Answers; default: 1")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    reasoning_budget: Budget | None = Field(None, description="Most tokens of reasoning")
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=64)] | None = Field(
        None, description="Further variables of the chat template"
    )
    user: str | None = Field(None, description="Not used")
    safety_identifier: str | None = Field(None, description="Not used")
    prompt_cache_key: str | None = Field(None, description="Not used: common beginnings are found without it")
    metadata: Metadata | None = Field(None, description="Not used, as nothing is stored")
    store: Literal[False] | None = Field(None, description="Nothing is stored")
    service_tier: Literal["auto", "default"] | None = Field(None, description="There is one")
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = Field(None, description="Default: 1")


def messages_of(messages: list[Any]) -> list[dict[str, Any]]:
    """Messages as templates know them: contents are text, developers are the system."""
    found = []
    for message in messages:
        item = message.model_dump(exclude_none=True)
        content = item.get("content")
        if isinstance(content, list):
            item["content"] = "".join(part["text"] for part in content)
        elif content is None:
            item["content"] = None if item.get("tool_calls") else ""
        if item["role"] == "developer":
            item["role"] = "system"
        item.pop("annotations", None)
        found.append(item)
    return found
