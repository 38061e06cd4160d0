"""From messages, tools and options to a prompt, and to the parser of the answer."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastllm import _native
from fastllm.chat_options import ChatSettings
from fastllm.errors import ParameterError, TemplateError
from fastllm.template_input import adapt, check_arrival, continues, declaration, text_of
from fastllm.tool_prompt import GENERIC, open_reply, write_prompt
from fastllm.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from fastllm.chat import ChatTemplate, Message
    from fastllm.options import SamplingParams
    from fastllm.tokenizer import Tokenizer

__all__ = ["THINKING", "Prepared", "normalise", "prepare", "render", "shown"]


# What templates call the variable that says whether to reason.
THINKING = ("enable_thinking", "thinking")
# Ids, what of them the prompt has of the answer, and what the template was given: messages and tools.
_Written = tuple[list[int], str, list[Any], list[dict[str, Any]] | None]


@dataclass(frozen=True)
class Prepared:
    """A prompt, how its answer is made, and what reads it."""

    ids: list[int]
    params: SamplingParams
    parser: _native.OutputParser
    parallel: bool
    choice: str | tuple[str]
    reasons: bool
    budget: int | None
    # Whether the answer follows a grammar.
    constrained: bool
    # What the prompt has of the answer, and which parts of it the parser holds back: content and reasoning.
    begun: str = ""
    held: tuple[str, str] = ("", "")

    def grammar(self, grammars: _native.Grammars) -> _native.Grammar | None:
        """What the answer must follow, compiled."""
        if not self.constrained:
            return None
        form = self.params._grammar(grammars)  # noqa: SLF001 - one package
        made = self.parser.grammar(grammars, *_chosen(self.choice), self.parallel, self.reasons, form, self.budget)
        return made.begun(self.begun) if made is not None and self.begun else made


def prepare(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    settings: ChatSettings,
    params: SamplingParams,
) -> Prepared:
    """Writes the prompt."""
    budget = _budget(settings.reasoning_budget)
    tools = None if settings.tools is None else [declaration(tool) for tool in settings.tools]
    choice = _choice(settings.tool_choice, tools)
    if choice == "none" or not tools:
        # What is not shown is not called.
        tools, choice = None, "auto"
    variables = _variables(template, settings)
    declared = None if tools is None else [shown(tool) for tool in tools]
    continued = continues(messages, settings.continue_final_message)
    if continued and not _is_begun(messages[-1]):
        # An answer of which nothing is written yet.
        messages, continued = messages[:-1], False

    def write(messages: list[Any], declared: list[dict[str, Any]] | None) -> tuple[str, _Written]:
        given, declared = adapt(template, normalise(template, messages), declared)
        if continued:
            given[-1] = {**given[-1], "content": text_of(given[-1].get("content"))}
        text, ids, begun = template._encode(tokenizer, given, declared, variables, continued=continued)  # noqa: SLF001 - one package
        return text, (ids, begun, given, declared)

    text, (ids, begun, given, declared), format_ = write_prompt(
        template, messages, declared, settings.tool_format, normalise, write, continued=continued
    )
    check_arrival(template, given, declared, variables, text)
    before = text.removesuffix(begun)
    parser = _native.OutputParser(tokenizer._native, template.source, format_, tools, before)  # noqa: SLF001
    held = ("", "")
    if begun:
        held = _held(parser, begun, open_reply(given[-1]) if tools and format_ == GENERIC else given[-1])
    parallel = bool(settings.parallel_tool_calls)
    # A model that is told not to reason is not led into it where only few tokens are allowed.
    reasons = not any(variables.get(name) is False for name in THINKING)
    constrained = parser.constrained(*_chosen(choice), parallel, reasons, params.constrained, budget is not None)
    return Prepared(ids, params, parser, parallel, choice, reasons, budget, constrained, begun, held)


def _is_begun(message: Message) -> bool:
    return bool(message.get("content") or message.get("reasoning_content") or message.get("thinking"))


def _held(parser: _native.OutputParser, begun: str, message: Message) -> tuple[str, str]:
    """Gives a parser what the prompt has of the answer; the ends of content and reasoning that it holds back."""
    parts = {"content": "", "reasoning": ""}
    for kind, _, text in parser.push(begun):
        if kind == "begin":
            raise ParameterError("continue_final_message: the last message holds a tool call, and cannot be continued")
        if kind in parts:
            parts[kind] += text
    content = message.get("content") or ""
    reasoning = "" if content else message.get("reasoning_content") or message.get("thinking") or ""
    wholes = ((content, parts["content"]), (reasoning, parts["reasoning"]))
    first, second = (whole[len(part) :] if whole.startswith(part) else "" for whole, part in wholes)
    return first, second


def render(template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Tool] | None, **options: Any) -> str:
    """The text of a conversation as `prepare` writes it. The options are those of `ChatTemplate.render`."""

    def write(messages: list[Any], tools: list[dict[str, Any]] | None) -> tuple[str, None]:
        return template.render(normalise(template, messages), tools=tools, **options), None

    declared = None if tools is None else [shown(declaration(tool)) for tool in tools]
    continued = bool(options.get("continue_final_message"))
    return write_prompt(template, messages, declared, None, normalise, write, continued=continued)[0]


def _chosen(choice: str | tuple[str]) -> tuple[str, str | None]:
    """The kind of a choice, and the name in it."""
    return (choice, None) if isinstance(choice, str) else ("named", choice[0])


def _budget(budget: Any) -> int | None:
    if budget is None:
        return None
    if isinstance(budget, bool) or not hasattr(budget, "__index__"):
        raise TypeError(f"reasoning_budget must be an integer, not {type(budget).__name__}")
    number = operator.index(budget)
    if not 0 <= number < 2**32:
        raise ParameterError(f"reasoning_budget = {number} is not allowed: 0 to {2**32 - 1}")
    return number


def shown(tool: dict[str, Any]) -> dict[str, Any]:
    """A declaration as templates know it: models were not taught what "strict" means."""
    function = tool.get("function")
    if isinstance(function, Mapping) and "strict" in function:
        tool = {**tool, "function": {name: value for name, value in function.items() if name != "strict"}}
    return {name: value for name, value in tool.items() if name != "strict"}


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
    variables = dict(settings.chat_template_kwargs or {})
    own = next((name for name in ("messages", "tools", "add_generation_prompt") if name in variables), None)
    if own is not None:
        raise ParameterError(f"chat_template_kwargs cannot have {own!r}: chat sets it itself")
    wanted = (
        ("enable_thinking", settings.enable_thinking, THINKING),
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
        out["content"] = text_of(out["content"])
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
