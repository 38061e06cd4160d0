"""The limits and switches of a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ServerOptions"]


@dataclass(frozen=True)
class ServerOptions:
    """How a server behaves. Times are seconds, sizes bytes.

    Attributes:
        api_keys: Keys of which a request must carry one; empty: none is needed.
        cors_origins: Origins whose pages may use this server from a browser; "*": all.
        allowed_hosts: Names that a `Host` header may have, without ports; None: any.
        max_body: Longest body of a request.
        header_timeout: Time for the headers of a request, from its first byte or the start of the connection.
        body_timeout: Time for the body of a request.
        write_timeout: Time that a client may leave its receive buffer full.
        keep_alive: Time that an idle connection stays open.
        drain_timeout: Time that running requests get after SIGTERM.
        share_prefix_cache: Whether the holders of all keys share the prefix cache, and so can tell what others asked;
            otherwise each key has its own part of it.
        max_queue: Most sequences of a model that wait; further requests get 429.
        max_tokens: Most tokens of an answer; None: until the context is full.
        aliases: Further names of models, with the name of the model.
        any_model_name: Answer a request for a model that is not served with the first model, instead of a 404.
    """

    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] | None = None
    max_body: int = 8 << 20
    header_timeout: float = 20.0
    body_timeout: float = 30.0
    write_timeout: float = 30.0
    keep_alive: float = 30.0
    drain_timeout: float = 30.0
    max_queue: int = 240
    share_prefix_cache: bool = False
    max_tokens: int | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    any_model_name: bool = False
