"""`Session`: a text that grows, whose state is kept."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from fastllm.options import SamplingOptions, SamplingParams, _flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self, Unpack

    from fastllm.model import Model
    from fastllm.results import Generation

__all__ = ["Session"]


class Session:
    """A text, and what the model has computed for it: made by `Model.session` and `Model.load_session`.

    The state lies in the model's prefix cache, where blocks of it are shared with all texts that begin alike: a fork
    copies nothing, and costs memory only for what it writes. If the cache has to forget it, it is computed again; no
    result depends on that.
    """

    def __init__(self, model: Model, token_ids: Sequence[int] = (), cache_salt: str = "") -> None:
        self._model = model
        self._ids = list(token_ids)
        self._cache_salt = cache_salt

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens of the text."""
        return tuple(self._ids)

    @property
    def text(self) -> str:
        """The text."""
        return self._model.tokenizer.decode(self._ids, skip_special=False)

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"Session({Path(self._model.path).name!r}, {len(self)} tokens)"

    def append(self, text: str | Sequence[int], *, parse_special: bool = True) -> Self:
        """Adds a text or token ids, and computes the state after it.

        Args:
            text: A text or token ids.
            parse_special: Whether the texts of control tokens in a text, such as "<|im_end|>", become these tokens.
                False for untrusted text.

        Raises:
            ContextOverflowError: The whole text is longer than the context; then it stays as it was.
            ParameterError: A token id is beyond the vocabulary, or there are no tokens at all.
        """
        first = not self._ids
        new = self._model._encode(text, _flag("parse_special", parse_special), add_special=first)  # noqa: SLF001
        self._model._save_state(self._ids + new, None, self._cache_salt)  # noqa: SLF001 - one package
        self._ids += new
        return self

    def generate(self, params: SamplingParams | None = None, **options: Unpack[SamplingOptions]) -> Generation:
        """Continues the text; what is made becomes part of it. The arguments are those of `Model.generate`.

        The `cache_salt` is that of the session, unless the options have one.
        """
        if self._cache_salt and not (params and params.cache_salt):
            options.setdefault("cache_salt", self._cache_salt)
        result = self._model.generate(self._ids, params, **options)
        self._ids += result.token_ids
        return result

    def fork(self) -> Session:
        """Another session with the same text; each goes on for itself."""
        return Session(self._model, self._ids, self._cache_salt)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes text and state to a file, for `Model.load_session`. A file of this name is replaced once all is there.

        Raises:
            OSError: The file cannot be written.
            ParameterError: There are no tokens.
        """
        path = Path(path)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            self._model._save_state(self._ids, part, self._cache_salt)  # noqa: SLF001
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
