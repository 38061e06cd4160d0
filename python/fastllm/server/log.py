"""The log: one line for each request, without a word of what was asked or answered."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope

__all__ = ["configure", "request", "skipped_tools"]

_LOGGER = logging.getLogger("fastllm.server")
_LONGEST = 200
# Kinds of tools in one line.
_MAX_KINDS = 20


def configure(kind: str) -> None:
    """Sends the log of the server to standard error.

    Args:
        kind: "text" or "json".
    """
    logging.raiseExceptions = False  # a full disk under the log is no reason to stop
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if kind == "json" else _Text())
    for name in ("fastllm.server", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == "fastllm.server" else logging.WARNING)


def request(scope: Scope, status: int, seconds: float) -> None:
    """Writes the line of a request that was answered."""
    error: BaseException | None = scope.get("fastllm.error")
    fields: dict[str, Any] = {
        "request_id": scope["fastllm.id"],
        "client": (scope.get("client") or ("", 0))[0],
        "method": scope.get("fastllm.method", scope["method"]),
        "path": scope["path"][:_LONGEST],
        "status": status,
        "seconds": round(seconds, 4),
    }
    for name in ("code", "model", "stream"):
        if scope.get(f"fastllm.{name}") is not None:
            fields[name] = scope[f"fastllm.{name}"]
    level = logging.INFO
    if error is not None:
        level = logging.ERROR
        # Not the message: it may quote what was asked.
        fields["error"] = type(error).__name__
        fields["traceback"] = "".join(traceback.format_tb(error.__traceback__))
    _LOGGER.log(level, "request", extra={"fields": fields})


def skipped_tools(request_id: str, kinds: Iterable[str]) -> None:
    """Says which tools of a request the model is not told of: what they do is done by other servers."""
    names = sorted({kind[:_LONGEST] for kind in kinds})[:_MAX_KINDS]
    if names:
        _LOGGER.info("tools skipped", extra={"fields": {"request_id": request_id, "kinds": ",".join(names)}})


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": _time(record), "level": record.levelname.lower(), "event": _message(record)}
        fields.update(getattr(record, "fields", {}))
        return json.dumps(fields)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        trace = fields.pop("traceback", "")
        words = [_time(record), record.levelname.lower(), _message(record)]
        words += [f"{name}={_word(value)}" for name, value in fields.items()]
        return " ".join(words) + (f"\n{trace}" if trace else "")


def _time(record: logging.LogRecord) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03d}Z"


def _message(record: logging.LogRecord) -> str:
    # The text of an exception may quote a request: only where it happened is said.
    where = "".join(traceback.format_tb(record.exc_info[2])) if record.exc_info else ""
    return (record.getMessage().strip() + ("\n" + where if where else ""))[:4000]


def _word(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else json.dumps(text)
