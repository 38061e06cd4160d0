"""The input of a batch: where its requests are, what each one says, and in which order to run them.

A request stays in the file until it runs; about 300 bytes of it are kept in memory.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from fastllm.batch import parquet
from fastllm.batch.errors import BatchFileError, RequestError
from fastllm.batch.wire import CHAT, COMPLETIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Line", "Requests", "read_request"]

# Bytes of a request.
LONGEST = 64 * 2**20
# Duplicates that an error names.
_NAMED = 5
# Of an answer whose request sets no limit.
_EXPECTED_TOKENS = 256
_MOST_TOKENS = 2**31
# A byte of a request, in tokens of an answer: a token has about four, and one of a prompt is about eight times faster.
_BYTE = 1 / 32


@dataclass(frozen=True, slots=True)
class Line:
    """Where a request is.

    Attributes:
        number: Of the line, or of the row; the first is 1.
        offset: Of its first byte.
        length: Bytes.
        digest: Of these bytes.
        custom_id: Its name: what it says, or `line-N`.
        work: About how long it takes, in tokens of an answer.
    """

    number: int
    offset: int
    length: int
    digest: str
    custom_id: str
    work: float


class Requests:
    """The requests of a file of JSON lines or a Parquet file. A context manager.

    Args:
        path: The file.
        scratch: A folder for a copy of a Parquet file as JSON lines, which vanishes with the process.

    Raises:
        BatchFileError: Two requests have the same custom_id, a line is far too long, or it is no Parquet file.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        self.path = path
        try:
            if parquet.is_parquet(path):
                self._file.close()
                self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - this object closes it
                for row in parquet.rows(path):
                    self._file.write(encode(row))
                self._file.flush()
            self.lines = list(_index(self._file))
            _refuse_duplicates(self.lines, path)
        except BaseException:
            self._file.close()
            raise

    def read(self, line: Line) -> bytes:
        """The bytes of a request.

        Raises:
            BatchFileError: They are no longer what they were.
        """
        self._file.seek(line.offset)
        data = self._file.read(line.length)
        if _digest(data) != line.digest:
            raise BatchFileError(f"{self.path}: line {line.number} changed while it was read")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def encode(value: Any) -> bytes:
    """A line of JSON. Text stays readable; halves of surrogate pairs are escaped, since UTF-8 has none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def read_request(data: bytes) -> tuple[str, dict[str, Any], str | None]:
    """The endpoint, the body and the custom_id of a line.

    A line of OpenAI's batch format has a body; any other is a body itself, with a custom_id in it if it likes.

    Raises:
        RequestError: It is neither.
    """
    try:
        request = json.loads(data)
    except RecursionError:
        raise RequestError("the JSON is nested too deeply") from None
    except ValueError as error:  # also bytes that are no text
        raise RequestError(f"this is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestError("a request must be a JSON object")
    custom_id = request.pop("custom_id", None)
    if custom_id is not None and (not isinstance(custom_id, str) or not _is_text(custom_id)):
        raise RequestError("custom_id must be a string", "custom_id")
    if "body" not in request and "url" not in request:
        return CHAT if "messages" in request else COMPLETIONS, request, custom_id
    body, endpoint = request.pop("body", None), request.pop("url", None)
    if not isinstance(body, dict):
        raise RequestError("body must be an object", "body")
    if not isinstance(endpoint, str):
        raise RequestError("url must be a string", "url")
    if request.pop("method", None) != "POST":
        raise RequestError("method must be POST", "method")
    if request:
        name = next(iter(request))
        raise RequestError(f"unknown field {name!r} beside the body", name)
    return endpoint, body, custom_id


def by_length(lines: Iterable[Line]) -> list[Line]:
    """The longest first: neighbours take about as long, and what runs at the end is short, so the batch stays full."""
    return sorted(lines, key=lambda line: (-line.work, line.number))


def _index(file: IO[bytes]) -> Iterator[Line]:
    file.seek(0)
    offset = number = 0
    while data := file.readline(LONGEST + 1):
        number += 1
        if len(data) > LONGEST:
            raise BatchFileError(f"line {number} is longer than {LONGEST} bytes")
        start = 3 if number == 1 and data.startswith(b"\xef\xbb\xbf") else 0  # a byte order mark
        text = data[start:].rstrip()
        if text:
            custom_id, work = _about(text, number)
            yield Line(number, offset + start, len(text), _digest(text), custom_id, work)
        offset += len(data)


def _about(data: bytes, number: int) -> tuple[str, float]:
    """The name of a request and its work. One that is wrong has both too: its answer is an error."""
    custom_id, tokens = None, 0
    try:
        _, body, custom_id = read_request(data)
    except RequestError:
        pass
    else:
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        tokens = min(max(limit, 0), _MOST_TOKENS) if isinstance(limit, int) else _EXPECTED_TOKENS
    return f"line-{number}" if custom_id is None else custom_id, tokens + len(data) * _BYTE


def _refuse_duplicates(lines: Iterable[Line], path: Path) -> None:
    seen: dict[str, int] = {}
    twice = []
    for line in lines:
        first = seen.setdefault(line.custom_id, line.number)
        if first != line.number:
            twice.append(f"{line.custom_id!r} in lines {first} and {line.number}")
    if twice:
        more = f", and {len(twice) - _NAMED} more" if len(twice) > _NAMED else ""
        raise BatchFileError(f"{path}: the same custom_id twice: {', '.join(twice[:_NAMED])}{more}")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _is_text(string: str) -> bool:
    """Whether it has no halves of surrogate pairs."""
    try:
        string.encode()
    except UnicodeEncodeError:
        return False
    return True
