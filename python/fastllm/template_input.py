"""What a chat template is given: messages and tools in a shape that it can write, and whether they reach the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastllm.errors import ParameterError, TemplateError
from fastllm.tools import Tool, describe_tool

if TYPE_CHECKING:
    from fastllm.chat import ChatTemplate, Message

__all__ = ["adapt", "check_arrival", "continues", "declaration", "is_continuable", "text_of"]

_SYSTEM = ("system", "developer")
# Roles whose messages are the template's to shorten, or which every template writes.
_UNCHECKED = ("user", "assistant")
# Renders that a check may take.
_MAX_RENDERS = 8
# What is appended to a message to see whether the prompt changes: a character for private use.
_MARK = "\U000ffffd"


def declaration(tool: Tool) -> dict[str, Any]:
    """The description of a tool.

    Raises:
        TypeError: It is neither a dict nor a function.
    """
    if isinstance(tool, Mapping):
        return dict(tool)
    if callable(tool):
        return describe_tool(tool)
    raise TypeError(f"a tool must be a dict or a function, not {type(tool).__name__}")


def adapt(
    template: ChatTemplate, messages: Sequence[Any], tools: Sequence[dict[str, Any]] | None
) -> tuple[list[Any], list[dict[str, Any]] | None]:
    """Messages and tools that the template can write.

    System messages become part of a user message where the template has no place for them. Tools get an empty
    description and empty parameters where the template cannot do without.
    """
    return _merge_system(template, list(messages), tools), None if tools is None else _fill_tools(template, tools)


def text_of(content: Any) -> str:
    """The text of a message's content.

    Raises:
        ParameterError: It has a part that is not text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_text(part) for part in content)


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise ParameterError(f"the chat template takes text only, not a part of type {kind!r}")


# System messages


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _merge_system(template: ChatTemplate, messages: list[Any], tools: Sequence[Any] | None) -> list[Any]:
    places = [index for index, message in enumerate(messages) if _role(message) in _SYSTEM]
    if not places or (places == [0] and _role(messages[0]) == "system" and template.support.system):
        return messages
    if _writes(template, messages, tools, [messages[index] for index in places]):
        return messages
    merged: list[Any] = []
    pending: list[str] = []
    for message in messages:
        if _role(message) in _SYSTEM:
            text = text_of(message.get("content"))
            if template.support.system and not pending and all(_role(one) == "system" for one in merged):
                text = "\n\n".join([*(text_of(one["content"]) for one in merged), text])
                merged = [{"role": "system", "content": text}]
            else:
                pending.append(text)
        elif _role(message) == "user" and pending:
            merged.append(_prefixed(message, "\n\n".join(pending)))
            pending = []
        else:
            merged.append(message)
    if pending:
        merged += _appended(merged, "\n\n".join(pending))
    return merged


def _prefixed(message: Message, text: str) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        return {**message, "content": [{"type": "text", "text": f"{text}\n\n"}, *content]}
    return {**message, "content": f"{text}\n\n{content}" if content else text}


def _appended(merged: list[Any], text: str) -> list[Any]:
    """What to add to the messages for a system message at the end; changes the last one where it is the user's."""
    if merged and _role(merged[-1]) == "user":
        message = merged.pop()
        content = message.get("content")
        if isinstance(content, (list, tuple)):
            return [{**message, "content": [*content, {"type": "text", "text": f"\n\n{text}"}]}]
        return [{**message, "content": f"{content}\n\n{text}" if content else text}]
    return [{"role": "user", "content": text}]


def _writes(template: ChatTemplate, messages: list[Any], tools: Sequence[Any] | None, wanted: list[Any]) -> bool:
    """Whether a template takes these messages, and writes all that are wanted."""
    try:
        text = template._render(messages, tools)  # noqa: SLF001 - one package
    except TemplateError:
        return False
    return all(text_of(message.get("content")).strip() in text for message in wanted)


# Tools


def _fill_tools(template: ChatTemplate, tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    filled = [_filled(tool) for tool in tools]
    return list(tools) if filled == list(tools) or template._takes_bare_tools else filled  # noqa: SLF001 - one package


def _filled(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool with descriptions and parameters, empty where there are none."""
    function = tool.get("function", tool)
    parameters = (function.get("parameters") if isinstance(function, Mapping) else 0) or {}
    if not isinstance(function, Mapping) or not isinstance(parameters, Mapping):
        return tool
    properties = parameters.get("properties") or {}
    if not isinstance(properties, Mapping):
        return tool
    parameters = {"type": "object", **parameters}
    parameters["properties"] = {
        name: {**schema, "description": schema.get("description") or ""} if isinstance(schema, Mapping) else schema
        for name, schema in properties.items()
    }
    function = {**function, "description": function.get("description") or "", "parameters": parameters}
    return {**tool, "function": function} if "function" in tool else function


# The last message, and what arrives


def is_continuable(messages: Sequence[Any]) -> bool:
    """Whether the last message is one of the assistant with text and without calls."""
    last = messages[-1] if messages else {}
    return _role(last) == "assistant" and not last.get("tool_calls") and bool(last.get("content"))


def continues(messages: Sequence[Any], option: bool | None) -> bool:
    """Whether the last message is continued.

    Args:
        messages: The conversation.
        option: True: it is. False: a new answer follows it. None: it must not be the assistant's.

    Raises:
        ParameterError: There is no such message, or it was not said what to do with it.
    """
    last = messages[-1] if messages else None
    is_assistant = _role(last) == "assistant"
    if option is None and is_assistant:
        raise ParameterError(
            "the last message is the assistant's: continue_final_message = true continues it, false begins a new "
            "answer after it; or end with a message of the user or of a tool"
        )
    if not option:
        return False
    if last is None or not is_assistant:
        raise ParameterError("continue_final_message: the last message must be the assistant's")
    if last.get("tool_calls"):
        raise ParameterError("continue_final_message: the last message has tool calls, and cannot be continued")
    return True


def check_arrival(
    template: ChatTemplate,
    messages: Sequence[Any],
    tools: Sequence[Any] | None,
    variables: Mapping[str, Any],
    text: str,
) -> None:
    """Refuses a message that the template drops.

    Args:
        template: The template.
        messages: What it was given.
        tools: The same.
        variables: The same.
        text: What it made of that.

    Raises:
        ParameterError: A message other than the user's and the assistant's does not change the prompt.
    """
    at = renders = 0
    for index, message in enumerate(messages):
        role = _role(message)
        if role in _UNCHECKED or not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            continue
        content = message["content"].strip()
        found = text.find(content, at) if content else at
        if found >= 0:
            at = found
            continue
        if content in text or renders == _MAX_RENDERS:
            continue
        renders += 1
        marked = [*messages[:index], {**message, "content": f"{message['content']}{_MARK}"}, *messages[index + 1 :]]
        given = {"now": datetime.now(), **variables}  # noqa: DTZ005 - templates write the local date
        try:
            dropped = template._render(messages, tools, **given) == template._render(marked, tools, **given)  # noqa: SLF001
        except TemplateError:
            dropped = False
        if dropped:
            raise ParameterError(
                f"messages[{index}]: the chat template of this model does not write messages with the role {role!r}"
            )
