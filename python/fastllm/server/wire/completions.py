"""The requests of /v1/completions, /v1/embeddings, /tokenize and /detokenize."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fastllm.server.wire.chat import FunctionTool, Message, Metadata
from fastllm.server.wire.common import MAX_IDS, Body, Integer, StreamOptions, TokenId
from fastllm.server.wire.compat import Compatible, MaxTokens

__all__ = ["CompletionRequest", "DetokenizeRequest", "EmbeddingRequest", "TokenizeRequest"]

Ids = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_IDS)]
Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=128)]
    | Ids
    | Annotated[list[Ids], Field(min_length=1, max_length=128)]
)


class CompletionRequest(Compatible):
    """Texts to continue."""

    model: str | None = Field(None, description="Default: the first model")
    prompt: Prompt
    max_tokens: MaxTokens | Annotated[Literal[0], Field(description="0: only the prompt")] | None = Field(
        None, description="Default: 16"
    )
    n: Annotated[Integer, Field(ge=1, le=32)] | None = Field(None, description="Texts for each prompt; default: 1")
    best_of: Literal[1] | None = Field(None, description="Not supported beyond 1")
    parse_special: bool | None = Field(
        None,
        description="Texts of control tokens in a text prompt, such as <|im_end|>, become these tokens; default: true",
    )
    echo: bool | None = Field(None, description="Begin with the prompt, in logprobs too")
    logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = Field(
        None, description="Log-probabilities of the tokens, and of this many alternatives"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = Field(None, description="Not supported")
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
    content: str | None = Field(None, description="A text, as llama.cpp's server takes it: see add_special")
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = Field(None, description="For a prompt: as the model reads it; default: true")
    add_special: bool | None = Field(None, description="For content: add the tokens that begin a text; default: false")
    parse_special: bool | None = Field(
        None, description="Texts of control tokens, such as <|im_end|>, become these tokens; default: true"
    )
    return_token_strs: bool | None = Field(None, description="Also give the texts of the tokens")
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=64)] | None = None


class DetokenizeRequest(Body):
    """Tokens to turn into text."""

    model: str | None = Field(None, description="Default: the first model")
    tokens: Annotated[list[TokenId], Field(max_length=MAX_IDS)]
