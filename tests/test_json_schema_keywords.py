"""Keywords of JSON Schema: what comes out is valid for an independent validator, and valid texts can come out."""

import json
import random

import jsonschema
import pytest

from fastllm import GrammarError, Model

PROMPT = "The answer as JSON:"
NULL = {"type": "null"}
SMALL = {"type": "integer", "minimum": 0, "maximum": 3}
CLOSED = {"type": "object", "additionalProperties": False}
PAIR = {**CLOSED, "properties": {"a": SMALL, "b": {"type": "string", "maxLength": 3}}}

SCHEMAS = [
    {"type": "integer", "format": "int32", "minimum": -5, "maximum": 5, "x-order": 1, "nullable": True},
    {"type": "string", "format": "color", "maxLength": 4, "readonly": True, "enumNames": ["A"]},
    {"type": "array", "items": SMALL, "additionalItems": False, "minItems": 1.0, "maxItems": 2.0},
    {**PAIR, "properties": {"a": {"$id": "http://example.com/a", **SMALL}}},
    {"type": "object", "additionalProperties": SMALL, "minProperties": 2, "maxProperties": 3},
    {**CLOSED, "patternProperties": {"^[ab]$": SMALL}, "minProperties": 2, "maxProperties": 2},
    {**CLOSED, "patternProperties": {"^k[0-9]$": SMALL}, "minProperties": 3, "maxProperties": 4},
    {**CLOSED, "patternProperties": {"^x[0-9]{1,2}[ab]$": SMALL}, "minProperties": 2, "maxProperties": 4},
    {**PAIR, "minProperties": 1},
    {**PAIR, "required": ["b"], "patternProperties": {"^b$": {"minLength": 1}}},
    {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": SMALL},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,3}$"}, "additionalProperties": SMALL, "maxProperties": 3},
    {"type": "object", "propertyNames": {"maxLength": 2}, "additionalProperties": SMALL, "maxProperties": 2},
    {"type": "object", "propertyNames": {"not": {"enum": ["a"]}}, "additionalProperties": SMALL, "maxProperties": 1},
    {**PAIR, "dependentRequired": {"a": ["b"]}},
    {**PAIR, "dependencies": {"a": ["b"], "b": {"properties": {"a": {"minimum": 2}}}}},
    {**PAIR, "dependentSchemas": {"a": {"properties": {"b": {"minLength": 1}}}}},
    {**PAIR, "if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"required": ["b"]}},
    {**PAIR, "if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"properties": {"b": False}}},
    {"type": ["string", "null", "boolean"], "maxLength": 3, "not": {"type": ["null", "string"]}},
    {"type": "string", "maxLength": 2, "not": {"enum": ["a", "ab", ""]}},
    {"type": "integer", "minimum": 0, "maximum": 4, "not": {"enum": [1, 3]}},
    {**PAIR, "not": {"required": ["a", "b"]}},
    {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 5}, {"type": "integer", "minimum": 4, "maximum": 9}]},
    {"oneOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]},
    {"oneOf": [SMALL, {"$ref": "#/$defs/l"}], "$defs": {"l": {"type": "array", "items": SMALL, "maxItems": 2}}},
    {**PAIR, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"type": "array", "items": SMALL, "contains": {"const": 2}, "maxItems": 3},
    {"type": "array", "items": {"enum": ["x", "y", "z", 1]}, "uniqueItems": True, "minItems": 2},
    {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
    {**CLOSED, "properties": {"a": SMALL}, "unevaluatedProperties": {"type": "null"}},
    {"type": "object", "properties": {"a": SMALL}, "unevaluatedProperties": False},
    {
        "$id": "http://example.com/root",
        **CLOSED,
        "properties": {"a": {"$ref": "#leaf"}, "b": {"$ref": "part"}},
        "$defs": {"x": {"$anchor": "leaf", **SMALL}, "y": {"$id": "part", "$ref": "#/$defs/in", "$defs": {"in": NULL}}},
    },
    *({"type": "string", "format": name} for name in ("date", "time", "ipv4", "ipv6", "uuid", "duration")),
    {"type": "string", "format": "hostname", "maxLength": 20},
    {"type": "string", "format": "email", "maxLength": 30},
]


@pytest.fixture(scope="module")
def model():
    with Model.demo() as model:
        yield model


@pytest.mark.parametrize("index", range(len(SCHEMAS)))
def test_what_comes_out_is_valid(model, index):
    schema = SCHEMAS[index]
    cls = jsonschema.Draft202012Validator
    validator = cls(schema, format_checker=cls.FORMAT_CHECKER)
    ended = 0
    for seed in range(12):
        temperature = (0.7, 1.5, 5.0)[seed % 3]
        out = model.generate(PROMPT, json_schema=schema, max_tokens=200, seed=seed, temperature=temperature)
        if out.finish_reason == "stop":
            pairs = json.loads(out.text, object_pairs_hook=unique)
            validator.validate(pairs)
            if "dependencies" in schema:
                jsonschema.Draft7Validator(schema).validate(pairs)
            ended += 1
    assert ended >= 1


def unique(pairs):
    assert len({name for name, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def takes(model, schema, value):
    """Whether the schema lets `value` through: no other text is left by the second one."""
    try:
        both = {"allOf": [{"const": value}, schema], **{k: schema[k] for k in ("$defs",) if k in schema}}
        return model.generate(PROMPT, json_schema=both, max_tokens=200).parse() == value
    except GrammarError:
        return False


def some(rng, schema_names=("a", "b", "k1", "x1a")):
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(
            [None, True, rng.randrange(-2, 7), rng.choice(["", "a", "ab", "b", "abc", "c", "2024-02-29"])]
        )
    if kind < 5:
        return [rng.choice([0, 2, "x", "y", True]) for _ in range(rng.randrange(4))]
    names = rng.sample(schema_names, rng.randrange(3))
    return {name: rng.choice([0, 1, 2, "a", None]) for name in names}


@pytest.mark.parametrize("index", range(len(SCHEMAS)))
def test_the_same_values_are_valid(model, index):
    """Values at random: a value passes exactly when the validator says so, and has one layout (properties in order)."""
    schema = SCHEMAS[index]
    cls = jsonschema.Draft7Validator if "dependencies" in schema else jsonschema.Draft202012Validator
    validator = cls(schema, format_checker=cls.FORMAT_CHECKER)
    rng = random.Random(index)
    values = {json.dumps(some(rng), sort_keys=True) for _ in range(40)}
    for text in sorted(values):
        value = json.loads(text)
        assert takes(model, schema, value) == validator.is_valid(value), (schema, value)
