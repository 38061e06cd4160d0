"""Tables: with bars and rules on a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Characters of a full bar.
_WIDTH = 24


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], bars: Sequence[float]) -> None:
    """Prints a table.

    Args:
        title: What it shows.
        head: Names of the columns; the first is aligned to the left, the others to the right.
        rows: Cells.
        bars: A number for each row: bars on a terminal show it beside the largest.
    """
    if sys.stdout.isatty():
        _rich(title, head, rows, bars)
        return
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    print(title)
    for row in (head, *rows):
        cells = [f"{row[0]:<{widths[0]}}", *(f"{x:>{n}}" for x, n in zip(row[1:], widths[1:], strict=True))]
        print(f"  {'  '.join(cells)}")


def _rich(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], bars: Sequence[float]) -> None:
    from rich import box  # noqa: PLC0415 - slow to import
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for at, name in enumerate(head):
        table.add_column(name, justify="right" if at else "left")
    table.add_column("")
    most = max(bars, default=0) or 1
    for row, bar in zip(rows, bars, strict=True):
        table.add_row(*map(Text, row), Text("█" * max(round(_WIDTH * bar / most), 1), style="cyan"))
    Console().print(table)
