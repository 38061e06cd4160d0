"""The requests of /v1/completions, /v1/embeddings, /tokenize and /detokenize."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fastllm.server.wire.chat import FunctionTool, Message, Metadata
from fastllm.server.wire.common import Body, Integer, Sampling, StreamOptions, TokenId

__all__ = ["CompletionRequest", "DetokenizeRequest", "EmbeddingRequest", "TokenizeRequest"]

Ids = Annotated[list[TokenId], Field(min_length=1)]
Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=128)]
    | Ids
    | Annotated[list[Ids], Field(min_length=1, max_length=128)]
)


class CompletionRequest(Sampling):
    """Texts to continue."""

    model: str | None = Field(None, description="Default: the first model")
    prompt: Prompt
    max_tokens: Annotated[Integer, Field(ge=1, lt=2**31)] | None = Field(None, description="Default: 16")
    n: Annotated[Integer, Field(ge=1, le=32)] | None = Field(None, description="Texts for each prompt; default: 1")
    best_of: Literal[1] | None = Field(None, description="Not supported beyond 1")
    echo: bool | None = Field(None, description="Begin with the prompt; not with logprobs")
    logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = None
    parse_special: bool | None = Field(
        None,
        description="Texts of control tokens in a text prompt, such as <|im_end|>, become these tokens; default: true",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="Not used")
    metadata: Metadata | None = Field(None, description="Not used, as nothing is stored")


class EmbeddingRequest(Body):
    """Texts to embed."""

    model: str | None = Field(None, description="Default: the first model")
    input: Prompt
    dimensions: Annotated[Integer, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = Field(None, description="Not used")


class TokenizeRequest(Body):
    """A text or a conversation to turn into tokens."""

    model: str | None = Field(None, description="Default: the first model")
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = Field(None, description="For a prompt: as the model reads it; default: true")
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=64)] | None = None


class DetokenizeRequest(Body):
    """Tokens to turn into text."""

    model: str | None = Field(None, description="Default: the first model")
    tokens: list[TokenId]
