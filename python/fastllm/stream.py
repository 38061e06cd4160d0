"""Streams: the output of a request while it is made."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from fastllm import _native
from fastllm.errors import EventLoopError, InternalError
from fastllm.results import (
    ChatChunk,
    ChatReply,
    Chunk,
    FinishReason,
    Generation,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from typing_extensions import Self

    from fastllm.options import SamplingParams
    from fastllm.tokenizer import Tokenizer

    _Event = _native.Prefill | _native.PromptLogprobs | _native.Token | _native.Finished

__all__ = ["AsyncChatStream", "AsyncTokenStream", "ChatStream", "TokenStream"]

C = TypeVar("C")
R = TypeVar("R")
Progress = Callable[[int, int], object]


class _Output(Generic[C, R]):
    """What a request has made so far."""

    def __init__(
        self,
        chunk: Callable[[str, tuple[int, ...], tuple[TokenLogprob, ...] | None], C],
        result: Callable[..., R],
        tokenizer: Tokenizer,
        params: SamplingParams,
        progress: Progress | None,
    ) -> None:
        self._chunk = chunk
        self._result = result
        self._tokenizer = tokenizer._native  # noqa: SLF001 - one package
        self._params = params
        self._progress = progress
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] | None = None if params.logprobs is None else []
        self._prompt_logprobs: list[TokenLogprob | None] | None = None if params.prompt_logprobs is None else [None]
        self.end: _native.Finished | None = None
        # Whether the rest of the output is not wanted.
        self.enough = False
        self.prompt_ids: Sequence[int] | None = None

    def add(self, event: _Event) -> C | None:
        """Takes an event; the chunk that it makes, if it does."""
        if isinstance(event, _native.Token):
            self._texts.append(event.text)
            self._ids.append(event.id)
            logprobs: tuple[TokenLogprob, ...] | None = None
            if self._logprobs is not None:
                logprobs = (self._logprob(event.id, 0.0 if event.logprob is None else event.logprob, event.top or ()),)
                self._logprobs.extend(logprobs)
            return self._chunk(event.text, (event.id,), logprobs)
        if isinstance(event, _native.Prefill):
            if self._progress is not None:
                self._progress(event.done, event.total)
            return None
        if isinstance(event, _native.PromptLogprobs):
            if self._prompt_logprobs is not None:
                self._prompt_logprobs += [self._logprob(*one) for one in event.tokens]
            return None
        self.end = event
        if not event.text:
            return None
        self._texts.append(event.text)
        return self._chunk(event.text, (), None if self._logprobs is None else ())

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """Of the tokens of the prompt, as far as it was read, when they were asked for."""
        return None if self._prompt_logprobs is None else tuple(self._prompt_logprobs)

    def result(self, end: _native.Finished) -> R:
        """All of it."""
        reason: FinishReason = end.reason
        stop: str | int | None = end.stop_token
        if end.stop_string is not None:
            stop = self._params.stop[end.stop_string]
        return self._result(
            "".join(self._texts),
            tuple(self._ids),
            reason,
            stop,
            Usage(end.prompt_tokens, end.cached_tokens, end.completion_tokens),
            Timings(
                time_to_first_token=end.time_to_first_token,
                prompt_seconds=end.prompt_seconds,
                decode_seconds=end.decode_seconds,
                prompt_tokens_per_second=end.prompt_tokens_per_second,
                decode_tokens_per_second=end.decode_tokens_per_second,
                gigabytes_per_second=end.gigabytes_per_second,
            ),
            None if self._logprobs is None else tuple(self._logprobs),
            **({} if self._prompt_logprobs is None else {"prompt_logprobs": self.prompt_logprobs}),
        )

    def _logprob(self, id_: int, logprob: float, top: Sequence[tuple[int, float]]) -> TokenLogprob:
        others = tuple(TopLogprob(other, self._text(other), x) for other, x in top)
        return TokenLogprob(id_, self._text(id_), logprob, others)

    def _text(self, id_: int) -> str:
        return self._tokenizer.display(id_) or ""


class _Stream(Generic[C, R]):
    """A running request: an iterator over chunks and a context manager.

    Leaving a `for` loop over it, leaving its `with` block, or dropping it stops the work. `next` takes single chunks.
    """

    def __init__(self, output: _Output[C, R], request: _native.Request) -> None:
        self._output = output
        self._request = request

    def __iter__(self) -> Iterator[C]:
        try:
            while (chunk := self._take()) is not None:
                yield chunk
        finally:
            self.cancel()

    def __next__(self) -> C:
        chunk = self._take()
        if chunk is None:
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Stops the work; what was made until then can still be taken. Does nothing at the end."""
        self._request.cancel()

    def result(self) -> R:
        """Waits for the end. The whole output, with the chunks that were taken before."""
        while self._take() is not None:
            pass
        if self._output.end is None:
            raise InternalError("the request ended without a result")
        return self._output.result(self._output.end)

    def _take(self) -> C | None:
        while self._output.end is None:
            try:
                event = self._request.next(wait=True)
            except BaseException:
                self._request.cancel()
                raise
            if event is None:
                raise InternalError("the request has ended with an error before")
            chunk = self._output.add(event)
            if self._output.enough:
                self._request.cancel()
            if chunk is not None:
                return chunk
        return None


class TokenStream(_Stream[Chunk, Generation]):
    """A running `Model.stream`."""


class ChatStream(_Stream[ChatChunk, ChatReply]):
    """A running `Model.chat_stream`."""


