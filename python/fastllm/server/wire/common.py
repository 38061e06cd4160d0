"""What the requests of all endpoints share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

__all__ = [
    "MAX_IDS",
    "MAX_ITEMS",
    "U64",
    "Body",
    "Extensions",
    "Finite",
    "Integer",
    "Name",
    "Sampling",
    "StopStrings",
    "StreamOptions",
    "Wire",
]


def _integral(value: Any) -> Any:
    """JSON does not tell 5 from 5.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


U64 = 2**64 - 1
Integer = Annotated[int, BeforeValidator(_integral)]
# The logit bias that OpenAI calls a ban.
_BAN = -100.0
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
TokenId = Annotated[Integer, Field(ge=0, lt=2**32)]
StopStrings = Text | Annotated[list[Text], Field(max_length=64)]


# Items of a list and entries of a dict, where the field does not say otherwise; token ids of a list of them.
MAX_ITEMS = 16_384
MAX_IDS = 1 << 20
# Fields of an object, known or not.
_MAX_FIELDS = 256


def _bound(schema: Any) -> None:
    if isinstance(schema, dict):
        # In a dict of fields, "type" may be the name of one.
        if schema.get("type") in ("list", "dict"):
            schema.setdefault("max_length", MAX_ITEMS)
            schema["fail_fast"] = True
        for item in schema.values():
            _bound(item)
    elif isinstance(schema, (list, tuple)):
        for item in schema:
            _bound(item)


class Wire(BaseModel):
    """An object of a request: no conversions, no unknown fields, and limits on all lists and dicts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Bounds every list and dict of the fields, and lets it stop at its first error."""
        schema = handler(source)
        _bound(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        # Each unknown field would be an error of its own.
        if isinstance(value, dict) and len(value) > _MAX_FIELDS:
            raise PydanticCustomError("too_many_fields", "an object has at most 256 fields")
        return value


class Body(Wire):
    """A request. A field that is null has its default."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: item for name, item in value.items() if item is not None}
        return value


class StreamOptions(Wire):
    """How an answer is streamed."""

    include_usage: bool | None = Field(None, description="End with a chunk that has the usage")
    include_obfuscation: Literal[False] | None = Field(None, description="Padding is not supported")


class Extensions(Body):
    """Sampling beyond OpenAI's fields."""

    top_k: Annotated[Integer, Field(ge=-1, lt=2**32)] | None = Field(
        None, description="Keep this many tokens; 0 or -1: all"
    )
    min_p: Annotated[Finite, Field(ge=0, le=1)] | None = Field(
        None, description="Keep tokens at least this likely relative to the best"
    )
    typical_p: Annotated[Finite, Field(ge=0, le=1)] | None = Field(None, description="Locally typical sampling")
    repetition_penalty: Annotated[Finite, Field(gt=0, le=100)] | None = Field(None, description="1: none")
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = Field(
        None, description="Token ids that end the output"
    )
    ignore_eos: bool | None = Field(None, description="Go on after the end of the text")
    regex: Text | None = Field(None, description="A regular expression that the output matches")
    cache_salt: Name | None = Field(
        None, description="Share computed prompt prefixes only with requests of this salt (and key)"
    )
    grammar: Annotated[str, Field(min_length=1, max_length=1 << 18)] | None = Field(
        None, description="A grammar that the output follows"
    )
    choices: Annotated[list[Text], Field(min_length=1, max_length=4096)] | None = Field(
        None, description="The texts of which the output is one"
    )


class Sampling(Extensions):
    """How tokens are chosen, in OpenAI's words."""

    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = Field(None, description="Default: the model's")
    top_p: Annotated[Finite, Field(ge=0, le=1)] | None = Field(None, description="Default: the model's")
    presence_penalty: Annotated[Finite, Field(ge=-100, le=100)] | None = None
    frequency_penalty: Annotated[Finite, Field(ge=-100, le=100)] | None = None
    seed: Annotated[Integer, Field(ge=-(2**63), le=U64)] | None = Field(
        None, description="Choice i of n has seed + i; a negative one: a different seed each time"
    )
    stop: StopStrings | None = None
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], Annotated[Finite, Field(ge=-100, le=100)]] | None
    ) = Field(None, description="Added to the logits of token ids; -100 bans a token")

    def sampling(self) -> dict[str, Any]:
        """The fields of `SamplingParams` that are given."""
        names = (
            *Extensions.model_fields,
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "seed",
            "stop",
        )
        found = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.logit_bias:
            found["logit_bias"] = {
                int(id_): float("-inf") if bias <= _BAN else bias for id_, bias in self.logit_bias.items()
            }
        return found
