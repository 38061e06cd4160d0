"""Clients of OpenAI's library for models of this process: no server, no port. Needs the extra `openai`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastllm.errors import MissingExtraError
from fastllm.model import Model

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

__all__ = ["async_openai", "openai"]


def openai(models: Model | Mapping[str, Model], **options: Any) -> OpenAI:
    """An `openai.OpenAI` whose requests are answered in this process.

    Args:
        models: A model, called by the stem of its file; or models by the names that requests use.
        options: Further keywords of `openai.OpenAI`, such as `max_retries`.

    Raises:
        MissingExtraError: `pip install 'fastllm[openai]'` is needed.
    """
    _require()
    import openai as library  # noqa: PLC0415 - needs the extra

    from fastllm.server.inprocess import http_client  # noqa: PLC0415

    return library.OpenAI(**_options(options), http_client=http_client(_named(models), library.DefaultHttpxClient))


def async_openai(models: Model | Mapping[str, Model], **options: Any) -> AsyncOpenAI:
    """An `openai.AsyncOpenAI` whose requests are answered in this process, on the event loop that makes them.

    The arguments and errors are those of `fastllm.openai`.
    """
    _require()
    import openai as library  # noqa: PLC0415 - needs the extra

    from fastllm.server.inprocess import async_http_client  # noqa: PLC0415

    client = async_http_client(_named(models), library.DefaultAsyncHttpxClient)
    return library.AsyncOpenAI(**_options(options), http_client=client)


def _require() -> None:
    from fastllm import server  # noqa: PLC0415 - for those who use it

    server.require()
    if find_spec("openai") is None:
        raise MissingExtraError("this client needs openai: pip install 'fastllm[openai]'")


def _named(models: Model | Mapping[str, Model]) -> dict[str, Model]:
    if isinstance(models, Model):
        from fastllm.model import DEMO  # noqa: PLC0415

        return {"fastllm-tiny" if models.path == str(DEMO) else Path(models.path).stem: models}
    found = dict(models)
    if not found or not all(isinstance(name, str) and isinstance(model, Model) for name, model in found.items()):
        raise TypeError("models must be a Model, or a mapping of names to at least one Model")
    return found


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    taken = {"base_url", "http_client"} & set(options)
    if taken:
        raise TypeError(f"{taken.pop()} belongs to this client itself")
    # Nothing is sent anywhere, so no address and no key of the environment may matter.
    return {"api_key": "none", **options, "base_url": "http://fastllm.invalid/v1"}
