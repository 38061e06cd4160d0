"""/v1/models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.responses import Response

from fastllm.server.answer import json_response
from fastllm.server.routes.common import new_router, service_of

if TYPE_CHECKING:
    from fastllm.server.service import Service

router = new_router("OpenAI")


@router.get("/v1/models", response_model=None)
async def models(request: Request) -> Response:
    """The models that are served; the first one is the default."""
    service = service_of(request)
    return json_response({"object": "list", "data": [_model(service, name) for name in service.models]})


@router.get("/v1/models/{name:path}", response_model=None)
async def model(name: str, request: Request) -> Response:
    """One model."""
    service = service_of(request)
    return json_response(_model(service, service.find(name)[0]))


def _model(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "fastllm",
        "context_length": service.models[name].context_length,
    }
