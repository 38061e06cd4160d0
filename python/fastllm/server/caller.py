"""Who asks, and how much: what is known of the present request wherever work is started for it."""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["CALLER", "Caller"]


@dataclass(frozen=True)
class Caller:
    """The sender of a request.

    Attributes:
        key: The digest of the API key; empty: there is none.
    """

    key: str = ""

    def cache_salt(self, own: str | None, *, shared: bool) -> str:
        """The salt of the prefix cache: requests with the same one can reuse, and so notice, each other's prompts.

        Args:
            own: The `cache_salt` of the request.
            shared: Whether the holders of all keys share the cache.
        """
        key = "" if shared else self.key
        if not own:
            return key
        # A digest: neither a key nor a salt can be made to look like another pair of them.
        return hashlib.sha256(f"{len(key)}:{key}{own}".encode()).hexdigest()


_NOBODY = Caller()
# Set by the guard.
CALLER: ContextVar[Caller] = ContextVar("fastllm.caller", default=_NOBODY)
