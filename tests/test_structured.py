"""Output that follows schemas, regexes, grammars and choices."""

import asyncio
import dataclasses
import json
import re
import subprocess
import sys
import threading

import jsonschema
import pydantic
import pytest

import fastllm
from fastllm import GrammarError, Model, OutputError, ParameterError, SamplingParams

from .conftest import ROOT

FOLDER = ROOT / "tests/data/json_schemas"
SCHEMAS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
# There is no longest value (fractions of a second have any number of digits), and this model never comes to an end.
ENDLESS = ("recursive_list", "recursive_tree", "format_date", "format_date_time")
PROMPT = "The answer as JSON:"
LONG = 400


@pytest.fixture(scope="module")
def model():
    with Model.demo() as model:
        yield model


def check(text, schema):
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    cls.check_schema(schema)
    value = json.loads(text)
    cls(schema, format_checker=cls.FORMAT_CHECKER).validate(value)
    return value


def test_there_are_schemas():
    assert len(SCHEMAS) >= 30


@pytest.mark.parametrize("name", SCHEMAS)
def test_output_follows_the_schema(model, name):
    schema = SCHEMAS[name]
    ways = [{"temperature": 0}, *({"temperature": t, "seed": seed} for t in (0.8, 1.5) for seed in range(3))]
    ended = 0
    for way in ways:
        out = model.generate(PROMPT, json_schema=schema, max_tokens=LONG, **way)
        if out.finish_reason == "stop":
            check(out.text, schema)
            ended += 1
        else:
            assert out.finish_reason == "length"
            assert name in ENDLESS
    assert ended >= 1 or name in ENDLESS


@pytest.mark.parametrize("name", SCHEMAS)
def test_forced_tokens_change_nothing(model, name):
    def outputs():
        ways = [
            {"temperature": 0},
            {"seed": 5},
            {"seed": 6, "temperature": 1.4, "top_p": 0.9, "repetition_penalty": 1.2},
        ]
        ways += [{"seed": 7, "mirostat": 2}, {"seed": 8, "dry_multiplier": 0.8, "frequency_penalty": 0.5}]
        return [model.generate(PROMPT, json_schema=SCHEMAS[name], max_tokens=60, **way) for way in ways]

    together = outputs()
    model._skip_ahead = False
    try:
        single = outputs()
    finally:
        model._skip_ahead = True

    def facts(outputs):
        return [(o.text, o.token_ids, o.finish_reason, o.usage.completion_tokens) for o in outputs]

    assert facts(together) == facts(single)


def test_forced_tokens_are_tokens_of_the_output(model):
    schema = {"const": "a long text that leaves no choice at all, from its beginning to its end"}
    chunks = list(model.stream(PROMPT, json_schema=schema, temperature=0))
    out = model.generate(PROMPT, json_schema=schema, temperature=0)
    assert "".join(chunk.text for chunk in chunks) == out.text == json.dumps(schema["const"])
    assert out.usage.completion_tokens == len(out.token_ids) == len(chunks) > 8
    assert out.finish_reason == "stop"
    assert out.stop_reason is None


def test_many_at_once_as_alone(model):
    names = list(SCHEMAS)
    alone = [model.generate(PROMPT, json_schema=SCHEMAS[name], max_tokens=50, seed=9) for name in names]

    async def together():
        streams = [model.agenerate(PROMPT, json_schema=SCHEMAS[name], max_tokens=50, seed=9) for name in names]
        return await asyncio.gather(*streams)

    assert [(o.text, o.token_ids) for o in asyncio.run(together())] == [(o.text, o.token_ids) for o in alone]
    # One that is compiled again, in another model, gives the same.
    with Model.demo() as other:
        again = [other.generate(PROMPT, json_schema=SCHEMAS[name], max_tokens=50, seed=9) for name in reversed(names)]
    assert [o.text for o in reversed(again)] == [o.text for o in alone]


