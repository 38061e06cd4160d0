"""JSON of strangers: one meaning or none."""

from __future__ import annotations

import json
import math
from typing import Any

from fastllm.server.errors import ApiError

__all__ = ["MAX_DEPTH", "dumps", "loads"]

# Deepest nesting of lists and objects.
MAX_DEPTH = 64


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def loads(raw: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ApiError: 400: it is not UTF-8 or not JSON, has NaN, infinities, a key twice in one object or half a surrogate
            pair, or is nested too deeply.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a hook's, or an integer of thousands of digits
        raise ApiError(400, f"the body is not JSON that can be used: {error}") from None
    _check(value, surrogates="\\u" in text)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return found


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of numbers")
    return value


def _check(value: Any, *, surrogates: bool) -> None:
    """Level by level, so that the depth of the value is not that of the stack."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
                if surrogates:
                    below.extend(item.keys())
            elif isinstance(item, list):
                below.extend(item)
            elif surrogates and isinstance(item, str):
                _whole(item)
        if not below:
            return
        level = below
    raise _too_deep()


def _whole(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ApiError(400, "a string contains half a surrogate pair, which is no character") from None


def _too_deep() -> ApiError:
    return ApiError(400, f"the body is nested more than {MAX_DEPTH} levels deep")
