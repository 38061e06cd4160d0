"""/health and /metrics."""

from __future__ import annotations

from fastapi import Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from fastllm.server.answer import json_response
from fastllm.server.routes.common import new_router, service_of

router = new_router("operation")


@router.get("/health", response_model=None, openapi_extra={"security": []})
async def health(request: Request) -> Response:
    """200 while requests are taken, 503 while the server ends. Needs no key."""
    if service_of(request).draining:
        return json_response({"status": "stopping"}, 503)
    return json_response({"status": "ok"})


@router.get("/metrics", response_model=None, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Counts and latencies for Prometheus."""
    return Response(service_of(request).metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
