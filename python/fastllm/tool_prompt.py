"""How tools, calls and results reach the model: through the chat template, or in a generic format of our own.

Templates differ in what they write. Small conversations are rendered once per template to find out; what it does not
write is put into messages that it does write. Nothing that was given is left out silently.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastllm import _native
from fastllm.errors import ParameterError, TemplateError

if TYPE_CHECKING:
    from fastllm.chat import ChatTemplate, Message

__all__ = ["GENERIC", "instruction", "open_reply", "write_prompt"]

GENERIC = "generic"
_REPLY = "<reply>\n"
T = TypeVar("T")
Normalise = Callable[["ChatTemplate", Sequence["Message"]], list[Any]]
Tools = list[dict[str, Any]]


def instruction(tools: Iterable[Mapping[str, Any]]) -> str:
    """What a model is told of its tools where the template has no words for it."""
    listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    return (
        "To answer without a tool:\n<reply>\nI am happy to help.\n</reply>\n"
        f"You can call these tools:\n{listed}\n"
        "To call a tool, answer with its name and arguments as JSON:\n"
        '<tool_call>\n{"name": "tool name", "arguments": {"argument": "value"}}\n</tool_call>'
    )


def write_prompt(  # noqa: PLR0917 - the parts of one prompt
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Tools | None,
    tool_format: str | None,
    normalise: Normalise,
    write: Callable[[list[Any], Tools | None], tuple[str, T]],
    *,
    continued: bool,
) -> tuple[str, T, str | None]:
    """Writes a conversation and its tools in the way that the template supports.

    Args:
        template: The template.
        messages: The conversation.
        tools: What the model may call, as templates see it; None: nothing.
        tool_format: The name of a format; None: what the template teaches, or the generic format.
        normalise: Adapts messages to a template.
        write: Renders messages and tools; the text, and whatever belongs to it.
        continued: Whether the last message is continued.

    Returns:
        What `write` returned, and the format of the answer; None: as the template tells.

    Raises:
        ParameterError: The tools cannot reach the model.
    """
    support = _calls_of(template, normalise)
    if not tools:
        return (*write(_as_text(template, messages, support.format), None), tool_format)
    _native.read_calls(GENERIC, tools, "")  # refuses declarations that are none
    if tool_format not in (None, GENERIC):
        text, rest = write(_as_text(template, messages, tool_format), tools)
        if not _all_named(tools, text):
            raise ParameterError(
                f"tool_format = {tool_format!r}: the chat template of this model does not write tools. Leave "
                "tool_format out to use the generic format, or describe the tools in a message"
            )
        return text, rest, tool_format
    if tool_format is None and support.format != "plain" and template.support.tools:
        text, rest = write(_as_text(template, messages, support.format), tools)
        if _all_named(tools, text):
            return text, rest, support.format
    if support.frame:
        raise ParameterError(
            f"tools: the chat template of this model writes {support.frame!r} before each answer and its format of "
            "calls is not known. Name the format as tool_format, or give another chat_template"
        )
    plain = _generic(messages, continued)
    for system in (True, False) if template.support.system else (False,):
        text, rest = write(_instructed(plain, instruction(tools), system), None)
        if _all_named(tools, text):
            return text, rest, GENERIC
    raise ParameterError(
        "tools: the chat template of this model writes neither tools nor the messages that could describe them"
    )


def _all_named(tools: Tools, text: str) -> bool:
    """Whether the names of all tools occur in a text."""
    names = [str(tool.get("function", tool).get("name")) for tool in tools]
    return all(name in text or json.dumps(name)[1:-1] in text for name in names)


# What a template supports


@dataclass(frozen=True)
class _Calls:
    """How a template writes calls and answers."""

    format: str  # of its calls; "plain": none that is known
    frame: str  # what it writes between the prompt and the text of an answer


_QUESTION = {"role": "user", "content": "probe question"}
_SCHEMA = {"type": "object", "properties": {"probe_key": {"type": "string", "description": "d"}}, "required": []}


def _probe_tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": _SCHEMA}}


@functools.lru_cache(maxsize=32)
def _calls_of(template: ChatTemplate, normalise: Normalise) -> _Calls:
    """Found out by rendering small conversations."""

    def render(messages: list[Any], name: str | None = None, *, is_open: bool = False) -> str:
        tools = None if name is None else [_probe_tool(name)]
        try:
            return template.render(normalise(template, messages), tools=tools, add_generation_prompt=is_open)
        except TemplateError:
            return ""

    # The id is of the kind that one family writes the name in.
    call = {"id": "functions.probe_tool:0", "type": "function"}
    call["function"] = {"name": "probe_tool", "arguments": json.dumps({"probe_key": "probe value"})}  # type: ignore[assignment]
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "name": "probe_tool", "content": "probe result"}
    answered = render([_QUESTION, {"role": "assistant", "content": "probe answer"}])
    format_ = _native.detect_tool_format(template.source)
    if template.support.calls and format_ != "plain":
        begun = [render([_QUESTION], "declared", is_open=is_open) for is_open in (True, False)]
        written = render([_QUESTION, called], "declared") or render([_QUESTION, called, result], "declared")
        if not _reads_back(format_, written, begun, answered):
            format_ = "plain"
    return _Calls(format_, _frame(render([_QUESTION]), render([_QUESTION], is_open=True), answered))


def _reads_back(format_: str, text: str, begun: list[str], answered: str) -> bool:
    """Whether a format parses the call that a template has rendered, after one of the prompts or anywhere.

    Tags that remain in the content, and that the template does not write around every answer, belong to a different
    format: the format would leave them in the content of each answer.
    """
    answers = [text[len(prompt) :] for prompt in begun if prompt and text.startswith(prompt)]
    answer = text.rsplit("probe question", 1)[-1]
    answers += [answer, *(answer[answer.find(bare) :] for bare in "{[" if bare in answer)]
    for answer in answers:
        calls, content = _native.read_calls(format_, [_probe_tool("probe_tool")], answer)
        if [(name, json.loads(given)) for name, given in calls] != [("probe_tool", {"probe_key": "probe value"})]:
            continue
        content = content.split("probe result", 1)[0]
        if all(tag in answered for tag in re.findall(r"</?[\w:]+[^<>\s]*>", content)):
            return True
    return False


def _frame(closed: str, opened: str, answered: str) -> str:
    """What stands between the prompt and the text of an answer, besides empty reasoning."""
    if opened == closed or not answered.startswith(opened):
        return ""  # it opens no turn, or opens reasoning
    between = answered[len(opened) :].split("probe answer", 1)[0]
    for marker in ("<think>", "</think>"):
        between = between.replace(marker, "")
    return between.strip()


# Messages


def _as_text(template: ChatTemplate, messages: Sequence[Message], format_: str | None) -> list[Any]:
    """The messages, in which the calls and results that the template would leave out are text."""
    calls, results = not template.support.calls, not template.support.results
    return _rewritten(messages, _writer(format_), calls=calls, results=results) if calls or results else list(messages)


def _generic(messages: Sequence[Message], continued: bool) -> list[Any]:
    """The messages in the generic format."""
    out = _rewritten(messages, _tagged, calls=True, results=True, reply=True)
    if continued:
        out[-1] = {**messages[-1], "content": _around(_REPLY, messages[-1].get("content"), "")}
    return out


def open_reply(message: Message) -> Message:
    """A message that is continued in the generic format, without the marker before its text."""
    content = message.get("content")
    return {**message, "content": content.removeprefix(_REPLY)} if isinstance(content, str) else message


def _rewritten(
    messages: Sequence[Message],
    writer: Callable[[list[Any]], str],
    *,
    calls: bool,
    results: bool,
    reply: bool = False,
) -> list[Any]:
    out: list[Any] = []
    order: list[Any] = []
    joins = False  # whether the last message is made of results
    for message in messages:
        if not isinstance(message, Mapping):
            out.append(message)
            continue
        role = message.get("role")
        if role == "assistant":
            order = [call.get("id") for call in message.get("tool_calls") or () if isinstance(call, Mapping)]
            message = _assistant(message, writer, calls=calls, reply=reply)  # noqa: PLW2901
        if results and role == "tool":
            part = _around("<tool_response>\n", message.get("content"), "\n</tool_response>")
            place = message.get("tool_call_id")
            if joins:
                out[-1]["parts"].append((place, part))
            else:
                out.append({"role": "user", "parts": [(place, part)]})
            joins = True
            continue
        if joins:
            _close(out, order)
            if role == "user":
                # Some templates take no two messages of the user in a row.
                out[-1]["content"] = _joined(out[-1]["content"], message.get("content"), "\n\n")
                joins = False
                continue
        joins = False
        out.append(dict(message))
    if joins:
        _close(out, order)
    return out


def _close(out: list[Any], order: list[Any]) -> None:
    """Makes a message of the results, in the order of their calls."""
    parts = out[-1].pop("parts")
    parts.sort(key=lambda part: order.index(part[0]) if part[0] in order else len(order))
    content: Any = parts[0][1]
    for _, part in parts[1:]:
        content = _joined(content, part, "\n")
    out[-1]["content"] = content


def _assistant(message: Message, writer: Callable[[list[Any]], str], *, calls: bool, reply: bool) -> dict[str, Any]:
    out = dict(message)
    content = out.get("content")
    if reply and out.get("tool_calls") and not content:
        # A small model begins as it did before: after a bare call it would call for ever.
        content = "Let me see."
    if reply and content:
        content = _around(_REPLY, content, "\n</reply>")
    if calls and out.get("tool_calls"):
        text = writer(list(out.pop("tool_calls")))
        content = _joined(content, text, "\n") if content else text
    if content is not out.get("content"):
        out["content"] = content
    return out


def _instructed(messages: list[Any], text: str, system: bool) -> list[Any]:
    """The messages with an instruction, in the system message or in front of the first message of the user."""
    role = "system" if system else "user"
    first = next((n for n, message in enumerate(messages) if _role(message) == role), None)
    if system and (first is None or first > 0):
        return [{"role": "system", "content": text}, *messages]
    if first is None:
        return [{"role": "user", "content": text}, *messages]
    message = dict(messages[first])
    content = message.get("content")
    message["content"] = _joined(content, text, "\n\n") if system else _joined(text, content, "\n\n")
    return [*messages[:first], message, *messages[first + 1 :]]


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _around(before: str, content: Any, after: str) -> Any:
    return _joined(_joined(before, content, ""), after, "")


def _joined(first: Any, second: Any, between: str) -> Any:
    """Two contents, texts or lists of parts, as one."""
    if not first or not second:
        return first or second or ""
    if isinstance(first, str) and isinstance(second, str):
        return first + between + second
    parts = [[{"type": "text", "text": part}] if isinstance(part, str) else list(part) for part in (first, second)]
    return [*parts[0], *([{"type": "text", "text": between}] if between else ()), *parts[1]]


# Calls as text


def _function(call: Any) -> tuple[str, str]:
    """Name and arguments of a call, as JSON text; arguments that are no JSON are a string."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    function = function if isinstance(function, Mapping) else {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        text = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    elif _parsed(arguments) is None:
        text = json.dumps(arguments, ensure_ascii=False) if arguments.strip() else "{}"
    else:
        text = arguments.strip()
    return str(function.get("name")), text


def _parsed(text: str) -> Any:
    """The value of a JSON text; None where it is none, or too deep."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(call: Any) -> str:
    name, arguments = _function(call)
    return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'


def _tagged(calls: list[Any]) -> str:
    return "".join(f"<tool_call>\n{_object(call)}\n</tool_call>" for call in calls)


def _granite(calls: list[Any]) -> str:
    return f"<|tool_call|>[{', '.join(_object(call) for call in calls)}]"


def _pythonic(calls: list[Any]) -> str:
    def written(call: Any) -> str:
        name, text = _function(call)
        arguments = _parsed(text)
        if not isinstance(arguments, dict):
            return f"{name}({text})"
        try:
            return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        except RecursionError:
            return f"{name}({text})"

    return f"[{', '.join(written(call) for call in calls)}]"


def _writer(format_: str | None) -> Callable[[list[Any]], str]:
    return {"granite": _granite, "pythonic": _pythonic}.get(format_ or "", _tagged)