def test_threads_share_a_model(model):
    expected = {name: model.generate(PROMPT, json_schema=SCHEMAS[name], max_tokens=40, seed=1).text for name in SCHEMAS}
    wrong = []

    def work(names):
        for name in names:
            text = model.generate(PROMPT, json_schema=SCHEMAS[name], max_tokens=40, seed=1).text
            if text != expected[name]:
                wrong.append((name, text))

    threads = [threading.Thread(target=work, args=(list(SCHEMAS)[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_streaming_gives_the_same_text(model):
    schema = SCHEMAS["person"]
    out = model.generate(PROMPT, json_schema=schema, seed=3)
    with model.stream(PROMPT, json_schema=schema, seed=3) as stream:
        assert "".join(chunk.text for chunk in stream) == out.text
        assert stream.result().token_ids == out.token_ids


@pytest.mark.parametrize(
    "pattern",
    [r"\d{3}-\d{4}", r"(yes|no)( sir)?\.", r"[a-f]{2,5}", "नमस्ते[अ-ह]?", r"^a/b\\c$", "\\s{1,3}x", "[^a-z]{3}", "🙂{2}"],
)
def test_regex(model, pattern):
    for seed in range(4):
        out = model.generate(PROMPT, regex=pattern, max_tokens=60, seed=seed)
        assert out.finish_reason == "stop"
        assert re.fullmatch(pattern.strip("^$"), out.text)


def test_choices(model):
    words = ["yes", "yesterday", "no", 'a "quoted" one', "दो", "two\nlines"]
    seen = {model.generate(PROMPT, choices=words, seed=seed, temperature=3.0).text for seed in range(60)}
    assert seen <= set(words)
    assert len(seen) >= 3
    assert model.generate(PROMPT, choices=("only",)).text == "only"
    likely = model.generate("Once upon a", choices=[" time", " zebra"], temperature=0).text
    assert likely == " time"


GBNF_JSON = r"""
# values of JSON
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
LARK_SUM = """
start: term (("+" | "-") term)*
term: NUMBER | "(" start ")"
NUMBER: /[0-9]{1,3}/
"""


def test_grammars(model):
    ended = 0
    for seed in range(12):
        out = model.generate(PROMPT, grammar=GBNF_JSON, seed=seed, max_tokens=200)
        if out.finish_reason == "stop":
            assert isinstance(json.loads(out.text), dict)
            ended += 1
        out = model.generate(PROMPT, grammar=LARK_SUM, seed=seed, max_tokens=100)
        if out.finish_reason == "stop":
            assert re.fullmatch(r"[0-9()+-]+", out.text)
            assert out.text.count("(") == out.text.count(")")
            ended += 1
    assert ended >= 3


def test_grammars_that_name_special_tokens(model):
    end = model.tokenizer.token(model.tokenizer.eos_ids[0])
    names = [model.tokenizer.token(i) for i in range(model.tokenizer.vocab_size)]
    special = next(n for n in names if re.fullmatch(r"<[^<>\s]+>", n) and n != end and not n.startswith("<0x"))
    out = model.generate(PROMPT, grammar=f'start: "call " {special} /[0-9]{{2}}/', seed=2)
    assert out.finish_reason == "stop"
    assert model.tokenizer.token_id(special) in out.token_ids
    assert re.fullmatch(r"call [0-9]{2}", out.text)
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
    with_schema = f"start: {special} %json {json.dumps(schema, indent=1)}"
    assert model.generate(PROMPT, grammar=with_schema, seed=2).text == '{"a": 1}'
    with pytest.raises(GrammarError, match=re.escape("no special token <|nothing|>")):
        model.generate(PROMPT, grammar="start: <|nothing|>")


def test_the_end_is_where_the_grammar_allows_it(model):
    for seed in range(20):
        out = model.generate("Hello", regex="[a-z ]{5,9}", seed=seed)
        assert out.finish_reason == "stop"
        assert 5 <= len(out.text) <= 9
    out = model.generate("Hello", regex="[a-z ]+", seed=1, ignore_eos=True, max_tokens=30)
    assert out.finish_reason == "length"
    assert out.usage.completion_tokens == 30
    # Complete with the last token that is allowed: an end, not a cut.
    whole = model.generate(PROMPT, json_schema=SCHEMAS["person"], seed=4)
    cut = model.generate(PROMPT, json_schema=SCHEMAS["person"], seed=4, max_tokens=whole.usage.completion_tokens)
    assert (cut.text, cut.finish_reason) == (whole.text, "stop")
    short = model.generate(PROMPT, json_schema=SCHEMAS["person"], seed=4, max_tokens=3)
    assert short.finish_reason == "length"
    assert short.token_ids == whole.token_ids[:3]


def test_other_options_still_count(model):
    out = model.generate(PROMPT, choices=["1", "2"], temperature=0)
    other = model.generate(PROMPT, choices=["1", "2"], temperature=0, logit_bias={out.token_ids[0]: -100.0})
    assert {out.text, other.text} == {"1", "2"}
    stopped = model.generate(PROMPT, json_schema={"const": "one two three"}, stop="two")
    assert (stopped.text, stopped.stop_reason) == ('"one ', "two")
    with pytest.raises(fastllm.SamplingError, match="banned"):
        model.generate(PROMPT, choices=["left"], logit_bias={i: float("-inf") for i in range(model.vocab_size)})
    forced = model.generate(PROMPT, json_schema={"const": "one two three"})
    for id_ in forced.token_ids:
        with pytest.raises(fastllm.SamplingError, match="banned"):
            model.generate(PROMPT, json_schema={"const": "one two three"}, logit_bias={id_: float("-inf")})


def test_logprobs_are_those_of_the_model(model):
    schema = SCHEMAS["person"]
    plain = model.generate(PROMPT, json_schema=schema, seed=2)
    out = model.generate(PROMPT, json_schema=schema, seed=2, logprobs=2)
    assert out.token_ids == plain.token_ids
    assert [x.token_id for x in out.logprobs] == list(out.token_ids)
    ids = model.tokenizer.encode(PROMPT)
    assert sum(x.logprob for x in out.logprobs) == pytest.approx(model.score(ids, list(out.token_ids)), abs=1e-3)


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=6)
    price: int = pydantic.Field(ge=1, le=99)


class Cat(pydantic.BaseModel):
    kind: str = pydantic.Field(pattern="^cat$")
    lives: int = pydantic.Field(ge=1, le=9)


class Order(pydantic.BaseModel):
    items: list[Item] = pydantic.Field(min_length=1, max_length=2)
    note: str | None = pydantic.Field(max_length=5)
    pet: Cat | None


def test_pydantic_models(model):
    out = model.generate(PROMPT, json_schema=Order, seed=3, max_tokens=LONG)
    order = out.parse(Order)
    assert isinstance(order, Order)
    assert json.loads(out.text) == order.model_dump()
    reply = model.chat([{"role": "user", "content": "Order!"}], response_format=Order, seed=3, max_tokens=LONG)
    assert isinstance(reply.parse(Order), Order)
    assert reply.parse() == reply.parse(Order).model_dump()


def test_parse_says_what_is_wrong(model):
    out = model.generate(PROMPT, json_schema=SCHEMAS["person"], max_tokens=3, seed=1)
    with pytest.raises(OutputError, match="ended by 'length'"):
        out.parse()
    with pytest.raises(OutputError):
        model.generate(PROMPT, choices=['{"name": 1}']).parse(Item)
    with pytest.raises(TypeError):
        out.parse(int)
    assert issubclass(OutputError, ValueError)
    assert issubclass(GrammarError, ValueError)


def test_response_format(model):
    messages = [{"role": "user", "content": "Hi"}]
    schema = SCHEMAS["person"]
    wrapped = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
    expected = model.chat(messages, json_schema=schema, seed=1).content
    check(expected, schema)
    assert model.chat(messages, response_format=wrapped, seed=1).content == expected
    assert model.chat_stream(messages, response_format=wrapped, seed=1).result().content == expected

    async def both():
        stream = model.achat_stream(messages, response_format=wrapped, seed=1)
        return (await model.achat(messages, response_format=wrapped, seed=1)).content, (await stream.result()).content

    assert asyncio.run(both()) == (expected, expected)
    options = {"enable_thinking": False, "seed": 1, "max_tokens": 4}
    assert model.chat(messages, response_format={"type": "json_object"}, **options).content.startswith("{")
    plain = model.chat(messages, seed=1, max_tokens=8).content
    assert model.chat(messages, response_format={"type": "text"}, seed=1, max_tokens=8).content == plain
    assert model.chat(messages, response_format=None, seed=1, max_tokens=8).content == plain
    for wrong, error in [
        ({"type": "xml"}, ParameterError),
        ({}, ParameterError),
        ({"type": "json_object", "schema": {}}, ParameterError),
        ({"type": "json_schema"}, ParameterError),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, ParameterError),
        ({"type": "json_schema", "json_schema": {"schema": {}, "extra": 1}}, ParameterError),
        ({"type": "json_schema", "json_schema": {"schema": "{}"}}, TypeError),
        ("json", TypeError),
        (dict, TypeError),
    ]:
        with pytest.raises(error):
            model.chat(messages, response_format=wrong)
    with pytest.raises(ParameterError, match="combined"):
        model.chat(messages, response_format={"type": "json_object"}, regex="a")


def test_options_are_checked_at_once():
    for options, error in [
        ({"json_schema": 1}, TypeError),
        ({"json_schema": {"x": {1, 2}}}, TypeError),
        ({"json_schema": {"minimum": float("nan")}}, GrammarError),
        ({"regex": 1}, TypeError),
        ({"regex": re.compile("a")}, TypeError),
        ({"grammar": b"root ::= x"}, TypeError),
        ({"choices": "yes"}, TypeError),
        ({"choices": [1]}, TypeError),
        ({"choices": 5}, TypeError),
        ({"regex": "a", "choices": ["a"]}, ParameterError),
        ({"json_schema": True, "grammar": "start: /a/"}, ParameterError),
    ]:
        with pytest.raises(error):
            SamplingParams(**options)
    circle = {}
    circle["items"] = circle
    with pytest.raises(GrammarError):
        SamplingParams(json_schema=circle)
    params = SamplingParams(json_schema={"type": "null"})
    assert params.constrained
    assert params.json_schema == '{"type": "null"}'
    assert dataclasses.replace(params, temperature=0).json_schema == params.json_schema
    assert not SamplingParams().constrained
    assert "json_schema" in repr(params)
    assert hash(SamplingParams(json_schema=True).json_schema)


REFUSED = [
    ({"json_schema": {"not": {"pattern": "a"}}}, '"not" at #'),
    ({"json_schema": {"properties": {"a": {"if": {"pattern": "a"}, "then": False}}}}, r'"if" at #/properties/a'),
    ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    ({"json_schema": {"type": "array", "contains": {}}}, "contains.*maxItems"),
    ({"json_schema": {"dependentRequired": {"a": 1}}}, "dependentRequired"),
    ({"json_schema": {"$dynamicRef": "#a"}}, "dynamicRef"),
    ({"json_schema": {"unevaluatedProperties": False, "allOf": [{"properties": {}}]}}, "unevaluatedProperties"),
    ({"json_schema": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf"),
    ({"json_schema": {"type": "sting"}}, "sting"),
    ({"json_schema": {"$ref": "http://example.com/x.json"}}, "other documents"),
    ({"json_schema": {"$ref": "file:///etc/passwd"}}, "other documents"),
    ({"json_schema": {"$ref": "#/$defs/none"}}, "nothing at #/"),
    ({"json_schema": {"$ref": "#"}}, "itself"),
    ({"json_schema": {"const": 2**60}}, "exact"),
    ({"json_schema": False}, "false"),
    ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 4}}, "minimum"),
    ({"json_schema": "{"}, "not JSON"),
    ({"json_schema": "[" * 100_000}, "not JSON"),
    ({"regex": "(" * 60_000 + ")" * 60_000}, "nest"),
    ({"regex": "(a"}, "column 1"),
    ({"regex": ""}, "empty"),
    ({"regex": r"(?=a)a"}, "look"),
    ({"regex": r"(a)\1"}, "backreference"),
    ({"choices": []}, "none"),
    ({"choices": [""]}, "empty"),
    ({"grammar": "hello"}, "neither"),
    ({"grammar": "root ::= a\na ::= b"}, "line 2, column 7.*not defined"),
    ({"grammar": 'root ::= root "a"'}, "line 1, column 10.*left recursion"),
    ({"grammar": "start: nowhere"}, "nowhere"),
    ({"grammar": "start: " + "(" * 60_000}, "nested"),
    ({"grammar": 'start[temperature=1.0]: "a"'}, "temperature"),
    ({"grammar": "x" * 2_000_000 + ": /a/"}, "bytes"),
]


@pytest.mark.parametrize("index", range(len(REFUSED)))
def test_refused(model, index):
    options, message = REFUSED[index]
    with pytest.raises(GrammarError, match=f"(?s){message}"):
        model.generate(PROMPT, **options)
    with pytest.raises(GrammarError):
        asyncio.run(model.agenerate(PROMPT, **options))


def test_a_grammar_that_leads_nowhere_ends_with_an_error(model):
    with pytest.raises(GrammarError, match="cannot"):
        model.generate(PROMPT, json_schema={"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})
    assert model.generate(PROMPT, choices=["fine"]).text == "fine"


def test_the_examples_of_the_guide_run(tmp_path):
    guide = ROOT / "docs/structured-output.md"
    if not guide.exists():
        pytest.skip("there is no docs folder")
    blocks = re.findall(r"^```python\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    program = tmp_path / "guide.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    command = [sys.executable, "-W", "error", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("- ") >= 2


def test_a_closed_model_has_no_thread_for_masks():
    model = Model.demo()
    model.generate(PROMPT, choices=["a", "b"])
    model.close()
    with pytest.raises(fastllm.CancelledError):
        model.generate(PROMPT, choices=["a", "b"])
