"""From messages, tools and options to a prompt, and to the parser of the answer."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastllm import _native
from fastllm.errors import FastLLMWarning, ParameterError, TemplateError
from fastllm.tools import Tool, ToolChoice, describe_tool

if TYPE_CHECKING:
    from fastllm.chat import ChatTemplate, Message
    from fastllm.options import SamplingParams
    from fastllm.tokenizer import Tokenizer

__all__ = ["ChatSettings", "Prepared", "normalise", "prepare"]


@dataclass(frozen=True)
class ChatSettings:
    """The keywords of `Model.chat` that make the prompt."""

    tools: Sequence[Tool] | None = None
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    tool_format: str | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A prompt, how its answer is made, and what reads it."""

    ids: list[int]
    params: SamplingParams
    parser: _native.OutputParser
    parallel: bool


def prepare(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    settings: ChatSettings,
    params: SamplingParams,
) -> Prepared:
    """Writes the prompt."""
    tools = None if settings.tools is None else [_declaration(tool) for tool in settings.tools]
    choice = _choice(settings.tool_choice, tools)
    if choice == "none" or not tools:
        # What is not shown is not called.
        tools = None
    variables = _variables(template, settings)
    text, ids = template._encode(tokenizer, normalise(template, messages), tools, variables)  # noqa: SLF001 - one package
    parser = _native.OutputParser(tokenizer._native, template.source, settings.tool_format, tools, text)  # noqa: SLF001
    if choice not in ("auto", "none"):
        params = require_call(parser, None if choice == "required" else choice[0], settings.parallel_tool_calls, params)
    return Prepared(ids, params, parser, bool(settings.parallel_tool_calls))


def require_call(
    parser: _native.OutputParser, name: str | None, parallel: bool, params: SamplingParams
) -> SamplingParams:
    """The options that make the model call the tool of this name, or any: its output follows a grammar."""
    grammar = parser.constraint(name, parallel)
    if grammar is None:
        raise ParameterError(f"tool_choice: the tool format {parser.format!r} has no calls that could be required")
    if params.constrained:
        raise ParameterError("tool_choice: a required call cannot be combined with another constraint on the output")
    return dataclasses.replace(params, grammar=grammar)


def _declaration(tool: Tool) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        return dict(tool)
    if callable(tool):
        return describe_tool(tool)
    raise TypeError(f"a tool must be a dict or a function, not {type(tool).__name__}")


def _choice(choice: ToolChoice, tools: list[dict[str, Any]] | None) -> str | tuple[str]:
    """What is chosen: a word, or the name of a tool in a tuple."""
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise ParameterError(f'tool_choice = {choice!r} is not allowed: "auto", "none", "required" or a function')
        if choice == "required" and not tools:
            raise ParameterError('tool_choice = "required" needs tools')
        return choice
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ParameterError('tool_choice must be a string, or {"type": "function", "function": {"name": ...}}')
    if name not in {tool.get("function", tool).get("name") for tool in tools or ()}:
        raise ParameterError(f"tool_choice: there is no tool {name!r}")
    return (name,)


def _variables(template: ChatTemplate, settings: ChatSettings) -> dict[str, Any]:
    """The variables of the template."""
    variables = dict(settings.variables)
    own = next((name for name in ("messages", "tools", "add_generation_prompt") if name in variables), None)
    if own is not None:
        raise ParameterError(f"chat_template_kwargs cannot have {own!r}: chat sets it itself")
    wanted = (
        ("enable_thinking", settings.enable_thinking, ("enable_thinking", "thinking")),
        ("reasoning_effort", settings.reasoning_effort, ("reasoning_effort",)),
    )
    for option, value, names in wanted:
        if value is None:
            continue
        name = next((name for name in names if name in template.variables), None)
        if name is None:
            raise ParameterError(f"{option}: the chat template of this model does not read it")
        if name in variables:
            raise ParameterError(f"{option}: chat_template_kwargs has {name!r} too")
        variables[name] = value
    return variables


# Messages as templates want them


@dataclass(frozen=True)
class _Style:
    """How a template wants its messages."""

    mapping: bool = True  # arguments of calls as a dict, and not as JSON text
    null: bool = False  # no content beside calls as None, and not as ""
    calls: bool = True  # it writes calls at all
    parts: bool = True  # content may be a list of parts
    short_ids: bool = False  # ids of calls have nine letters or digits
    thinking: bool = False  # reasoning is called "thinking"


