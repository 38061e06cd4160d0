"""The request of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fastllm.server.wire.common import Finite, Integer, Name, StreamOptions, Wire
from fastllm.server.wire.compat import CacheControl, Compatible, MaxTokens

__all__ = [
    "ChatCompletionRequest",
    "FunctionTool",
    "Message",
    "ResponseFormat",
    "ToolChoice",
    "format_of",
    "messages_of",
    "tools_of",
]

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Budget = Annotated[Integer, Field(ge=0, lt=2**31)]
Verbosity = Literal["low", "medium", "high"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority"]
CacheRetention = Literal["in_memory", "in-memory", "24h"]
_CACHED = "Not used: every shared prefix is found without it"
Empty = Annotated[list[Any], Field(max_length=0)]


class TextPart(Wire):
    """A part of a message; the only kind there is."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = Field(None, description=_CACHED)


Content = str | list[TextPart]


class CachedMessage(Wire):
    """What all messages have."""

    cache_control: CacheControl | None = Field(None, description=_CACHED)


class SystemMessage(CachedMessage):
    """What the model is told first. "developer" is the same as "system"."""

    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserMessage(CachedMessage):
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


class AssistantMessage(CachedMessage):
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


class ToolMessage(CachedMessage):
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
    cache_control: CacheControl | None = Field(None, description=_CACHED)


class ChosenFunction(Wire):
    """The name of a function."""

    name: ToolName


class ChosenTool(Wire):
    """The tool that the model has to call."""

    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | ChosenTool


class PlainFormat(Wire):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Wire):
    """Any JSON object, or one that follows a schema."""

    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="A JSON Schema (llama.cpp)")


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


ResponseFormat = Annotated[PlainFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class Prediction(Wire):
    """Text that may be part of the answer."""

    type: Literal["content"]
    content: Content


class ChatCompletionRequest(Compatible):
    """A conversation to answer."""

    model: str | None = Field(None, description="Default: the first model")
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: MaxTokens | None = Field(None, description="Default: until the model ends its answer")
    max_completion_tokens: MaxTokens | None = Field(None, description="As max_tokens")
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
    thinking_token_budget: Budget | None = Field(None, description="As reasoning_budget (vLLM)")
    include_reasoning: Literal[True] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=64)] | None = Field(
        None, description="Further variables of the chat template"
    )
    continue_final_message: bool | None = Field(
        None, description="Whether a last message of the assistant is continued, or a new answer follows it"
    )
    add_generation_prompt: bool | None = Field(None, description="The opposite of continue_final_message")
    user: str | None = Field(None, description="Not used")
    safety_identifier: str | None = Field(None, description="Not used")
    prompt_cache_key: str | None = Field(None, description="Not used: common beginnings are found without it")
    metadata: Metadata | None = Field(None, description="Not used, as nothing is stored")
    prompt_cache_retention: CacheRetention | None = Field(None, description="Not used")
    verbosity: Verbosity | None = Field(None, description="Not used: the models know no verbosity")
    prediction: Prediction | None = Field(None, description="Not used: repeated text is predicted without it")
    echo: Literal[False] | None = None
    add_special_tokens: Literal[False] | None = Field(None, description="The template writes them")
    store: Literal[False] | None = Field(None, description="Nothing is stored")
    service_tier: ServiceTier | None = Field(None, description="There is one")
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = Field(None, description="Default: the model's")


def messages_of(messages: list[Any]) -> list[dict[str, Any]]:
    """Messages as templates know them: contents are text, developers are the system."""
    found = []
    for message in messages:
        item = message.model_dump(exclude_none=True, exclude={"cache_control"})
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


def tools_of(tools: list[FunctionTool] | None) -> list[dict[str, Any]] | None:
    """The tools as the library takes them."""
    return None if not tools else [tool.model_dump(exclude_none=True, exclude={"cache_control"}) for tool in tools]


def format_of(form: PlainFormat | ObjectFormat | SchemaFormat | None) -> dict[str, Any] | None:
    """The form of the answer as the library takes it."""
    if form is None:
        return None
    if isinstance(form, ObjectFormat) and form.schema_ is not None:
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.schema_}}
    return form.model_dump(exclude_none=True, by_alias=True)
