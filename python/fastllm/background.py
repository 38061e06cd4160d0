"""Work beside the event loop that stops when its task is cancelled."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeVar

from fastllm import _native
from fastllm.errors import OutOfMemoryError

__all__ = ["GATE", "Kind", "in_thread", "no_thread"]

T = TypeVar("T")
Kind = Literal["text", "grammar"]

# Limits how much work of a kind runs at once: a context that is entered while the work runs. A server sets it for each
# request; elsewhere there is none.
GATE: contextvars.ContextVar[Callable[[Kind], AbstractAsyncContextManager[None]] | None] = contextvars.ContextVar(
    "fastllm.gate", default=None
)


async def in_thread(function: Callable[..., T], *arguments: Any, kind: Kind = "text") -> T:
    """`function(*arguments)` on another thread, with the context variables of this one.

    When the task is cancelled, native code in the call stops soon, and the cancellation is raised once it has: whoever
    counts what runs counts right.

    Args:
        function: What is called.
        arguments: Its arguments.
        kind: What it does, for the limits of a server.

    Raises:
        OutOfMemoryError: No thread can be started.
    """
    gate = GATE.get()
    if gate is None:
        return await _run(function, arguments)
    async with gate(kind):
        return await _run(function, arguments)


async def _run(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    import asyncio  # noqa: PLC0415 - `import fastllm` is quick

    cancellation = _native.Cancellation()
    context = contextvars.copy_context()
    try:
        work = asyncio.get_running_loop().run_in_executor(None, context.run, cancellation.run, function, *arguments)
    except RuntimeError as error:
        raise no_thread(error) from error
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancellation.cancel()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # nobody waits for it
        raise


def no_thread(error: RuntimeError) -> Exception:
    """What a failure to start a thread is, which Python reports as a RuntimeError: a lack of memory or of threads."""
    return OutOfMemoryError(f"no thread can be started: {error}") if "thread" in str(error) else error
