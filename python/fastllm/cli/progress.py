"""Progress bars: on a terminal only, and only when there is something to wait for."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID
    from typing_extensions import Self

# Seconds before a bar shows.
_PATIENCE = 0.5


class Bar:
    """A bar on standard error; it vanishes at the end. Call it with what is done and what there is in all."""

    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._start = time.monotonic()
        self._shown: tuple[Progress, TaskID] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Shows how far it is."""
        if self._shown is None:
            if not sys.stderr.isatty() or time.monotonic() - self._start < _PATIENCE:
                return
            self._shown = self._show(total)
        progress, task = self._shown
        progress.update(task, completed=done)

    def _show(self, total: int) -> tuple[Progress, TaskID]:
        from rich import progress as rich  # noqa: PLC0415 - slow to import, seldom needed
        from rich.console import Console  # noqa: PLC0415

        amount = rich.DownloadColumn() if self._unit == "bytes" else rich.MofNCompleteColumn()
        columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), amount, rich.TimeRemainingColumn())
        progress = rich.Progress(*columns, console=Console(stderr=True), transient=True)
        progress.start()
        return progress, progress.add_task(self._title, total=total)

    def close(self) -> None:
        """Removes the bar."""
        if self._shown is not None:
            self._shown[0].stop()
            self._shown = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
