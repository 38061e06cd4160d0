"""Output that follows a schema, a regex, a grammar or a choice: what callers give, checked and written down as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

from fastllm.errors import GrammarError, OutputError, ParameterError

__all__ = ["parse", "response_schema", "schema_text"]

T = TypeVar("T")


def schema_text(value: object) -> str:
    """A JSON schema as JSON text.

    Args:
        value: A mapping, a bool, JSON text, or a class with `model_json_schema`, such as a pydantic model.

    Raises:
        TypeError: It is none of these, or has something that JSON has no form for.
        GrammarError: It is nested too deeply, contains itself, or has a number that JSON does not have.
    """
    if isinstance(value, str):
        return value
    if _is_model(value):
        value = _closed(value.model_json_schema())  # type: ignore[attr-defined]
    elif not isinstance(value, (Mapping, bool)):
        raise TypeError(
            "json_schema must be a dict, a bool, JSON text or a class with model_json_schema, "
            f"not {type(value).__name__}"
        )
    try:
        return json.dumps(dict(value) if isinstance(value, Mapping) else value, allow_nan=False)
    except RecursionError:
        raise GrammarError("the JSON schema is nested too deeply") from None
    except ValueError as error:
        raise GrammarError(f"the JSON schema has no JSON form: {error}") from None


def response_schema(value: object) -> object:
    """The schema that a `response_format` of the OpenAI interface asks for; None: any text.

    Args:
        value: None, a dict with the "type" "text", "json_object" or "json_schema", or a class with `model_json_schema`.

    Raises:
        TypeError, ParameterError: It is none of these.
    """
    if value is None or _is_model(value):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"response_format must be a dict or a class with model_json_schema, not {type(value).__name__}")
    kind = value.get("type")
    if kind not in _FORMATS:
        raise ParameterError(f"the type {kind!r} of response_format is not one of {', '.join(_FORMATS)}")
    _only(value, ("type", "json_schema") if kind == "json_schema" else ("type",), "response_format")
    if kind == "json_object":
        return {"type": "object"}
    if kind == "text":
        return None
    inner = value.get("json_schema")
    if not isinstance(inner, Mapping) or "schema" not in inner:
        raise ParameterError('response_format["json_schema"] must be a dict with a "schema"')
    # Output always follows the schema, so that "strict" changes nothing.
    _only(inner, ("schema", "name", "strict", "description"), 'response_format["json_schema"]')
    schema = inner["schema"]
    if not isinstance(schema, (Mapping, bool)):
        raise TypeError(f"the schema of response_format must be a dict, not {type(schema).__name__}")
    return schema


@overload
def parse(text: str, finish_reason: str, model: None) -> Any: ...
@overload
def parse(text: str, finish_reason: str, model: type[T]) -> T: ...
def parse(text: str, finish_reason: str, model: type[T] | None) -> Any:
    """The JSON value of a text, or what `model.model_validate_json` makes of it.

    Raises:
        OutputError: The text is not JSON, or not what the model takes.
        TypeError: `model` has no `model_validate_json`.
    """
    try:
        if model is None:
            return json.loads(text)
        validate = getattr(model, "model_validate_json", None)
        if not isinstance(model, type) or validate is None:
            raise TypeError(f"parse takes a class with model_validate_json, not {model!r}")
        return validate(text)
    except (ValueError, RecursionError) as error:
        ended = "" if finish_reason == "stop" else f" (it ended by {finish_reason!r})"
        raise OutputError(f"the output{ended} is not what was asked for: {error}") from error


_FORMATS = ("text", "json_object", "json_schema")


def _is_model(value: object) -> bool:
    return isinstance(value, type) and callable(getattr(value, "model_json_schema", None))


def _only(value: Mapping[Any, Any], known: Sequence[str], what: str) -> None:
    unknown = [key for key in value if key not in known]
    if unknown:
        raise ParameterError(f"{what} has the unknown key {unknown[0]!r}; it takes {', '.join(known)}")


def _closed(schema: Any) -> Any:
    """The schema of a class, without properties that the class does not name and would drop.

    Schemas that are combined with others (allOf) are left open: each of them has only a part of the properties.
    """
    if isinstance(schema, Mapping):
        closed = {key: value if key == "allOf" else _closed(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), Mapping) and schema.get("type") == "object" and "allOf" not in schema:
            closed.setdefault("additionalProperties", False)
        return closed
    return [_closed(item) for item in schema] if isinstance(schema, list) else schema