def require_asyncio() -> asyncio.AbstractEventLoop:
    """The running event loop of asyncio.

    Raises:
        EventLoopError: None is running; the message names the library that runs instead, if sniffio knows it.
    """
    import asyncio  # noqa: PLC0415 - `import fastllm` is quick

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    # Libraries other than asyncio announce themselves there; one that is not imported does not run.
    sniffio, library = sys.modules.get("sniffio"), None
    if sniffio is not None:
        with contextlib.suppress(sniffio.AsyncLibraryNotFoundError):
            library = sniffio.current_async_library()
    if library in (None, "asyncio"):
        raise EventLoopError("the asynchronous methods of fastllm need a running asyncio event loop: use asyncio.run")
    raise EventLoopError(
        f"the asynchronous methods of fastllm need asyncio, and {library} is running: call the blocking method in a "
        "thread (anyio.to_thread.run_sync), or run asyncio (anyio.run with backend='asyncio')"
    )


class _Loop:
    """Wakes the streams of one event loop: the engine writes to a pipe that the loop, or a thread, watches."""

    _all: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop]] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._streams: set[asyncio.Event] = set()
        self.waker = _native.Waker()
        self._descriptor = self.waker.fileno()
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._wake)
        else:  # Windows: its loop cannot wait for pipes
            threading.Thread(target=self._watch, name="fastllm-waker", daemon=True).start()

    @classmethod
    def running(cls) -> _Loop:
        loop = require_asyncio()
        found = cls._all.get(loop)
        if found is None:
            found = cls._all[loop] = cls(loop)
        return found

    def add(self) -> asyncio.Event:
        import asyncio  # noqa: PLC0415

        news = asyncio.Event()
        self._streams.add(news)
        return news

    def remove(self, news: asyncio.Event) -> None:
        import asyncio  # noqa: PLC0415

        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - get_running_loop raises where there is none
            self._remove(loop, news)
        else:  # garbage is collected on any thread
            loop.call_soon_threadsafe(self._remove, loop, news)

    def _remove(self, loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
        self._streams.discard(news)
        if not self._streams and self._all.get(loop) is self:
            del self._all[loop]
            if self._descriptor is not None:
                loop.remove_reader(self._descriptor)
            else:
                self.waker.close()

    def _watch(self) -> None:
        while self.waker.wait():
            loop = self._loop()
            if loop is None or loop.is_closed():
                return
            loop.call_soon_threadsafe(self._notify)
            del loop

    def _wake(self) -> None:
        self.waker.clear()
        self._notify()

    def _notify(self) -> None:
        for news in self._streams:
            news.set()


class _AsyncStream(Generic[C, R]):
    """A request for asyncio: an iterator over chunks and a context manager. It starts when it is first awaited.

    Leaving an `async for` loop over it, leaving its `async with` block, dropping it, or cancelling the task that waits
    for it stops the work.
    """

    def __init__(self, output: _Output[C, R], submit: Callable[[_native.Waker], Awaitable[_native.Request]]) -> None:
        self._output = output
        self._submit = submit
        self._request: _native.Request | None = None
        self._cancelled = False
        self._failed = False
        self._news: asyncio.Event | None = None
        self._loop: _Loop | None = None

    async def __aiter__(self) -> AsyncIterator[C]:
        try:
            while (chunk := await self._take()) is not None:
                yield chunk
        finally:
            self.cancel()

    async def __anext__(self) -> C:
        chunk = await self._take()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Stops the work; what was made until then can still be taken. Does nothing at the end."""
        self._cancelled = True
        if self._request is not None:
            self._request.cancel()

    async def start(self) -> None:
        """Submits the request now, instead of with the first chunk: errors of the request are raised here."""
        if self._request is None:
            try:
                await self._begin()
            except BaseException:
                self.cancel()
                raise

    @property
    def prompt_ids(self) -> Sequence[int] | None:
        """The tokens of the prompt; None for a text that is not tokenized before the start."""
        return self._output.prompt_ids

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """Of the tokens of the prompt, as far as it was read, when they were asked for."""
        return self._output.prompt_logprobs

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt; None for a text that is not tokenized before the start."""
        return None if self._output.prompt_ids is None else len(self._output.prompt_ids)

    def close(self) -> None:
        """Stops the work and gives up what was not taken. In its event loop only, and while no task awaits it."""
        self.cancel()
        self._leave()

    async def result(self) -> R:
        """Waits for the end. The whole output, with the chunks that were taken before."""
        while await self._take() is not None:
            pass
        if self._output.end is None:
            raise InternalError("the request ended without a result")
        return self._output.result(self._output.end)

    async def _take(self) -> C | None:
        try:
            while self._output.end is None:
                event = await self._event()
                chunk = self._output.add(event)
                if self._output.enough and self._request is not None:
                    self._request.cancel()
                if chunk is not None:
                    return chunk
        except BaseException:
            self.cancel()
            raise
        self._leave()
        return None

    async def _begin(self) -> tuple[_native.Request, asyncio.Event]:
        if self._failed:
            raise InternalError("the request has ended with an error before")
        if self._loop is None or self._news is None:
            self._loop = _Loop.running()
            self._news = self._loop.add()
        if self._request is None:
            try:
                self._request = await self._submit(self._loop.waker)
            except BaseException:
                self._leave()
                raise
            if self._cancelled:
                self._request.cancel()
        return self._request, self._news

    async def _event(self) -> _Event:
        request, news = await self._begin()
        while True:
            news.clear()
            try:
                event = request.next(wait=False)
            except BaseException:
                self._failed = True
                self._leave()
                raise
            if event is not None:
                return event
            await news.wait()

    def _leave(self) -> None:
        if self._loop is not None and self._news is not None:
            self._loop.remove(self._news)
        self._loop = self._news = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter, or the loop, may be half gone
            self._leave()


class AsyncTokenStream(_AsyncStream[Chunk, Generation]):
    """A `Model.astream`."""


class AsyncChatStream(_AsyncStream[ChatChunk, ChatReply]):
    """A `Model.achat_stream`."""
