"""The HTTP server: OpenAI-compatible endpoints, Anthropic's messages, metrics. Needs the extra `server`.

It knows wire formats, connections and limits; text and models are behind `generate`.
"""

from __future__ import annotations

from importlib.util import find_spec

from fastllm.errors import MissingExtraError

__all__ = ["require"]

_NEEDED = ("fastapi", "uvicorn", "pydantic", "prometheus_client")


def require() -> None:
    """Checks that what the server needs is installed.

    Raises:
        MissingExtraError: It is not.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"the server needs {', '.join(missing)}: pip install 'fastllm[server]'")
