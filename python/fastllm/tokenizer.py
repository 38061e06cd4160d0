"""Text to token ids and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

from fastllm import _native
from fastllm.errors import FastLLMWarning, ParameterError

__all__ = ["Tokenizer"]


class Tokenizer:
    """The tokenizer of a GGUF file. May be used from many threads at once."""

    def __init__(self, native: _native.Tokenizer) -> None:
        self._native = native
        for warning in native.warnings:
            warnings.warn(warning, FastLLMWarning, stacklevel=3)

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of a file, which may hold nothing but a vocabulary.

        Raises:
            ModelFileError: The file cannot be read.
            ModelFormatError: It is no GGUF file, is damaged or has no tokenizer.
            UnsupportedModelError: The kind of tokenizer is not supported.
        """
        return cls(_native.Tokenizer(_native.File(path)))

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            text: Any text.
            add_special: Add the tokens that begin and end a text, where the model wants them.
            parse_special: Turn texts of control tokens, such as "<|im_end|>", into these tokens. Not for text that is
                not trusted.

        A few vocabularies lack some bytes, mostly of control characters: they are left out, as the models' own
        tokenizers do, with a `FastLLMWarning` for the first one.

        Raises:
            OutOfMemoryError: The text is too long for the memory there is.
        """
        return self._native.encode(text, add_special, parse_special)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ids; U+FFFD for bytes that are no text.

        Args:
            ids: Token ids.
            skip_special: Leave out control tokens instead of writing their texts.

        Raises:
            ParameterError: An id is beyond the vocabulary.
        """
        return self._native.decode(ids, skip_special)

    def decode_bytes(self, ids: Sequence[int], *, skip_special: bool = True) -> bytes:
        """The bytes of ids; otherwise as `decode`."""
        return self._native.decode_bytes(ids, skip_special)

    def token(self, id: int) -> str:  # noqa: A002 - what the field calls it
        """A token as the file writes it, such as "Ġthe" or "<0x0A>".

        Raises:
            ParameterError: The id is beyond the vocabulary.
        """
        token = self._native.token(id) if 0 <= id < self.vocab_size else None
        if token is None:
            raise ParameterError(f"token id {id} is beyond the vocabulary of {self.vocab_size} tokens")
        return token

    def token_bytes(self, id: int) -> bytes:  # noqa: A002 - what the field calls it
        """The bytes that a token stands for, with the space that begins a word; of a control token its text.

        Raises:
            ParameterError: The id is beyond the vocabulary.
        """
        piece = self._native.token_bytes(id) if 0 <= id < self.vocab_size else None
        if piece is None:
            raise ParameterError(f"token id {id} is beyond the vocabulary of {self.vocab_size} tokens")
        return piece

    def token_id(self, token: str) -> int | None:
        """The id of a token as the file writes it; None if there is none."""
        return self._native.id(token)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._native.vocab_size

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text."""
        return self._native.bos_id

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text."""
        return self._native.eos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """All tokens after which generation ends: of a text, of a turn, of a message."""
        return tuple(self._native.eos_ids)

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.vocab_size} tokens>"
