"""A server process: listens, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket as sockets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import uvicorn

from fastllm.background import no_thread
from fastllm.server.app import create_app
from fastllm.server.protocol import protocol
from fastllm.server.service import WORKERS

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.server.options import ServerOptions
    from fastllm.server.service import Service

__all__ = ["bind", "serve"]

_LOGGER = logging.getLogger("fastllm.server")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Longest start of a request, in bytes: headers and all.
_MOST_HEADERS = 64 << 10
# Connections that the system keeps until they are accepted, and that are accepted in one go.
_BACKLOG = 2048
_ACCEPTED = 64
# Open files that are used at most, and those of them that are no connections.
_MOST_FILES = 65_536
_SPARE_FILES = 2 * _ACCEPTED
# Seconds that answers cut by the end of the server have to reach their clients.
_LAST_WORDS = 2.0


def serve(
    models: Mapping[str, Model],
    options: ServerOptions,
    socket: sockets.socket,
    *,
    started: Callable[[str, int], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and then until the running requests have ended or the drain limit is reached.

    A second signal ends the process at once, with 128 plus its number as exit code.

    Args:
        models: The models by name.
        options: Limits and keys.
        socket: From `bind`; closed at the end.
        started: Called with the address and the port when requests are taken.

    Raises:
        OSError: Another process listens on the address by now.
    """
    app = create_app(models, options)
    files = _more_files()
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol(options, files - min(_SPARE_FILES, files // 2)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_ACCEPTED,
        timeout_keep_alive=max(1, round(options.keep_alive)),
        h11_max_incomplete_event_size=_MOST_HEADERS,
    )
    with socket:
        asyncio.run(_run(config, app.state.service, socket, started))


async def _run(
    config: uvicorn.Config, service: Service, socket: sockets.socket, started: Callable[[str, int], None] | None
) -> None:
    with ThreadPoolExecutor(WORKERS, "fastllm-worker") as workers:
        # All at once: when memory is short later, no thread can be started, and requests need one.
        everyone = threading.Barrier(WORKERS)
        try:
            for _ in range(WORKERS):
                workers.submit(everyone.wait)
        except RuntimeError as error:
            everyone.abort()  # those that started would wait for the others forever, and this process for them
            raise no_thread(error) from error
        asyncio.get_running_loop().set_default_executor(workers)
        await _Server(config, service).run_until_signal(socket, started)


def bind(host: str, port: int) -> sockets.socket:
    """A socket with an address that does not listen yet: what is wrong with the address shows before models are loaded.

    Args:
        host: Address or name of this machine.
        port: Port; 0: a free one.

    Raises:
        OSError: The address cannot be used.
    """
    found = sockets.getaddrinfo(host, port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE)
    family, _, _, _, address = found[0]
    socket = sockets.socket(family, sockets.SOCK_STREAM)
    try:
        # Elsewhere this lets two servers share a port; and a port of the system's choice is to be nobody else's.
        if os.name == "posix" and port != 0:
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        socket.bind(address)
    except OSError as error:
        socket.close()
        raise OSError(error.errno, f"{error.strerror}: {host} port {port}") from None
    return socket


def _more_files() -> int:
    """Allows this process as many open files as it may have, and says how many these are."""
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return _MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft


class _Server(uvicorn.Server):
    """uvicorn's server, ended by us."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._listening = asyncio.Event()

    async def startup(self, sockets: Any = ()) -> None:
        """Says when the server listens, or that it cannot."""
        try:
            await super().startup(sockets)
            for socket in sockets:
                socket.listen(_BACKLOG)
        finally:
            self._listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `run_until_signal` does it."""
        yield

    async def run_until_signal(self, socket: sockets.socket, started: Callable[[str, int], None] | None) -> None:
        """Serves on a socket until a signal, and then drains."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_Complaints())
        limit: list[asyncio.TimerHandle] = []

        def stop(number: int) -> None:
            if self._service.draining:
                with contextlib.suppress(OSError):
                    sys.stderr.flush()
                os._exit(128 + number)
            self._service.draining = True
            self.should_exit = True
            limit.append(loop.call_later(self._service.options.drain_timeout, self._cut))

        with _handlers(loop, stop):
            serving = asyncio.ensure_future(self.serve(sockets=[socket]))
            await self._listening.wait()
            if self.started and started is not None:
                started(*socket.getsockname()[:2])
            await serving
        for timer in limit:
            timer.cancel()

    def _cut(self) -> None:
        self._service.cut_all()
        asyncio.get_running_loop().call_later(_LAST_WORDS, self._leave)

    def _leave(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Complaints:
    """Logs what goes wrong in the event loop, at most a line a second: without free files, all that wait go wrong."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if loop.time() < self._next:
            return
        self._next = loop.time() + 1
        error = context.get("exception")
        what = "" if error is None else f" ({type(error).__name__})"
        _LOGGER.error("%s%s", context.get("message", "the event loop complains"), what)


@contextlib.contextmanager
def _handlers(loop: asyncio.AbstractEventLoop, stop: Callable[[int], None]) -> Iterator[None]:
    """Calls `stop` with the number of a signal, in the loop."""
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, _: object) -> None:
        loop.call_soon_threadsafe(stop, number)

    try:
        for number in _SIGNALS:
            before[number] = signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
