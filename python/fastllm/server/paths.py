"""Requests as clients spell them: HEAD, and paths without /v1."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Paths"]

# What is served below /v1: a base URL without it names the same.
_UNVERSIONED = re.compile(
    r"/(chat/completions|completions|responses|messages(/count_tokens)?|embeddings|models(/.*)?)", re.DOTALL
)


class Paths:
    """A layer that answers HEAD as GET, without the body, and finds `/v1` where a client leaves it out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _UNVERSIONED.fullmatch(scope["path"]):
            scope["path"] = "/v1" + scope["path"]
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # In place: what is outside reads in the scope what the route wrote there.
        scope["method"] = "GET"
        try:
            await self._app(scope, receive, without_body)
        finally:
            scope["method"] = "HEAD"
