"""The HTTP/1.1 connection: uvicorn's, with limits on headers, bodies and chunks, and on clients that do not read."""

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


# Bytes that are parsed at a time: the limits on headers and chunks are checked between two pieces.
_PIECE = 8 << 10
# Chunks of a body that may be small, and the mean bytes of a chunk beyond them: each chunk costs as much as a kilobyte.
_SMALL_CHUNKS = 1024
_MEAN_CHUNK = 128
# Seconds that a body which nobody reads has to end: after the answer, and after the limit on the time of bodies.
_LINGER = 2.0
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def protocol(options: ServerOptions, most: int) -> type[H11Protocol]:
    """The class of connections with these limits, of which there are at most so many."""

    class Limited(_Connection):
        limits = options
        most_connections = most

    return Limited


class _Parser(h11.Connection):
    """h11's parser, which counts the chunks of a body."""

    chunks = 0
    chunk_bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self.chunks += 1
            self.chunk_bytes += len(event.data)
        elif isinstance(event, h11.Request):
            self.chunks = self.chunk_bytes = 0
        return event

    @property
    def too_small(self) -> bool:
        """Whether the chunks of the body cost more than their bytes are worth."""
        return self.chunks > _SMALL_CHUNKS and self.chunk_bytes < _MEAN_CHUNK * self.chunks


class _Connection(H11Protocol):
    limits: ServerOptions
    most_connections: int

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.conn: _Parser = _Parser(h11.SERVER, self.config.h11_max_incomplete_event_size or _PIECE)
        self._headers: asyncio.TimerHandle | None = None
        self._body: asyncio.TimerHandle | None = None
        # The request whose body `_body` is about.
        self._body_of: Any = None
        # Whether the rest of what comes is not even looked at.
        self._deaf = False
        self._stuck: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.write(_FULL)
            self._close()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._headers, self._body, self._stuck, self._probe):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            if self._deaf or self.transport.is_closing():
                return
            super().data_received(data[start : start + _PIECE])
            if self.conn.too_small:
                self._refuse_chunks()
        self._watch()

    def _watch(self) -> None:
        """While a request or its body is awaited, a timer runs; bytes do not put it off."""
        state = self.conn.their_state
        if state is not h11.IDLE and self._headers is not None:
            self._headers.cancel()
            self._headers = None
        elif state is h11.IDLE and self._headers is None:
            self._headers = self.loop.call_later(self.limits.header_timeout, self._headers_late)
        if self._body is not None and (state is not h11.SEND_BODY or self._body_of is not self.cycle):
            self._body.cancel()
            self._body = None
        if state is h11.SEND_BODY and self._body is None:
            # A body that is read is refused at the limit itself, with an answer.
            self._body = self.loop.call_later(self.limits.body_timeout + _LINGER, self._close)
            self._body_of = self.cycle

    def on_response_complete(self) -> None:
        """A body that comes after the answer is of no use: it soon ends, or the connection does."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            if self._body is not None:
                self._body.cancel()
            self._body = self.loop.call_later(_LINGER, self._close)
            self._body_of = self.cycle

    def _refuse_chunks(self) -> None:
        """Stops parsing. The request gets an answer where somebody reads its body, otherwise the connection ends."""
        self._deaf = True
        if self.cycle.response_complete or self.scope["method"] != "POST":
            self._close()
        else:
            self.scope["fastllm.small_chunks"] = True  # type: ignore[typeddict-unknown-key]
            self.cycle.message_event.set()

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
