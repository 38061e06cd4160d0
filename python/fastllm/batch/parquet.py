"""Batches as Parquet files: requests from one, answers into one. Needs pyarrow (the extra `parquet`).

Rows are requests as in JSON: a column for each field. Columns that hold objects or lists may be nested, or JSON text.
"""

from __future__ import annotations

import contextlib
import json
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastllm.batch.errors import BatchFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["failures", "is_parquet", "load", "rows", "write"]

# Columns that may hold JSON text in place of what it means.
_JSON = frozenset({"body", "messages", "tools", "tool_choice", "response_format", "logit_bias", "chat_template_kwargs"})
_ROWS = 1024
# Where an output keeps what it answers.
_FINGERPRINT = b"fastllm.batch"


def is_parquet(path: Path) -> bool:
    """Whether a file's name says that it is one."""
    return path.suffix == ".parquet"


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as JSON values. Nulls are left out.

    Raises:
        BatchFileError: It is no Parquet file, or has values that JSON has not.
    """
    pyarrow, parquet = load()
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened)
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    yield {name: _value(name, value) for name, value in row.items() if value is not None}
        except pyarrow.ArrowException as error:
            raise BatchFileError(f"{path}: {error}") from None


def write(path: Path, answers: Iterable[dict[str, Any]], fingerprint: str) -> None:
    """Writes answers, all or nothing: the file gets its name when it is whole and on the disk.

    Args:
        path: The file; one that is there is replaced.
        answers: In the form of OpenAI's batch output.
        fingerprint: Of what they answer; `failures` compares it.

    Raises:
        OSError: It cannot be written.
    """
    pyarrow, parquet = load()
    text, number = pyarrow.string(), pyarrow.int64()
    schema = pyarrow.schema(
        [
            ("custom_id", text),
            ("text", text),
            ("finish_reason", text),
            ("prompt_tokens", number),
            ("completion_tokens", number),
            ("error", text),
            ("response", text),
        ],
        metadata={_FINGERPRINT: fingerprint},
    )
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with unfinished.open("wb") as file:
            with parquet.ParquetWriter(file, schema) as writer:
                for part in _parts(answers):
                    writer.write_table(pyarrow.Table.from_pylist(part, schema))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def failures(path: Path, fingerprint: str) -> int | None:
    """How many answers of a finished output are errors; None: it answers something else.

    Raises:
        BatchFileError: It is no Parquet file.
    """
    pyarrow, parquet = load()
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened)
            if (file.schema_arrow.metadata or {}).get(_FINGERPRINT) != fingerprint.encode():
                return None
            errors = file.read(columns=["error"]).column("error")
        except pyarrow.ArrowException as error:
            raise BatchFileError(f"{path}: {error}") from None
    return len(errors) - int(errors.null_count)


def _parts(answers: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part = []
    for answer in answers:
        part.append(_row(answer))
        if len(part) == _ROWS:
            yield part
            part = []
    if part:
        yield part


def _row(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as a row: what is wanted most has columns, and `response` is all of it."""
    body, error = answer["response"]["body"], answer["error"]
    row = {
        "custom_id": answer["custom_id"],
        "error": None if error is None else error["message"],
        "response": json.dumps(body, ensure_ascii=False),
    }
    if error is None:
        first = body["choices"][0]
        row["text"] = first["message"]["content"] if "message" in first else first["text"]
        row["finish_reason"] = first["finish_reason"]
        row["prompt_tokens"] = body["usage"]["prompt_tokens"]
        row["completion_tokens"] = body["usage"]["completion_tokens"]
    return row


def _value(name: str, value: Any) -> Any:
    if name in _JSON and isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value  # the request is refused when it is read, by its name
    return _without_nulls(name, value)


def _without_nulls(name: str, value: Any) -> Any:
    """Structs have all fields in all rows: those of other rows are null."""
    if isinstance(value, dict):
        return {key: _without_nulls(name, one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(name, one) for one in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise BatchFileError(f"column {name!r} holds {type(value).__name__}, which JSON has not")


def load() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        BatchFileError: They are not installed.
    """
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise BatchFileError("Parquet files need pyarrow: pip install 'fastllm[parquet]'") from None
    return pyarrow, parquet
