"""The terminal of a chat: reads messages (with prompt_toolkit where it is installed), wraps answers at words."""

from __future__ import annotations

import contextlib
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Leave", "Reader", "Wrapper", "open_reader"]

PROMPT = "> "


class Leave(KeyboardInterrupt):
    """Ctrl-C on an empty line."""


class Reader(Protocol):
    """Reads messages from a terminal."""

    def read(self) -> str:
        """The next message.

        Raises:
            EOFError: Ctrl-D on an empty line.
            Leave: Ctrl-C on an empty line, where the editor knows that it is.
            KeyboardInterrupt: Ctrl-C otherwise.
        """


def open_reader(completions: Callable[[str], tuple[Sequence[str], int]]) -> Reader:
    """The reader with the most comfort that is installed."""
    try:
        from fastllm.cli.prompt import ToolkitReader  # noqa: PLC0415 - needs the extra

        return ToolkitReader(PROMPT, completions)
    except ImportError:
        return _PlainReader(completions)


class _PlainReader:
    """`input`, with the history and completion of readline where Python has it."""

    def __init__(self, completions: Callable[[str], tuple[Sequence[str], int]]) -> None:
        with contextlib.suppress(ImportError):  # not everywhere
            import readline  # noqa: PLC0415

            def complete(_: str, state: int) -> str | None:
                line = readline.get_line_buffer()[: readline.get_endidx()]
                words, length = completions(line)
                # Readline replaces from the beginning of the line: there are no delimiters.
                kept = line[: len(line) - length]
                return kept + words[state] if state < len(words) else None

            readline.set_completer_delims("")
            readline.set_completer(complete)
            readline.parse_and_bind("tab: complete")

    def read(self) -> str:
        return input(PROMPT)


class Wrapper:
    """Writes text to a terminal piece by piece, with line ends in place of spaces where a word would be cut.

    Fenced code keeps its lines. Words longer than a line are left to the terminal.

    Args:
        write: Where the text goes.
        columns: The width of the terminal, asked for each piece; None: no wrapping.
    """

    def __init__(
        self, write: Callable[[str], object] | None = None, columns: Callable[[], int | None] | None = None
    ) -> None:
        self._write = sys.stdout.write if write is None else write
        self._columns = _terminal_columns if columns is None else columns
        self._word = ""  # not yet written: more of it may follow
        self._spaces = ""  # before it
        self._column = 0
        self._line_start = ""  # the first characters of the line, to find fences
        self._fenced = False

    def feed(self, text: str) -> None:
        """Writes a piece. Its last word waits for what follows."""
        width = self._columns()
        if width is None:
            self._write(text)
            return
        for character in text:
            if character == "\n":
                self._end_word(width)
                self._end_line()
            elif character in " \t":
                if self._word:
                    self._end_word(width)
                self._spaces += character
            else:
                self._word += character
                if _cells(character) == 2:  # noqa: PLR2004 - wide: a line may end after each of them
                    self._end_word(width)

    def flush(self) -> None:
        """Writes what waits; the line goes on."""
        self._end_word(self._columns() or 0)

    def end(self) -> None:
        """Writes what waits, at the end of a text."""
        self.flush()
        self._column, self._line_start, self._fenced = 0, "", False

    def _end_word(self, width: int) -> None:
        spaces, word = self._spaces, self._word
        self._spaces = self._word = ""
        cells = sum(map(_cells, word))
        too_long = self._column + len(spaces) + cells >= width > cells
        if word and spaces and self._column and too_long and not self._fenced:
            self._write(f"\n{word}")
            self._column = cells
            return
        self._write(spaces + word)
        self._column += len(spaces) + cells
        if len(self._line_start) < len("```"):
            self._line_start += (spaces + word).lstrip()

    def _end_line(self) -> None:
        self._write("\n")
        if self._line_start.startswith("```"):
            self._fenced = not self._fenced
        self._column, self._line_start = 0, ""


def _terminal_columns() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Cf", "Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
