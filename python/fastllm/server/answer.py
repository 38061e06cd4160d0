"""Answers that end when the client leaves, and streams of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response

from fastllm.server.errors import ApiError, ClientGoneError, StoppingError, mistake
from fastllm.server.strict_json import dumps

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from fastllm.server.generate import Job
    from fastllm.server.service import Service

__all__ = ["DONE", "EventStream", "attend", "event", "json_response"]

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
# What an event stream says while nothing happens, so that proxies and readers see life.
_COMMENT = b": waiting\n\n"
_QUIET = 15.0


def event(value: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    return (b"" if name is None else b"event: " + name.encode() + b"\n") + b"data: " + dumps(value) + b"\n\n"


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(dumps(value), status, media_type="application/json")


async def attend(service: Service, receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Does the work, but stops it when the client leaves or the server ends.

    Raises:
        ClientGoneError: The client left.
        StoppingError: The server ends.
    """
    loop = asyncio.get_running_loop()
    task, gone = loop.create_task(work), loop.create_task(_gone(receive))
    with service.cut() as cut:
        try:
            futures: set[asyncio.Future[Any]] = {task, gone, cut}
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ClientGoneError if gone.done() else StoppingError
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events.

    Args:
        service: Where this happens.
        job: What makes the events; closed at the end.
        events: Whole events.
        failure: The event that tells of an error.
    """

    media_type = "text/event-stream"

    def __init__(
        self, service: Service, job: Job, events: AsyncGenerator[bytes, None], failure: Callable[[ApiError], bytes]
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._service = service
        self._job = job
        self._events = events
        self._failure = failure
        self._sent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events until they end, the client leaves or the server ends."""
        last = b""
        scope["fastllm.stream"] = True
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await attend(self._service, receive, self._send(send))
        except ApiError as error:
            last = self._failure(error)
            scope["fastllm.code"] = error.code
        except ClientGoneError:
            scope["fastllm.gone"] = True
            return
        except Exception as error:  # noqa: BLE001 - logged with the request
            scope["fastllm.error"] = error
            last = self._failure(mistake(error))
        finally:
            await self._events.aclose()
            await self._job.close()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send(self, send: Send) -> None:
        quiet = asyncio.ensure_future(self._comment(send))
        try:
            async for body in self._events:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._sent = True
        finally:
            quiet.cancel()

    async def _comment(self, send: Send) -> None:
        while True:
            self._sent = False
            await asyncio.sleep(_QUIET)
            if not self._sent:
                await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})
