"""The endpoints, one file for each group."""

from __future__ import annotations

from fastllm.server.routes import chat, completions, health, messages, models, page, responses, tokens

__all__ = ["ALL"]

_MODULES = (chat, completions, responses, messages, models, tokens, health, page)
ALL = tuple(module.router for module in _MODULES)
