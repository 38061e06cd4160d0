"""The last run: what `fastllm doctor` compares with what the machine can do.

`fastllm bench`, `generate` and `chat` leave one small record, which the next one replaces: the name of the model's
file, when, how fast and with what. No prompt, text or token is ever stored. It is a convenience: where it cannot be
written, nothing is said, and a record that cannot be read counts as none. Results never depend on it.

It lies in the folder that the environment variable FASTLLM_STATE_DIR names, or else where programs of this system keep
their state. FASTLLM_LAST_RUN=0 (or `--no-record`) turns it off.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["LastRun", "Speed", "folder", "load", "save"]

_NAME = "last-run.json"
_OFF = {"0", "off"}
# Most bytes of a record, most tests in it.
_MOST_BYTES = 1 << 16
_MOST_TESTS = 64
# Numbers in it are below this.
_MOST = 1e18
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "tuple[Speed, ...]": tuple,
}
T = TypeVar("T")


@dataclass(frozen=True)
class Speed:
    """A part of a run.

    Attributes:
        name: Such as "pp512" or "tg128".
        kind: "prompt" (bound by arithmetic) or "decode" (bound by memory).
        tokens: Tokens that were measured.
        threads: Threads.
        tokens_per_second: Tokens of all sequences per second.
        bytes_per_second: Bytes of weights and KV cache per second; of interest when decoding.
        integer_per_second: Operations with integers per second; of interest for prompts.
        float_per_second: The same, with floats.
    """

    name: str
    kind: str
    tokens: int
    threads: int
    tokens_per_second: float
    bytes_per_second: float = 0.0
    integer_per_second: float = 0.0
    float_per_second: float = 0.0


@dataclass(frozen=True)
class LastRun:
    """The record.

    Attributes:
        command: "bench", "generate" or "chat".
        model: Name of the file, without its folder.
        isa: The instruction set.
        weight_bytes: Bytes of the weights in memory.
        speeds: What was measured.
        time: When, as ISO 8601 in UTC.
    """

    command: str
    model: str
    isa: str
    weight_bytes: int
    speeds: tuple[Speed, ...]
    time: str = ""


def folder() -> Path | None:
    """The folder of the record, which need not exist; None where it is turned off, or there is no place for one."""
    if os.environ.get("FASTLLM_LAST_RUN", "").lower() in _OFF:
        return None
    named = os.environ.get("FASTLLM_STATE_DIR")
    if named:
        return Path(named)
    with contextlib.suppress(RuntimeError):  # no home
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local) / "fastllm" if local else None
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Application Support" / "fastllm"
        state = os.environ.get("XDG_STATE_HOME", "")
        # The specification asks to ignore relative paths.
        return (Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state") / "fastllm"
    return None


def save(run: LastRun) -> None:
    """Replaces the record, whole or not at all. Failures are ignored on purpose: a full disk must not spoil a run."""
    place = folder()
    if place is None or not run.speeds:
        return
    record = asdict(run)
    record["speeds"] = record["speeds"][-_MOST_TESTS:]
    record["time"] = run.time or datetime.now(timezone.utc).isoformat(timespec="seconds")
    with contextlib.suppress(OSError, ValueError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_NAME, dir=place)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(record, file)
            Path(temporary).replace(place / _NAME)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def load() -> LastRun | None:
    """The record; None if there is none, or it is not one."""
    place = folder()
    if place is None:
        return None
    try:
        with (place / _NAME).open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            return None
        record = json.loads(text)
        speeds = tuple(_checked(Speed, speed) for speed in record["speeds"][:_MOST_TESTS])
        return _checked(LastRun, {**record, "speeds": speeds})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _checked(kind: type[T], values: dict[str, Any]) -> T:
    """An instance of a dataclass, if the values are of its types: a record may have been written by anyone."""
    types = {field.name: _TYPES[str(field.type)] for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for name, expected in types.items():
        value = values[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise TypeError(name)
        if isinstance(value, (int, float)) and not (math.isfinite(value) and 0 <= value < _MOST):
            raise ValueError(name)
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(name)
    return kind(**{name: values[name] for name in types})
