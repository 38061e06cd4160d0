"""What every request passes before a route sees it: identity, keys, hosts, sizes, times; and its line in the log."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from fastllm.background import GATE, in_thread
from fastllm.server import log
from fastllm.server.caller import CALLER, Caller
from fastllm.server.errors import ApiError, ClientGoneError, StoppingError, body_of, mistake
from fastllm.server.service import LARGE
from fastllm.server.strict_json import dumps, loads

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fastllm.server.service import Service

__all__ = ["Guard", "Record", "is_loopback"]

# Paths that need no key: they say nothing of models or users.
OPEN = frozenset({"/", "/health", "/docs", "/openapi.json", "/favicon.ico"})
OPEN_FOLDER = "/page/"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Bodies in memory at a time, in multiples of the longest one.
_BODIES = 16
# Header fields of a request.
_MAX_HEADERS = 256
# A Host header: a name or address, and perhaps a port. Nothing else may stand before or after it.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_MAX_PORT = 65_535
# Seconds that the rest of a refused body is taken, so that the client gets to reading the answer.
_LINGER = 2.0
_CLIENT_CLOSED = 499


class Record:
    """The outermost layer: a request gets an id, is counted and logged, and mistakes of the server become answers."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # As a GET, of which the client gets everything but the body.
            scope, send = {**scope, "method": "GET", "fastllm.method": "HEAD"}, _without_body(send)
        given = _header(scope, b"x-request-id")
        scope["fastllm.id"] = given if given and _ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        status = 0
        begin = time.perf_counter()

        async def record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", scope["fastllm.id"].encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        metrics = self._service.metrics
        metrics.active.inc()
        try:
            await self._app(scope, receive, record)
        except ClientGoneError:
            scope["fastllm.gone"] = True
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the server
            scope["fastllm.error"] = error
            if status:
                raise RuntimeError("the answer was begun and cannot be finished") from None
            await answer(scope, record, mistake(error))
        finally:
            metrics.active.dec()
            if scope.get("fastllm.gone"):
                status = _CLIENT_CLOSED
                metrics.disconnected.inc()
            seconds = time.perf_counter() - begin
            path = getattr(scope.get("route"), "path", "other")
            metrics.requests.labels(path, status).inc()
            metrics.seconds.labels(path).observe(seconds)
            log.request(scope, status, seconds)