def normalise(template: ChatTemplate, messages: Sequence[Message]) -> list[Any]:
    """The messages as the template wants them: calls, their arguments and ids, and parts of content differ."""
    out = list(messages)
    if not any(isinstance(message, Mapping) and _special(message) for message in out):
        return out
    style = _style(template)
    if not style.calls and any(isinstance(message, Mapping) and message.get("tool_calls") for message in out):
        text = "the chat template does not write the tool calls of earlier messages: the model does not see them"
        warnings.warn(text, FastLLMWarning, stacklevel=4)
    return [_message(message, style) if isinstance(message, Mapping) else message for message in out]


def _special(message: Message) -> bool:
    return (
        bool(message.get("tool_calls"))
        or message.get("role") == "tool"
        or "reasoning_content" in message
        or isinstance(message.get("content"), (list, tuple))
    )


def _message(message: Message, style: _Style) -> dict[str, Any]:
    out = dict(message)
    if isinstance(out.get("content"), (list, tuple)) and not style.parts:
        out["content"] = "".join(_text(part) for part in out["content"])
    if out.get("tool_calls"):
        out["tool_calls"] = [_call(call, style) for call in out["tool_calls"]]
        if not out.get("content"):
            out["content"] = None if style.null else ""
    if style.short_ids and isinstance(out.get("tool_call_id"), str):
        out["tool_call_id"] = _short(out["tool_call_id"])
    if style.thinking and out.get("reasoning_content") and "thinking" not in out:
        out["thinking"] = out.pop("reasoning_content")
        if out.get("tool_calls") and out.get("content"):
            # Beside a call, such templates have one place for both.
            out["thinking"] += "\n\n" + out["content"]
            out["content"] = ""
    return out


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise ParameterError(f"the chat template takes text only, not a part of type {kind!r}")


def _call(call: Any, style: _Style) -> Any:
    if not isinstance(call, Mapping):
        return call
    out = dict(call)
    if style.short_ids and isinstance(out.get("id"), str):
        out["id"] = _short(out["id"])
    function = out.get("function")
    if isinstance(function, Mapping) and "arguments" in function:
        out["function"] = {**function, "arguments": _arguments(function["arguments"], style)}
        out.setdefault("type", "function")
    elif "arguments" in out:
        out["arguments"] = _arguments(out["arguments"], style)
    return out


def _arguments(arguments: Any, style: _Style) -> Any:
    if isinstance(arguments, str) and style.mapping:
        try:
            parsed = json.loads(arguments) if arguments.strip() else {}
        except ValueError:
            return arguments
        return parsed if isinstance(parsed, dict) else arguments
    if isinstance(arguments, Mapping) and not style.mapping:
        return json.dumps(arguments, ensure_ascii=False)
    return arguments


def _short(id_: str) -> str:
    if re.fullmatch("[a-zA-Z0-9]{9}", id_):
        return id_
    return hashlib.sha256(id_.encode()).hexdigest()[:9]


@functools.lru_cache(maxsize=32)
def _style(template: ChatTemplate) -> _Style:
    """Found out by rendering small conversations: a template wants what it renders well."""
    source = template.source
    fixed = _Style(
        short_ids="length != 9" in source,
        thinking="message.thinking" in source and "reasoning_content" not in source,
        parts=_renders(template, [{"role": "user", "content": [{"type": "text", "text": "probe text"}]}], "probe text"),
    )
    options = [(True, False), (True, True), (False, False), (False, True)]
    for mapping, null in options:
        arguments: Any = {"probe_key": "probe value"}
        arguments = arguments if mapping else json.dumps(arguments)
        call = {"id": "probe0000", "type": "function", "function": {"name": "probe_call", "arguments": arguments}}
        messages = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": None if null else "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "probe0000", "name": "probe_call", "content": "result"},
        ]
        if _renders(template, messages, "probe_call", "probe value"):
            return _Style(mapping, null, True, fixed.parts, fixed.short_ids, fixed.thinking)
    return _Style(True, False, False, fixed.parts, fixed.short_ids, fixed.thinking)


def _renders(template: ChatTemplate, messages: list[Any], *wanted: str) -> bool:
    function = {"name": "declared", "description": "d", "parameters": {"type": "object", "properties": {}}}
    try:
        text = template.render(messages, tools=[{"type": "function", "function": function}], add_generation_prompt=True)
    except TemplateError:
        return False
    # JSON in JSON, and what Python prints, is not what the model was taught.
    spoilt = ('\\"probe', "'probe value'", "'type':", '"type": "text"')
    return all(word in text for word in wanted) and not any(word in text for word in spoilt)
