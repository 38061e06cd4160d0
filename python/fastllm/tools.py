"""Tools: their descriptions, and the calls that a model makes."""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

__all__ = ["Tool", "ToolCall", "ToolCallDelta", "ToolChoice", "describe_tool"]

Tool = Mapping[str, Any] | Callable[..., Any]
ToolChoice = Literal["auto", "none", "required"] | Mapping[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """A call that the model made.

    Attributes:
        id: Names the call, for the message with its result.
        name: The tool. Models may call tools that were not declared.
        arguments: The text of a JSON object.
    """

    id: str
    name: str
    arguments: str

    def parse(self) -> dict[str, Any]:
        """The arguments."""
        arguments: dict[str, Any] = json.loads(self.arguments)
        return arguments

    @property
    def message(self) -> dict[str, Any]:
        """The call as an entry of "tool_calls" in a message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of a call.

    Attributes:
        index: Which call of the answer, counted from 0.
        id: In its first part: names the call.
        name: In its first part: the tool.
        arguments: The next part of the text of a JSON object.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


def describe_tool(function: Callable[..., Any]) -> dict[str, Any]:
    """The description of a Python function as a tool, in the form of the OpenAI interface.

    The signature gives names and types of the arguments, the docstring what the function does (all up to the first
    section) and, in the "Args:" section of Google's style, what each argument means. A string in `Annotated` does so
    too.

    Args:
        function: Its arguments may be str, int, float, bool, None, `Literal`, enumerations of these, and lists, dicts
            and unions of them.

    Raises:
        TypeError: A type has no JSON schema, or an argument can only be given by position.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    text, about = _docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        where = f"{function.__name__}() cannot be a tool: {parameter.name!r}"
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{where} cannot be given by its name")
        schema = _schema(hints.get(parameter.name, Any), where)
        if parameter.name in about:
            schema["description"] = about[parameter.name]
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": function.__name__, "description": text, "parameters": parameters}}


_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        schema = _schema(arguments[0], where)
        texts = [text for text in arguments[1:] if isinstance(text, str)]
        return {**schema, "description": texts[0]} if texts else schema
    if hint is Any or hint in _TYPES:
        return {} if hint is Any else {"type": _TYPES[hint]}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _values([member.value for member in hint], where)
    if origin is Literal:
        return _values(list(arguments), where)
    if origin is Union or origin is types.UnionType:
        options = [_schema(option, where) for option in arguments]
        plain = all(set(option) == {"type"} for option in options)
        return {"type": [option["type"] for option in options]} if plain else {"anyOf": options}
    return _container(hint, origin or hint, arguments, where)


def _container(hint: Any, base: Any, arguments: tuple[Any, ...], where: str) -> dict[str, Any]:
    if base in (list, set, Sequence) and len(arguments) <= 1:
        return {"type": "array", "items": _schema(arguments[0], where) if arguments else {}}
    if base in (dict, Mapping) and (not arguments or arguments[0] is str):
        extra = {"additionalProperties": _schema(arguments[1], where)} if arguments else {}
        return {"type": "object", **extra}
    raise TypeError(f"{where} has the type {hint!r}, which has no JSON schema here: describe the tool by a dict")


def _values(values: list[Any], where: str) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    if not kinds <= set(_TYPES):
        raise TypeError(f"{where} has values that have no JSON form")
    kind = {"type": _TYPES[kinds.pop()]} if len(kinds) == 1 else {}
    return {**kind, "enum": values}


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """What comes before the first section, and what the section "Args:" says of each argument."""
    parts = re.split(
        r"^(Args|Arguments|Returns|Yields|Raises|Examples?|Notes?|Attributes):[ \t]*$", text, flags=re.MULTILINE
    )
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    about: dict[str, str] = {}
    lines = inspect.cleandoc("\n" + (sections.get("Args") or sections.get("Arguments") or "")).splitlines()
    name = None
    for line in lines:
        entry = re.match(r"(\w+)\s*(?:\([^)]*\))?:\s*(.*)", line)
        if entry:
            name = entry[1]
            about[name] = entry[2]
        elif name is not None and line.strip():
            about[name] = f"{about[name]} {line.strip()}".strip()
    return " ".join(parts[0].split()), about