class Guard:
    """Refuses what should not reach a route, before its body is read, and reads and parses the body of what may."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        # Hashed, so that their lengths are the same.
        self._keys = [hashlib.sha256(key.encode()).digest() for key in service.options.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._check(scope)
            length = self._length(scope) if scope["method"] == "POST" else None
        except ApiError as error:
            await refuse(scope, receive, send, error, self._service.options.max_body)
            return
        # Whoever calls the application in its own task gets its context back as it was.
        token = CALLER.set(caller)
        try:
            if scope["method"] == "POST":
                await self._with_body(scope, receive, send, length)
            else:
                await self._app(scope, receive, send)
        finally:
            CALLER.reset(token)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, length: int | None) -> None:
        body, limit = _Body(self._service), self._service.options.max_body
        token = None
        try:
            try:
                holder = [await body.read(scope, receive, length)]
            except ApiError as error:
                await refuse(scope, receive, send, error, limit)
                return
            large = scope["fastllm.large"] = len(holder[0]) > LARGE
            token = GATE.set(lambda kind: self._service.gate(kind, large=large))
            try:
                scope["fastllm.json"] = await in_thread(loads, holder, limit) if large else loads(holder, limit)
            except ApiError as error:
                await answer(scope, send, error)
                return
            await self._app(scope, _again(receive), send)
        finally:
            if token is not None:
                GATE.reset(token)
            body.close()

    def _check(self, scope: Scope) -> Caller:
        options = self._service.options
        if len(scope["headers"]) > _MAX_HEADERS:
            raise ApiError(431, f"the request has more than {_MAX_HEADERS} header fields", code="too_many_headers")
        if options.allowed_hosts is not None and _host(scope) not in options.allowed_hosts:
            raise ApiError(403, "this server does not answer for that Host; --allowed-host adds one", code="wrong_host")
        path = scope["path"]
        key = self._key(scope) if self._keys else None
        if self._keys and path not in OPEN and not path.startswith(OPEN_FOLDER) and key is None:
            challenge = {"www-authenticate": "Bearer"}
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key", headers=challenge)
        if self._service.draining and scope["method"] == "POST":
            raise StoppingError
        names = [name for name, _ in scope["headers"]]
        if b"transfer-encoding" in names and b"content-length" in names:
            raise ApiError(400, "a body has a Content-Length or a Transfer-Encoding, not both")
        return Caller("" if key is None else key.hex())

    def _key(self, scope: Scope) -> bytes | None:
        """The digest of the key, if exactly one was sent and it is valid. Constant time."""
        sent = [value for name, value in scope["headers"] if name == b"x-api-key"]
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, key = value.partition(b" ")
                sent.append(key.strip() if scheme.lower() == b"bearer" else b"")
        # Clients of Anthropic send one key in both headers.
        if len(set(sent)) != 1:
            return None
        digest = hashlib.sha256(sent[0]).digest()
        valid = any([hmac.compare_digest(digest, key) for key in self._keys])  # noqa: C419 - all are compared
        return digest if valid else None

    def _length(self, scope: Scope) -> int | None:
        kind = (_header(scope, b"content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, "the Content-Type of a body must be application/json", code="unsupported_media_type")
        if (_header(scope, b"content-encoding") or "identity").lower() != "identity":
            raise ApiError(415, "compressed bodies are not taken", code="unsupported_media_type")
        text = _header(scope, b"content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            raise ApiError(400, "the Content-Length is no number")
        return self._service_limit(int(text) if len(text) < 20 else 2**63)  # noqa: PLR2004

    def _service_limit(self, length: int) -> int:
        if length > self._service.options.max_body:
            raise too_large(self._service.options.max_body)
        return length


class _Body:
    """Reads a body within its limits, and counts its bytes as long as it is in memory."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._held = 0

    async def read(self, scope: Scope, receive: Receive, length: int | None) -> bytes:
        """Reads all of it.

        Raises:
            ApiError: It is too large or too slow.
            ClientGoneError: The client left.
        """
        try:
            return await asyncio.wait_for(self._all(scope, receive, length), self._service.options.body_timeout)
        except asyncio.TimeoutError:
            raise ApiError(408, "the body did not come in time", code="body_timeout") from None

    async def _all(self, scope: Scope, receive: Receive, length: int | None) -> bytes:
        most = self._service.options.max_body
        parts: list[bytes] = []
        self._hold(length or 0)
        size, reserved = 0, length or 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if scope.get("fastllm.small_chunks"):
                raise ApiError(400, "the chunks of the body are too small: send fewer and larger ones")
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise too_large(most)
            if size > reserved:
                self._hold(size - reserved)
                reserved = size
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _hold(self, count: int) -> None:
        if self._service.body_bytes + count > _BODIES * self._service.options.max_body:
            raise ApiError(503, "too many bodies at once", code="overloaded", headers={"retry-after": "1"})
        self._service.body_bytes += count
        self._held += count

    def close(self) -> None:
        """The body is no longer needed."""
        self._service.body_bytes -= self._held
        self._held = 0


def _again(receive: Receive) -> Receive:
    """What a route receives after the body was read: the value is in the scope, and that there was a body is enough."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": b"{}", "more_body": False}

    return again


def too_large(most: int) -> ApiError:
    """The body is longer than allowed."""
    return ApiError(413, f"the body is longer than {most} bytes", code="body_too_large")


async def answer(scope: Scope, send: Send, error: ApiError, *, more: bool = False) -> None:
    """Sends an error. With `more`, the last, empty part of the answer is still to be sent."""
    body = dumps(body_of(error, scope["path"], scope.get("fastllm.id")))
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    if more:
        headers["connection"] = "close"
    scope["fastllm.code"] = error.code
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def refuse(scope: Scope, receive: Receive, send: Send, error: ApiError, most: int) -> None:
    """Sends an error and closes the connection, but takes some of the body first: it would meet a closed door."""
    await answer(scope, send, error, more=True)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_discard(receive, 4 * most), _LINGER)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive, most: int) -> None:
    size = 0
    while size <= most:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _header(scope: Scope, name: bytes) -> str | None:
    values: list[Any] = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


def _host(scope: Scope) -> str | None:
    """The name or address in the Host header; None where the whole of it is not one, with or without a port."""
    found = _HOST.fullmatch((_header(scope, b"host") or "").lower())
    if found is None or int(found[2] or 0) > _MAX_PORT:
        return None
    name = found[1]
    if not name.startswith("["):
        return name.removesuffix(".")
    try:
        return str(ipaddress.IPv6Address(name[1:-1]))
    except ValueError:
        return None


def _without_body(send: Send) -> Send:
    async def headers_only(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return headers_only


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
