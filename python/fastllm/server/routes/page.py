"""The pages: chat at / and the description of the endpoints at /docs. Neither fetches anything from elsewhere."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, HTMLResponse, Response

from fastllm.server.errors import ApiError

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).parent.parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The files that there are: a request chooses one of these, and no path is made from it.
_FILES = {file.name: file for file in _FOLDER.iterdir() if file.suffix in _TYPES} if _FOLDER.is_dir() else {}
_HEADERS = {"cache-control": "no-cache", "content-security-policy": "frame-ancestors 'none'"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
_STYLE = (
    "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "td{padding:0 1rem 0 0;vertical-align:top}"
)


@router.get("/")
async def page() -> Response:
    """The chat page."""
    return _file("index.html")


@router.get("/page/{name}")
async def part(name: str) -> Response:
    """A file of the chat page."""
    return _file(name)


def _file(name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise ApiError(404, "there is no such page; /docs describes the endpoints")
    return FileResponse(file, media_type=_TYPES[file.suffix], headers=_HEADERS)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The endpoints and their fields, as a page."""
    return HTMLResponse(_document(request.app.openapi()), headers={"content-security-policy": _POLICY})


def _document(description: dict[str, Any]) -> str:
    schemas = description.get("components", {}).get("schemas", {})
    parts = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            text = html.escape(operation.get("description", ""))
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{text}</p>")
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in body:
                parts.append(_fields(schemas[body["$ref"].rpartition("/")[2]]))
    title = html.escape(f"{description['info']['title']} {description['info']['version']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1>"
        f"<p>The same for programs: <a href=openapi.json>openapi.json</a></p>{''.join(parts)}</html>"
    )


def _fields(schema: dict[str, Any]) -> str:
    needed = schema.get("required", ())
    rows = [
        f"<tr><td><code>{html.escape(name)}</code><td>{_kind(field)}<td>"
        f"{'required' if name in needed else ''}<td>{html.escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _kind(field: dict[str, Any]) -> str:
    kinds = [
        one.get("type") or one.get("$ref", "any").rpartition("/")[2]
        for one in field.get("anyOf", [field])
        if one.get("type") != "null"
    ]
    return html.escape(" or ".join(dict.fromkeys(map(str, kinds))))
