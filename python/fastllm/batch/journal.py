"""The output of a batch while it is made: a file of JSON lines that only grows.

Each line is a whole answer. Its id is made from the request and the settings, so that the file itself says what it
answers: a run that goes on needs no other memory, and notices when the input, the model or an option has changed.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastllm.batch.errors import BatchFileError
from fastllm.batch.requests import Line, encode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Answer", "Journal", "answer_id"]

_PREFIX = "batch_req_"
_NO_ANSWER = "this is no answer of a batch; choose another output, or delete the line"
# Characters of the part of an id that is made from the settings.
_SETTINGS = 12
# How each line begins.
_START = b'{"id": "' + _PREFIX.encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """Where an answer is.

    Attributes:
        offset: Of its first byte.
        length: Bytes.
        failed: Whether it is an error.
    """

    offset: int
    length: int
    failed: bool


def answer_id(line: Line, settings: str) -> str:
    """The id of the answer to a request.

    Args:
        line: The request.
        settings: A digest of all else that the answer depends on.
    """
    return f"{_PREFIX}{settings[:_SETTINGS]}{line.digest}"


class Journal:
    """The answers so far, and a place for more. A context manager; one process at a time may have it.

    A last line without its end is one that the power or a signal cut off: it is removed, and its request runs again.

    Args:
        path: The file; it is created where it is missing.
        lines: The requests.
        settings: As for `answer_id`.

    Raises:
        BatchFileError: It holds something else than answers to these requests, or another process writes it.
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path, lines: Iterable[Line], settings: str) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        self._unsynced = False
        self._error: OSError | None = None
        new = not path.exists()
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock()
            self._end = self._scan({line.custom_id: line for line in lines}, settings)
            self._file.truncate(self._end)
            if new:
                _sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def add(self, custom_id: str, answer: dict[str, Any]) -> None:
        """Writes an answer. It survives the end of this process at once, and that of the machine after `sync`."""
        if self._error is not None:
            raise self._error  # what follows a torn line would be lost
        data = encode(answer)
        try:
            self._write(data)
        except OSError as error:
            self._error = error
            raise
        self.answers[custom_id] = Answer(self._end, len(data), _failed(answer))
        self._end += len(data)
        self._unsynced = True

    def sync(self) -> None:
        """Waits until all that was written is on the disk."""
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._file.fileno())

    def read(self, custom_id: str) -> dict[str, Any]:
        """An answer."""
        answer = self.answers[custom_id]
        self._file.seek(answer.offset)
        data = bytearray()
        while len(data) < answer.length:
            part = self._file.read(answer.length - len(data))
            if not part:
                raise BatchFileError(f"{self.path} was shortened by someone else")
            data += part
        record: dict[str, Any] = json.loads(data)
        return record

    @property
    def failed(self) -> int:
        """Answers that are errors."""
        return sum(answer.failed for answer in self.answers.values())

    def close(self) -> None:
        """Syncs and closes the file."""
        try:
            self.sync()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _lock(self) -> None:
        """Until the file is closed, also by the end of the process."""
        try:
            if sys.platform == "win32":
                import msvcrt  # noqa: PLC0415 - there only

                self._file.seek(2**31 - 2)  # a byte that need not exist, at the end of what can be locked
                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl  # noqa: PLC0415 - not on Windows

                fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BatchFileError(f"{self.path} is being written by another process") from None

    def _scan(self, lines: dict[str, Line], settings: str) -> int:
        """Finds the answers. Returns the end of the last whole line."""
        offset = 0
        with self.path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if not data.endswith(b"\n"):
                    # Bytes that never reached the disk are zeros.
                    if not (data.startswith(_START) or _START.startswith(data.rstrip(b"\0"))):
                        raise BatchFileError(f"{self.path}, line {number}: {_NO_ANSWER}")
                    break
                custom_id, failed = self._check(data, number, lines, settings)
                self.answers[custom_id] = Answer(offset, len(data), failed)
                offset += len(data)
        return offset

    def _check(self, data: bytes, number: int, lines: dict[str, Line], settings: str) -> tuple[str, bool]:
        where = f"{self.path}, line {number}"
        try:
            record = json.loads(data)
            id_, custom_id = record["id"], record["custom_id"]
            failed = _failed(record)
            known = isinstance(custom_id, str) and isinstance(id_, str) and id_.startswith(_PREFIX)
        except (ValueError, LookupError, TypeError, RecursionError):
            known = False
        if not known:
            raise BatchFileError(f"{where}: {_NO_ANSWER}")
        line = lines.get(custom_id)
        if line is None:
            raise BatchFileError(f"{where}: the input has changed: it has no request {custom_id!r} any more")
        if custom_id in self.answers:
            raise BatchFileError(f"{where}: a second answer to {custom_id!r}; delete one of them")
        if id_.removeprefix(_PREFIX)[:_SETTINGS] != settings[:_SETTINGS]:
            raise BatchFileError(f"{where}: made with another model or other options; choose another output")
        if id_ != answer_id(line, settings):
            raise BatchFileError(
                f"{where}: the input has changed: line {line.number}, {custom_id!r}, is not what was answered"
            )
        return custom_id, failed


def _failed(record: dict[str, Any]) -> bool:
    return record["error"] is not None


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder survive a loss of power."""
    if sys.platform != "win32":  # folders cannot be opened there
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
