"""What all requests share: models, limits, counters."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastllm.server.errors import ApiError, StoppingError, busy
from fastllm.server.metrics import Metrics

if TYPE_CHECKING:
    from fastllm.background import Kind
    from fastllm.model import Model
    from fastllm.server.options import ServerOptions

__all__ = ["LARGE", "WORKERS", "Service"]

# Sequences that the engine runs at once; more wait.
_RUNNING = 16
# Bytes of a body from which on it is parsed, validated and tokenized beside others of its size.
LARGE = 64 << 10
# How much text of small and of large requests is worked on at once, and how many grammars are compiled: none of these
# can take the threads of the others.
_LANES = {"small text": 4, "large text": 2, "grammar": 4}
# Threads beside the event loop.
WORKERS = sum(_LANES.values())
# Work of one kind that waits for its turn.
_MAX_WAITING = 512


class _Lane:
    """Work of one kind in one event loop."""

    def __init__(self, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.waiting = 0


class Service:
    """The models of a server and what is going on.

    Args:
        models: The models by the names that requests use.
        options: Limits.
    """

    def __init__(self, models: Mapping[str, Model], options: ServerOptions) -> None:
        self.models = dict(models)
        self.options = options
        for alias, name in options.aliases.items():
            if alias in self.models or name not in self.models:
                raise ValueError(
                    f"the alias {alias!r} = {name!r} must be a new name of a model: {', '.join(self.models)}"
                )
        self.metrics = Metrics(self.models)
        self.created = int(time.time())
        self.draining = False
        self.body_bytes = 0
        self._admitted: Counter[str] = Counter()
        self._cuts: set[asyncio.Future[None]] = set()
        # An application may be used in several event loops, one after the other.
        self._lanes: weakref.WeakKeyDictionary[Any, dict[str, _Lane]] = weakref.WeakKeyDictionary()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that requests may use: of the models, and their aliases."""
        return (*self.models, *self.options.aliases)

    def find(self, name: str | None) -> tuple[str, Model]:
        """A model by name or alias; None, and with `any_model_name` every other name: the first one.

        Raises:
            ApiError: 404, there is none. A name is only ever looked up, never opened.
        """
        if name is None:
            name = next(iter(self.models))
        name = self.options.aliases.get(name, name)
        model = self.models.get(name)
        if model is None and self.options.any_model_name:
            name, model = next(iter(self.models.items()))
        if model is None:
            raise ApiError(404, f"the model {name[:100]!r} is not served here", param="model", code="model_not_found")
        return name, model

    @contextlib.contextmanager
    def admit(self, name: str, count: int) -> Iterator[None]:
        """Reserves places for sequences while the block runs.

        Raises:
            ApiError: 429, too many wait already; or 503, the server is stopping.
        """
        if self.draining:
            raise StoppingError
        most = _RUNNING + self.options.max_queue
        if count > most:
            raise ApiError(400, f"{count} sequences at once are more than the {most} of this server", param="n")
        if self._admitted[name] + count > most:
            raise busy(f"{self._admitted[name]} sequences run or wait already: try again later")
        self._admitted[name] += count
        try:
            yield
        finally:
            self._admitted[name] -= count

    @contextlib.asynccontextmanager
    async def gate(self, kind: Kind, *, large: bool) -> AsyncIterator[None]:
        """Waits until work of this kind may use a thread, which it does while the block runs.

        Args:
            kind: What the work is.
            large: Whether the body of the request is large.

        Raises:
            ApiError: 503, too much of it waits already.
        """
        lanes = self._lanes.setdefault(asyncio.get_running_loop(), {})
        name = kind if kind == "grammar" else "large text" if large else "small text"
        lane = lanes.setdefault(name, _Lane(_LANES[name]))
        if lane.waiting >= _MAX_WAITING:
            raise ApiError(503, "too many requests are being read", code="overloaded", headers={"retry-after": "1"})
        lane.waiting += 1
        try:
            await lane.slots.acquire()
        finally:
            lane.waiting -= 1
        try:
            yield
        finally:
            lane.slots.release()

    @contextlib.contextmanager
    def cut(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when running requests have to end."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cuts.add(future)
        try:
            yield future
        finally:
            self._cuts.discard(future)
            future.cancel()

    def cut_all(self) -> None:
        """Ends the running requests, with an error."""
        for future in list(self._cuts):
            if not future.done():
                future.set_result(None)
