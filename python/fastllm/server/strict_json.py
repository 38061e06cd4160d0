"""Strict parsing of untrusted JSON: ambiguous documents are rejected, and so are those that take too much memory."""

from __future__ import annotations

import json
from typing import Any

from fastllm import _native
from fastllm.server.errors import ApiError

__all__ = ["MAX_DEPTH", "dumps", "loads"]

# Deepest nesting of lists and objects.
MAX_DEPTH = 64
# A body may have one value for so many bytes of the longest body, and one list, object, string or key for so many: the
# values then take a few times the memory of the longest body, whatever they are.
_BYTES_PER_VALUE = 8
_BYTES_PER_OBJECT = 32
# What every body may have.
_MIN_VALUES = 16_384


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def loads(raw: bytes | list[bytes], max_body: int = 8 << 20) -> Any:
    """The value of a JSON text.

    Args:
        raw: The text; in a list, it is taken out of that as soon as it is no longer needed.
        max_body: Longest body of the server, from which the limits on values follow.

    Raises:
        ApiError: 400: it is not UTF-8 or not JSON, has NaN, infinities, a key twice in one object or half a surrogate
            pair, is nested too deeply, or has too many values.
    """
    parts = raw if isinstance(raw, list) else [raw]
    try:
        # Before anything is built, and without the interpreter: other threads run meanwhile.
        values, objects = (max(max_body // each, _MIN_VALUES) for each in (_BYTES_PER_VALUE, _BYTES_PER_OBJECT))
        _native.check_json(parts[0], MAX_DEPTH, values, objects)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON that can be used: {error}") from None
    text = parts.pop().decode()
    del raw
    try:
        return json.loads(text)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON that can be used: {error}") from None
