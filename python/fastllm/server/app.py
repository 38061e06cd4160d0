"""The application: routes, layers and the form of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

import fastllm
from fastllm.server.errors import ApiError, body_of, from_validation
from fastllm.server.guard import Guard, Record
from fastllm.server.options import ServerOptions
from fastllm.server.paths import Paths
from fastllm.server.routes import ALL
from fastllm.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastllm.model import Model

__all__ = ["create_app"]


def create_app(models: Mapping[str, Model], options: ServerOptions | None = None) -> FastAPI:
    """An ASGI application that serves models.

    Args:
        models: The models by the names that requests use; the first one answers requests without a name.
        options: Limits and keys; None: the defaults.
    """
    options = ServerOptions() if options is None else options
    service = Service(models, options)
    app = FastAPI(
        title="fastllm",
        version=fastllm.__version__,
        description="Language models on the CPU, with the interfaces of OpenAI and Anthropic.",
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    for router in ALL:
        app.include_router(router)
    _describe(app, keys=bool(options.api_keys))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    # The last one is the outermost.
    app.add_middleware(Guard, service=service)
    if options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(Paths)
    app.add_middleware(Record, service=service)
    return app


def _describe(app: FastAPI, *, keys: bool) -> None:
    """Completes the description that FastAPI makes."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        page = original()
        for methods in page["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)  # FastAPI's status for what is 400 here
        for name in ("HTTPValidationError", "ValidationError"):
            page["components"]["schemas"].pop(name, None)
        if keys:
            page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            page["security"] = [{"key": []}]
        return page

    app.openapi = openapi  # type: ignore[method-assign]


def _answer(request: Request, error: ApiError) -> Response:
    request.scope["fastllm.code"] = error.code
    body = body_of(error, request.scope["path"], request.scope.get("fastllm.id"))
    return JSONResponse(body, error.status, headers=error.headers)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for it
    return _answer(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    return _answer(request, from_validation(error.errors(), error.body))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    texts = {404: "there is no such path", 405: "this path does not take that method"}
    found = ApiError(error.status_code, texts.get(error.status_code, str(error.detail)), headers=error.headers)
    return _answer(request, found)
