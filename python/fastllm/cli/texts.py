"""Text that comes from outside: standard input, files and arguments. It is UTF-8, whatever the locale says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastllm.errors import FastLLMError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["InputError", "argument", "decode", "lines", "read_file", "read_stdin"]

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class InputError(FastLLMError, ValueError):
    """An argument or an input of the command line cannot be used; the message says what to do."""


def decode(data: bytes, source: str) -> str:
    """The text of UTF-8, without a byte order mark at its beginning.

    Raises:
        InputError: It is not UTF-8.
    """
    if data.startswith(_UTF16):
        raise InputError(f"{source} is UTF-16, not UTF-8: convert it, for example with iconv -f UTF-16 -t UTF-8")
    try:
        return data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        byte, at = error.object[error.start], error.start + len(data) - len(error.object)
        raise InputError(
            f"{source} is not UTF-8: byte 0x{byte:02X} at offset {at}; convert it, for example with "
            "iconv -f ISO-8859-1 -t UTF-8"
        ) from None


def read_file(path: str) -> str:
    """The text of a file.

    Raises:
        InputError: It is not UTF-8.
        OSError: It cannot be read.
    """
    return decode(Path(path).read_bytes(), path)


def read_stdin() -> str:
    """All of standard input.

    Raises:
        InputError: It is not UTF-8.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:  # a stream of text that the caller has put there, or none at all
        return "" if sys.stdin is None else sys.stdin.read()
    return decode(buffer.read(), "standard input")


def lines() -> Iterator[str]:
    """The lines of standard input, each without its end.

    Raises:
        InputError: One is not UTF-8.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:
        yield from (line.rstrip("\r\n") for line in sys.stdin or ())
        return
    for number, line in enumerate(buffer, 1):
        source = f"line {number} of standard input"
        if number > 1 and line.startswith(_BOM):
            # Only the first line has a mark that is not part of the text.
            yield "\N{ZERO WIDTH NO-BREAK SPACE}" + decode(line[len(_BOM) :], source).rstrip("\r\n")
        else:
            yield decode(line, source).rstrip("\r\n")


def argument(text: str, name: str) -> str:
    """A text from the command line.

    Raises:
        InputError: It holds bytes that are not text in the encoding of the locale.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is not text in the encoding {sys.getfilesystemencoding()}") from None
    return text
