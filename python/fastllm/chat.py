"""Chat templates: from messages to the text that a model expects."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastllm import _native

if TYPE_CHECKING:
    from fastllm.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Message"]

Message = Mapping[str, Any]


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

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        now: datetime | None = None,
        **variables: Any,
    ) -> str:
        """The text of a conversation.

        Args:
            messages: Dicts with "role" and "content", and whatever else the template reads.
            tools: Descriptions of tools, for templates that write them.
            add_generation_prompt: Open the assistant's turn at the end.
            now: What `strftime_now` sees; None: the local time.
            variables: Further variables of the template, such as `enable_thinking`.

        Raises:
            TemplateError: The template refuses the conversation, or does something that is not allowed.
            TypeError: A value has no JSON form.
        """
        tools = None if tools is None else list(tools)
        return self._native.render(list(messages), tools, add_generation_prompt, _moment(now), variables)

    def _encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        variables: dict[str, Any],
    ) -> tuple[str, list[int]]:
        """The text that opens the assistant's turn, and its ids, in which the control tokens are the template's.

        The variables are those of `render`, with `now` where it is given.
        """
        native = tokenizer._native  # noqa: SLF001 - one package
        now = variables.get("now")
        others = {name: value for name, value in variables.items() if name != "now"}
        return self._native.encode(native, list(messages), tools, True, _moment(now), others)

    def __repr__(self) -> str:
        return f"<ChatTemplate of {len(self.source)} characters>"


def _moment(now: datetime | None) -> tuple[int, int, int, int, int, int, int]:
    now = datetime.now() if now is None else now  # noqa: DTZ005 - templates write the local date
    return now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond
