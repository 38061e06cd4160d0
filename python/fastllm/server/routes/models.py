"""/v1/models, in the shape of OpenAI, or of Anthropic where its headers ask for that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.responses import Response

from fastllm.server.answer import json_response
from fastllm.server.errors import ApiError
from fastllm.server.routes.common import new_router, service_of

if TYPE_CHECKING:
    from fastllm.server.service import Service

router = new_router("OpenAI")
# Models of one page, where Anthropic's interface is asked without a number, and at most.
_PAGE = 20
_MAX_PAGE = 1000


@router.get("/v1/models", response_model=None)
async def models(
    request: Request, limit: str | None = None, after_id: str | None = None, before_id: str | None = None
) -> Response:
    """The models that are served, and their aliases; the first one is the default.

    With the header `anthropic-version`, a page of them in Anthropic's shape: `limit`, `after_id` and `before_id` are
    read then.
    """
    service = service_of(request)
    if not _anthropic(request):
        return json_response({"object": "list", "data": [_model(service, name) for name in service.names]})
    size = _PAGE if limit is None else int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 5 else 0  # noqa: PLR2004
    if not 1 <= size <= _MAX_PAGE:
        raise ApiError(400, f"limit = {(limit or '')[:20]!r} is not allowed: 1 to {_MAX_PAGE}", param="limit")
    return json_response(_page(service, size, after_id, before_id))


@router.get("/v1/models/{name:path}", response_model=None)
async def model(name: str, request: Request) -> Response:
    """One model."""
    service = service_of(request)
    service.find(name)
    shape = _anthropic_model if _anthropic(request) else _model
    return json_response(shape(service, name))


def _anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _model(service: Service, name: str) -> dict[str, Any]:
    key, model = service.find(name)
    found = {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "fastllm",
        "context_length": model.context_length,
        "max_model_len": model.context_length,
    }
    return found if name == key else {**found, "root": key}


def _anthropic_model(service: Service, name: str) -> dict[str, Any]:
    model = service.find(name)[1]
    most = service.options.max_tokens
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(service.created)),
        "max_input_tokens": model.context_length,
        "max_tokens": model.context_length if most is None else min(most, model.context_length),
    }


def _page(service: Service, size: int, after: str | None, before: str | None) -> dict[str, Any]:
    names = list(service.names)
    for name, param in ((after, "after_id"), (before, "before_id")):
        if name is not None and name not in names:
            raise ApiError(404, f"the model {name[:100]!r} is not served here", param=param, code="model_not_found")
    first = 0 if after is None else names.index(after) + 1
    last = len(names) if before is None else names.index(before)
    inside = names[first:last]
    shown = inside[-size:] if before is not None and after is None else inside[:size]
    return {
        "data": [_anthropic_model(service, name) for name in shown],
        "has_more": len(shown) < len(inside),
        "first_id": shown[0] if shown else None,
        "last_id": shown[-1] if shown else None,
    }
