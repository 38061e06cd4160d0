"""The HTTP/1.1 connection: uvicorn's, with limits of time for headers and for clients that do not read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from fastllm.server.options import ServerOptions

__all__ = ["protocol"]

# Seconds between the bytes that find out whether a client that ended its side still listens.
_PROBES = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5)


_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def protocol(options: ServerOptions, most: int) -> type[H11Protocol]:
    """The class of connections with these limits, of which there are at most so many."""

    class Limited(_Connection):
        limits = options
        most_connections = most

    return Limited


class _Connection(H11Protocol):
    limits: ServerOptions
    most_connections: int

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._headers: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.write(_FULL)
            self._close()
        else:
            self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._headers, self._stuck, self._probe):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_headers()

    def _watch_headers(self) -> None:
        """While a request is awaited, a timer runs; bytes do not put it off."""
        if self.conn.their_state is not h11.IDLE:
            if self._headers is not None:
                self._headers.cancel()
                self._headers = None
        elif self._headers is None:
            self._headers = self.loop.call_later(self.limits.header_timeout, self._headers_late)

    def _headers_late(self) -> None:
        self._headers = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0] and self.conn.our_state is h11.IDLE:
            headers = [(b"connection", b"close"), (b"content-length", b"0")]
            for event in (
                h11.Response(status_code=408, headers=headers, reason=b"Request Timeout"),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._close()

    def _close(self) -> None:
        """Closes; what the client does not take until the limit is given up."""
        self.transport.close()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.limits.write_timeout, self.transport.abort)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client ended its side. One that has gone refuses what is sent, one that still listens takes it."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        if self.conn.their_state not in {h11.DONE, h11.MUST_CLOSE, h11.CLOSED}:
            return False  # in the middle of its request
        self._send_probe(0)
        return True

    def _send_probe(self, count: int) -> None:
        cycle = self.cycle
        if self.transport.is_closing() or cycle.response_complete:
            return
        if not cycle.response_started:
            event: Any = h11.InformationalResponse(status_code=102, headers=[], reason=b"Processing")
            self.transport.write(self.conn.send(event) or b"")
        elif self.scope.get("fastllm.stream"):
            self.transport.write(self.conn.send(h11.Data(data=b":\n\n")) or b"")
        delay = _PROBES[count + 1] if count + 1 < len(_PROBES) else 1.0
        self._probe = self.loop.call_later(delay, self._send_probe, count + 1)
