"""A server process: listens, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import uvicorn

from fastllm.server.app import create_app
from fastllm.server.protocol import protocol

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.server.options import ServerOptions
    from fastllm.server.service import Service

__all__ = ["serve"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Longest start of a request, in bytes: headers and all.
_MOST_HEADERS = 64 << 10
# Seconds that answers cut by the end of the server have to reach their clients.
_LAST_WORDS = 2.0


def serve(
    models: Mapping[str, Model],
    options: ServerOptions,
    *,
    host: str,
    port: int,
    started: Callable[[str, int], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and then until the running requests have ended or the drain limit is reached.

    A second signal ends the process at once, with 128 plus its number as exit code.

    Args:
        models: The models by name.
        options: Limits and keys.
        host: Address to listen on.
        port: Port to listen on; 0: a free one.
        started: Called with the address and the port when requests are taken.

    Raises:
        OSError: The address cannot be used.
    """
    app = create_app(models, options)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",
        http=protocol(options),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=max(1, round(options.keep_alive)),
        h11_max_incomplete_event_size=_MOST_HEADERS,
    )
    socket = _listen(host, port)
    try:
        asyncio.run(_run(config, app.state.service, socket, started))
    finally:
        socket.close()


async def _run(
    config: uvicorn.Config, service: Service, socket: Any, started: Callable[[str, int], None] | None
) -> None:
    await _Server(config, service).run_until_signal(socket, started)


def _listen(host: str, port: int) -> Any:
    import socket as sockets  # noqa: PLC0415

    family, _, _, _, address = sockets.getaddrinfo(host, port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE)[0]
    return sockets.create_server(address[:2], family=family, backlog=2048)


class _Server(uvicorn.Server):
    """uvicorn's server, ended by us."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._listening = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        """Says that the server listens."""
        await super().startup(sockets)
        self._listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `run_until_signal` does it."""
        yield

    async def run_until_signal(self, socket: Any, started: Callable[[str, int], None] | None) -> None:
        """Serves on a socket until a signal, and then drains."""
        loop = asyncio.get_running_loop()
        limit: list[asyncio.TimerHandle] = []

        def stop(number: int) -> None:
            if self._service.draining:
                sys.stderr.flush()
                os._exit(128 + number)
            self._service.draining = True
            self.should_exit = True
            limit.append(loop.call_later(self._service.options.drain_timeout, self._cut))

        with _handlers(loop, stop):
            serving = asyncio.ensure_future(self.serve(sockets=[socket]))
            await self._listening.wait()
            if started is not None:
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
