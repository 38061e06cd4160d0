"""Transports from an HTTP client straight into the application: answers stream as they are made."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from fastllm.background import no_thread
from fastllm.errors import CancelledError, ForkError
from fastllm.server.app import create_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

    from fastllm.model import Model

__all__ = ["async_http_client", "http_client"]

T = TypeVar("T")
# Parts of an answer that wait to be taken.
_AHEAD = 8


def http_client(models: Mapping[str, Model], kind: type[Any]) -> Any:
    """An httpx client of this class whose requests are answered here."""
    return kind(transport=_sync_transport(_library(kind), create_app(models)), trust_env=False)


def async_http_client(models: Mapping[str, Model], kind: type[Any]) -> Any:
    """The same for asyncio."""
    return kind(transport=_async_transport(_library(kind), create_app(models)), trust_env=False)


def _library(kind: type[Any]) -> Any:
    """The HTTP library that a client class is of: httpx or its successor."""
    names = [base.__module__.partition(".")[0] for base in kind.__mro__]
    return sys.modules[next(name for name in names if name.startswith("httpx"))]


class _Exchange:
    """One request to the application and its answer, within one event loop."""

    def __init__(self, app: ASGIApp, request: Any, body: bytes) -> None:
        self._parts: asyncio.Queue[Message | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_AHEAD)
        self._left = asyncio.Event()
        self._body: bytes | None = body
        self._loop = asyncio.get_running_loop()
        url = request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (url.host, url.port or 80),
            "client": None,
        }
        self._task = self._loop.create_task(self._run(app, scope))
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._parts.put_nowait(None)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._left.is_set():
            await self._room.acquire()
            self._parts.put_nowait(message)

    async def take(self, seconds: float | None) -> Message | None:
        """The next message; None at the end.

        Raises:
            asyncio.TimeoutError: None came in time.
        """
        message = await asyncio.wait_for(self._parts.get(), seconds)
        self._room.release()
        return message

    async def close(self) -> None:
        """The client has left, or has everything; what still runs ends."""
        self.leave()
        await asyncio.gather(self._task, return_exceptions=True)

    def leave(self) -> None:
        """The client has left."""
        self._left.set()
        self._room.release()  # what waits for room sees that the client has left

    def abandon(self) -> None:
        """The same from any thread, for an answer that nobody closed."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.leave)


def _start(library: Any, message: Message | None, stream: Any) -> Any:
    if message is None:
        raise library.RemoteProtocolError("the application gave no answer")
    return library.Response(message["status"], headers=message["headers"], stream=stream)


def _seconds(request: Any) -> float | None:
    seconds: float | None = request.extensions.get("timeout", {}).get("read")
    return seconds


def _async_transport(library: Any, app: ASGIApp) -> Any:
    class Stream(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, exchange: _Exchange, seconds: float | None) -> None:
            self._exchange = exchange
            self._seconds = seconds
            weakref.finalize(self, exchange.abandon).atexit = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                while (message := await self._exchange.take(self._seconds)) is not None:
                    yield message.get("body", b"")
            except asyncio.TimeoutError:
                raise library.ReadTimeout("no part of the answer came in time") from None

        async def aclose(self) -> None:
            await self._exchange.close()

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            exchange = _Exchange(app, request, await request.aread())
            try:
                message = await exchange.take(_seconds(request))
                return _start(library, message, Stream(exchange, _seconds(request)))
            except BaseException as error:
                await exchange.close()
                if isinstance(error, asyncio.TimeoutError):
                    raise library.ReadTimeout("no answer came in time") from None
                raise

    return Transport()


def _sync_transport(library: Any, app: ASGIApp) -> Any:
    class Stream(library.SyncByteStream):  # type: ignore[misc]
        def __init__(self, thread: _LoopThread, exchange: _Exchange, seconds: float | None) -> None:
            self._thread = thread
            self._exchange = exchange
            self._seconds = seconds
            weakref.finalize(self, exchange.abandon).atexit = False

        def __iter__(self) -> Iterator[bytes]:
            try:
                while (message := self._thread.run(self._exchange.take(self._seconds))) is not None:
                    yield message.get("body", b"")
            except asyncio.TimeoutError:
                raise library.ReadTimeout("no part of the answer came in time") from None

        def close(self) -> None:
            with contextlib.suppress(CancelledError):
                self._thread.run(self._exchange.close())

    class Transport(library.BaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self._thread = _LoopThread()
            weakref.finalize(self, self._thread.close)

        def handle_request(self, request: Any) -> Any:
            thread, body = self._thread, request.read()

            async def begin() -> _Exchange:
                return _Exchange(app, request, body)

            exchange = thread.run(begin())
            try:
                message = thread.run(exchange.take(_seconds(request)))
                return _start(library, message, Stream(thread, exchange, _seconds(request)))
            except BaseException as error:
                exchange.abandon()
                if isinstance(error, asyncio.TimeoutError):
                    raise library.ReadTimeout("no answer came in time") from None
                raise

        def close(self) -> None:
            self._thread.close()

    return Transport()


class _LoopThread:
    """An event loop on a thread of its own, from the first use until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._process = os.getpid()
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop and waits for it.

        Raises:
            CancelledError: The client was closed.
            ForkError: This is another process than that of the client.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._running())
        except BaseException:
            work.close()
            raise
        return self._result(future)

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result()
        except BaseException:
            if future.cancelled():
                raise CancelledError("the client was closed") from None
            if not future.done():  # Ctrl-C
                future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        if os.getpid() != self._process:
            raise ForkError(f"the client was made in process {self._process}, before this process was forked")
        with self._lock:
            if self._closed:
                raise CancelledError("the client was closed")
            if self._thread is None:
                ready = threading.Event()
                self._thread = threading.Thread(target=self._main, args=(ready,), name="fastllm-client", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    self._thread = None
                    raise no_thread(error) from error
                ready.wait()
            if self._loop is None:
                raise CancelledError("the event loop of the client did not start")
            return self._loop

    def _main(self, ready: threading.Event) -> None:
        async def live() -> None:
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await self._end.wait()

        try:
            asyncio.run(live())
        finally:
            ready.set()

    def close(self) -> None:
        """Ends what still runs, the loop and the thread."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            thread, loop, end = self._thread, self._loop, self._end
        if thread is None or loop is None or end is None:
            return
        with contextlib.suppress(RuntimeError):  # closed before
            loop.call_soon_threadsafe(end.set)
        if thread is not threading.current_thread():  # garbage is collected on any thread
            thread.join()
