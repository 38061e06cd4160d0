"""The request of /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fastllm.server.wire.chat import Effort, Metadata, ToolName
from fastllm.server.wire.common import Body, Finite, Integer, Name, StreamOptions, Wire

__all__ = ["ResponsesRequest", "format_of", "messages_of", "tools_of"]


class InputText(Wire):
    """Text of a user, or of an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = Field(None, max_length=0)
    logprobs: list[Any] | None = Field(None, description="Not used")


class InputMessage(Wire):
    """A message; also an output item of an earlier answer."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText]
    id: Name | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: None = None


class FunctionCallItem(Wire):
    """A tool call of an earlier answer."""

    type: Literal["function_call"]
    call_id: Name
    name: ToolName
    arguments: str = Field(description="JSON")
    id: Name | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    namespace: None = None
    caller: None = None


class FunctionOutputItem(Wire):
    """What a tool returned."""

    type: Literal["function_call_output"]
    call_id: Name
    output: str | list[InputText]
    id: Name | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class ReasoningText(Wire):
    """Text of a reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Wire):
    """The reasoning of an earlier answer."""

    type: Literal["reasoning"]
    id: Name | None = None
    summary: Annotated[list[Any], Field(max_length=0)] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


def _kind(item: Any) -> str | None:
    """The type of an item; messages may leave it out."""
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)
    return kind if isinstance(kind, str) else None


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
]


class ResponseTool(Wire):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema")
    strict: bool | None = None


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


class ReasoningOptions(Wire):
    """How much to think."""

    effort: Effort | None = None
    summary: None = None


class ResponsesRequest(Body):
    """A conversation to answer, as items."""

    model: str | None = Field(None, description="Default: the first model")
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = Field(None, description="What the model is told first")
    max_output_tokens: Annotated[Integer, Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = Field(None, description="Default: 1")
    top_p: Annotated[Finite, Field(ge=0, le=1)] | None = Field(None, description="Default: 1")
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = Field(None, max_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    text: TextOptions | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunctionTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    store: Literal[False] | None = Field(None, description="Nothing is stored")
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = Field(None, description="Nothing is cut off")
    service_tier: Literal["auto", "default"] | None = Field(None, description="There is one")
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
        elif isinstance(item, FunctionOutputItem):
            found.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        else:
            _assistant(found, new=True)["reasoning_content"] = "".join(part.text for part in item.content or ())
    return found


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


def _text(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def tools_of(body: ResponsesRequest) -> list[dict[str, Any]] | None:
    """The tools as those of a chat."""
    if not body.tools:
        return None
    return [
        {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)} for tool in body.tools
    ]


def format_of(body: ResponsesRequest) -> dict[str, Any] | None:
    """The form of the text as that of a chat."""
    form = None if body.text is None else body.text.format
    if form is None:
        return None
    if isinstance(form, SchemaTextFormat):
        schema = form.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
        return {"type": "json_schema", "json_schema": schema}
    return {"type": form.type}
