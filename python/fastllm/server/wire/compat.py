"""Fields of other servers' interfaces: aliases, and what is accepted because it cannot change the text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fastllm.server.errors import ApiError
from fastllm.server.wire.common import Finite, Integer, Name, Sampling, Wire

__all__ = ["CacheControl", "Compatible", "MaxTokens", "StructuredOutputs"]

Schema = dict[str, Any] | bool | Annotated[str, Field(max_length=1 << 20)]
Choices = Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(min_length=1, max_length=4096)]
Grammar = Annotated[str, Field(min_length=1, max_length=1 << 18)]
# -1: no limit.
MaxTokens = Annotated[Integer, Field(ge=1, lt=2**31)] | Annotated[Literal[-1], Field(description="-1: no limit")]


class CacheControl(Wire):
    """Where a prefix to be cached ends; not needed, because every shared prefix is found."""

    type: Literal["ephemeral"]
    ttl: Annotated[str, Field(max_length=16)] | None = None
    scope: Annotated[str, Field(max_length=64)] | None = None


class StructuredOutputs(Wire):
    """What the output must be, in the words of vLLM; one of the first five."""

    json_: Schema | None = Field(None, alias="json", description="JSON Schema")
    json_object: bool | None = Field(None, description="Any JSON object")
    regex: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    choice: Choices | None = None
    grammar: Grammar | None = None
    disable_fallback: bool | None = Field(None, description="Not used: there is no second backend")
    disable_any_whitespace: Literal[False] | None = None
    disable_additional_properties: Literal[False] | None = None

    @model_validator(mode="after")
    def _one(self) -> StructuredOutputs:
        wanted = (self.json_, self.json_object or None, self.regex, self.choice, self.grammar)
        if sum(value is not None for value in wanted) != 1:
            raise ValueError("give exactly one of json, json_object, regex, choice and grammar")
        return self


class Compatible(Sampling):
    """Sampling in the words of vLLM, llama.cpp and others."""

    repeat_penalty: Annotated[Finite, Field(gt=0, le=100)] | None = Field(
        None, description="As repetition_penalty (llama.cpp)"
    )
    json_schema: Schema | None = Field(None, description="A JSON Schema that the output follows (llama.cpp)")
    structured_outputs: StructuredOutputs | None = Field(None, description="What the output must be (vLLM)")
    guided_json: Schema | None = Field(None, description="As json_schema (vLLM)")
    guided_regex: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None, description="As regex (vLLM)"
    )
    guided_choice: Choices | None = Field(None, description="As choices (vLLM)")
    guided_grammar: Grammar | None = Field(None, description="As grammar (vLLM)")
    guided_decoding_backend: Name | None = Field(None, description="Not used: there is one")
    skip_special_tokens: Literal[True] | None = Field(None, description="Control tokens are no text")
    spaces_between_special_tokens: bool | None = Field(None, description="Not used, as control tokens are no text")
    include_stop_str_in_output: Literal[False] | None = None
    min_tokens: Literal[0] | None = None
    use_beam_search: Literal[False] | None = None
    length_penalty: Annotated[Finite, Field(ge=1, le=1)] | None = None
    return_tokens_as_token_ids: Literal[False] | None = None
    return_token_ids: Literal[False] | None = None
    truncate_prompt_tokens: Literal[-1] | None = Field(None, description="Nothing is cut off")
    priority: Literal[0] | None = None
    request_id: Name | None = Field(None, description="Not used: send the header X-Request-Id")

    def sampling(self) -> dict[str, Any]:
        """The fields of `SamplingParams` that are given, aliases included.

        Raises:
            ApiError: 400, a field and its alias are both given.
        """
        found = super().sampling()
        for name, negative in (("top_k", 0), ("seed", None)):
            # What clients send for "not set".
            if found.get(name, 0) < 0:
                found[name] = negative
        wanted = self.structured_outputs
        aliases: list[tuple[str, str, Any]] = [
            ("repeat_penalty", "repetition_penalty", self.repeat_penalty),
            ("json_schema", "json_schema", self.json_schema),
            ("guided_json", "json_schema", self.guided_json),
            ("guided_regex", "regex", self.guided_regex),
            ("guided_choice", "choices", self.guided_choice),
            ("guided_grammar", "grammar", self.guided_grammar),
        ]
        if wanted is not None:
            schema = {"type": "object"} if wanted.json_object else wanted.json_
            aliases += [
                ("structured_outputs", "json_schema", schema),
                ("structured_outputs", "regex", wanted.regex),
                ("structured_outputs", "choices", wanted.choice),
                ("structured_outputs", "grammar", wanted.grammar),
            ]
        for alias, name, value in aliases:
            if value is None:
                continue
            if found.get(name) is not None:
                message = f"{alias} and {name} are the same: give one"
                raise ApiError(400, message, param=alias, code="invalid_value")
            found[name] = value
        return found
