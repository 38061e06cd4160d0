"""Chat templates: from messages to the text that a model expects."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fastllm import _native
from fastllm.errors import ParameterError, TemplateError

if TYPE_CHECKING:
    from fastllm.tokenizer import Tokenizer
    from fastllm.tools import Tool

__all__ = ["ChatTemplate", "Message", "TemplateSupport"]

Message = Mapping[str, Any]

_BARE_PARAMETERS = {"type": "object", "properties": {"probe_parameter": {"type": "string"}}}
_BARE_TOOLS = (
    {"name": "probe_bare_tool"},
    {"name": "probe_bare_tool", "description": "", "parameters": _BARE_PARAMETERS},
)


class TemplateSupport(NamedTuple):
    """What a chat template writes into the prompt when it is given."""

    system: bool
    """A system message at the beginning."""
    tools: bool
    """The declarations of tools."""
    calls: bool
    """The tool calls of earlier assistant messages."""
    results: bool
    """Messages with the role "tool"."""


class ChatTemplate:
    """A chat template in the Jinja dialect of Hugging Face. It can only make text, within limits.

    Args:
        source: The template.
        bos_token: The text of the token that begins a text; None: undefined in the template.
        eos_token: The text of the token that ends a text; None: undefined in the template.

    Raises:
        TemplateError: The source is not a template.
    """

    def __init__(self, source: str, *, bos_token: str | None = None, eos_token: str | None = None) -> None:
        self._native = _native.ChatTemplate(source, bos_token, eos_token)
        self.source = source
        self.bos_token = bos_token
        self.eos_token = eos_token

    @functools.cached_property
    def variables(self) -> frozenset[str]:
        """The names that the template reads and does not set itself, such as "messages" or "enable_thinking"."""
        return frozenset(self._native.variables())

    @functools.cached_property
    def support(self) -> TemplateSupport:
        """What the template writes when it is given, found by rendering small conversations."""
        return TemplateSupport(*self._native.support())

    @functools.cached_property
    def reasons(self) -> bool:
        """Whether the template has markers of reasoning that are known."""
        return _native.reasons(self.source)

    @functools.cached_property
    def _takes_bare_tools(self) -> bool:
        """Whether tools may have a name only, and parameters a type only."""
        messages = [{"role": "user", "content": "question"}]
        try:
            texts = [self._render(messages, [{"type": "function", "function": tool}]) for tool in _BARE_TOOLS]
        except TemplateError:
            return False
        return not self.support.tools or all("probe_bare_tool" in text for text in texts)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        now: datetime | None = None,
        **variables: Any,
    ) -> str:
        """The text of a conversation.

        System messages become part of a user message where the template has no place for them, and tools get an empty
        description and empty parameters where the template cannot do without.

        Args:
            messages: Dicts with "role" and "content", and whatever else the template reads.
            tools: Tools, for templates that write them: dicts, or Python functions, which `fastllm.describe_tool`
                describes.
            add_generation_prompt: Open the assistant's turn at the end.
            continue_final_message: End the text within the last message, which is to be continued.
            now: What `strftime_now` sees; None: the local time.
            variables: Further variables of the template, such as `enable_thinking`.

        Raises:
            TemplateError: The template refuses the conversation, or does something that is not allowed.
            ParameterError: Both add_generation_prompt and continue_final_message are true.
            TypeError: A value has no JSON form.
        """
        from fastllm.template_input import adapt, declaration  # noqa: PLC0415 - it needs this module

        declared = None if tools is None else [declaration(tool) for tool in tools]
        adapted, declared = adapt(self, messages, declared)
        if not continue_final_message:
            return self._native.render(adapted, declared, add_generation_prompt, _moment(now), variables)
        if add_generation_prompt:
            raise ParameterError("add_generation_prompt and continue_final_message cannot be combined")
        return self._native.render_continued(adapted, declared, _moment(now), variables)

    def _render(self, messages: Sequence[Any], tools: Sequence[Any] | None, **variables: Any) -> str:
        """The text that opens the assistant's turn, of messages and tools as they are."""
        now = variables.pop("now", None)
        return self._native.render(
            list(messages), None if tools is None else list(tools), True, _moment(now), variables
        )

    def _encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        variables: dict[str, Any],
        *,
        continued: bool = False,
    ) -> tuple[str, list[int], str]:
        """The text that opens the assistant's turn, and its ids, in which the control tokens are the template's.

        With `continued`, the text ends within the last message; what the model would have written of it comes third.
        The variables are those of `render`, with `now` where it is given.
        """
        native = tokenizer._native  # noqa: SLF001 - one package
        now = variables.get("now")
        others = {name: value for name, value in variables.items() if name != "now"}
        return self._native.encode(native, list(messages), tools, continued, _moment(now), others)

    def __repr__(self) -> str:
        return f"<ChatTemplate of {len(self.source)} characters>"


def _moment(now: datetime | None) -> tuple[int, int, int, int, int, int, int]:
    now = datetime.now() if now is None else now  # noqa: DTZ005 - templates write the local date
    return now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond
