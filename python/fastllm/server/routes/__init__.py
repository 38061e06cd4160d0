"""The endpoints, one file for each group."""

from __future__ import annotations

from fastllm.server.routes import chat, completions, health, models, page, tokens

__all__ = ["ALL"]

ALL = (chat.router, completions.router, models.router, tokens.router, health.router, page.router)
