"""The options of a chat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastllm.errors import ParameterError
from fastllm.options import SamplingOptions, SamplingParams, _suggestion
from fastllm.structured import response_schema
from fastllm.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from fastllm.chat import ChatTemplate

__all__ = ["ChatOptions", "ChatSettings", "final_message"]


class ChatOptions(SamplingOptions, total=False):
    """The keywords that `chat` and its relatives take: those of `SamplingOptions`, and what only a chat has.

    `Model.chat` says what they mean.
    """

    tools: Sequence[Tool] | None
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    tool_format: str | None
    reasoning_effort: str | None
    reasoning_budget: int | None
    enable_thinking: bool | None
    chat_template: ChatTemplate | str | None
    chat_template_kwargs: Mapping[str, Any] | None
    response_format: Mapping[str, Any] | type[Any] | None
    continue_final_message: bool | None


@dataclasses.dataclass(frozen=True)
class ChatSettings:
    """The options that only a chat has."""

    tools: Sequence[Tool] | None = None
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    tool_format: str | None = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    enable_thinking: bool | None = None
    chat_template: ChatTemplate | str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    continue_final_message: bool | None = None

    @classmethod
    def resolve(
        cls, function: str, params: SamplingParams | None, options: Mapping[str, Any]
    ) -> tuple[ChatSettings, SamplingParams]:
        """The settings, and `params` changed by the other options.

        Args:
            function: Whose keywords the options are, for the error message.
            params: None: the defaults.
            options: `ChatOptions`.

        Raises:
            TypeError: There is no such option.
            ParameterError: A value is out of range, or two options do not go together.
        """
        for name in options:
            if name not in _OPTIONS:
                suggestion = _suggestion(name, _OPTIONS)
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{suggestion}")
        settings = cls(**{name: value for name, value in options.items() if name in _SETTINGS})
        if not isinstance(settings.continue_final_message, bool | None):
            kind = type(settings.continue_final_message).__name__
            raise TypeError(f"continue_final_message must be a bool or None, not {kind}")
        sampling = {name: value for name, value in options.items() if name not in _SETTINGS}
        if sampling.get("prompt_logprobs") is not None or (params is not None and params.prompt_logprobs is not None):
            raise ParameterError("prompt_logprobs: a chat does not report them; generate does")
        schema = response_schema(sampling.pop("response_format", None))
        resolved = SamplingParams.resolve(function, params, sampling)
        if schema is not None:
            if resolved.constrained:
                raise ParameterError("response_format cannot be combined with json_schema, regex, grammar or choices")
            resolved = dataclasses.replace(resolved, json_schema=schema)  # type: ignore[arg-type]  # checked there
        return settings, resolved


def final_message(continue_final_message: bool | None, add_generation_prompt: bool | None, role: str) -> bool | None:
    """The option `continue_final_message` of `Model.chat` for the two fields of requests that vLLM has.

    Args:
        continue_final_message: None: it is not given.
        add_generation_prompt: None: it is not given. True: a new answer; False: the last message is continued.
        role: The role of the last message.

    Raises:
        ParameterError: The two do not go together, or there is nothing to continue.
    """
    if continue_final_message and add_generation_prompt:
        raise ParameterError("continue_final_message and add_generation_prompt cannot both be true")
    if continue_final_message is None and add_generation_prompt is not None:
        if not add_generation_prompt and role != "assistant":
            raise ParameterError(
                "add_generation_prompt = false needs a last message of the assistant, which is then continued"
            )
        return not add_generation_prompt
    if add_generation_prompt is False and not continue_final_message:
        raise ParameterError("add_generation_prompt = false needs continue_final_message = true")
    return continue_final_message


_SETTINGS = frozenset(field.name for field in dataclasses.fields(ChatSettings))
_OPTIONS = frozenset(ChatOptions.__annotations__)
