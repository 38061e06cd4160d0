"""The template dialect against jinja2, set up as Hugging Face transformers sets it up."""

import json

import pytest

import fastllm
from fastllm import ChatTemplate

jinja2 = pytest.importorskip("jinja2")
extensions = pytest.importorskip("jinja2.ext")
meta = pytest.importorskip("jinja2.meta")
sandbox = pytest.importorskip("jinja2.sandbox")

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <b> & 'you' \"there\""},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
]


class Generation(extensions.Extension):
    """`{% generation %}`, whose body is rendered."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 wants it

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


EXTENSIONS = [Generation, "jinja2.ext.loopcontrols"]


def reference(source, **variables):
    """The text, or None where jinja2 fails."""
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=EXTENSIONS)
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    try:
        return environment.from_string(source).render(tools=None, documents=None, **variables)
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError, AssertionError):
        return None


def ours(source, **variables):
    try:
        return ChatTemplate(source)._native.render(MESSAGES, None, False, (2024, 1, 1, 0, 0, 0, 0), variables)
    except fastllm.TemplateError:
        return None


SUBJECTS = (
    "none",
    "nothing",
    "''",
    "'aB c'",
    "'<i>'|safe",
    "0",
    "7",
    "2.5",
    "true",
    "[]",
    "[3, 1, 2]",
    "['b', 'A']",
    "{}",
    "{'b': 1, 'a': 2}",
    "('x', 'y')",
)
FILTERS = (
    *("select", "reject", "select('none')", "reject('string')", "selectattr('a')", "rejectattr('a', 'equalto', 1)"),
    *(
        "map('upper')",
        "map(attribute='a')",
        "map('default', 'z')",
        "list",
        "length",
        "count",
        "join(', ')",
        "first",
        "last",
    ),
    *(
        "sum",
        "sort",
        "unique",
        "reverse",
        "max",
        "min",
        "upper",
        "lower",
        "title",
        "capitalize",
        "trim",
        "string",
        "int",
    ),
    *(
        "float",
        "abs",
        "round",
        "default('d')",
        "default('d', true)",
        "items",
        "dictsort",
        "tojson",
        "replace('a', 'x')",
    ),
    *(
        "truncate(2)",
        "truncate(3, true, '', 0)",
        "safe",
        "e",
        "escape",
        "forceescape",
        "wordcount",
        "batch(2)",
        "slice(2)",
    ),
    *("groupby('a')", "indent", "center(9)", "attr('x')", "format"),
)
# Where jinja2 gives a generator, or follows details of Python that no template needs.
LAZY = ("select", "reject", "map", "reverse", "unique", "batch", "slice", "items")


@pytest.mark.parametrize("name", FILTERS)
def test_filters_give_what_jinja2_gives(name):
    end = "|list" if name.startswith(LAZY) else ""
    wrong = []
    for subject in SUBJECTS:
        source = f"{{{{ {subject}|{name}{end} }}}}"
        expected, got = reference(source), ours(source)
        if expected != got:
            wrong.append((source, expected, got))
    assert not wrong, wrong


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}|{{ f(1, 3, 4, 5, x=6) }}",
        "{%- macro f() -%} {{ varargs|length }} {%- endmacro -%} [{{ f(1, 2) }}] {{ f() }}",
        "{% macro f(x) %}{{ varargs|join(x) }}{{ caller() }}{% endmacro %}{% call f('-', 1, 2) %}c{% endcall %}",
        "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
        "{% set j = joiner() %}{% for x in [1, 2, 3] %}{{ j() }}{{ x }}{% endfor %}",
        "{% set j = joiner(' | ') %}{{ j() }}a{{ j() }}b",
        "{% set c = cycler('odd', 'even') %}{% for x in range(3) %}{{ c.next() }} {% endfor %}{{ c.current }}",
        "{{ range is callable }}{{ 'a' is callable }}{{ nope is callable }}{{ namespace() is callable }}",
        "{% macro f() %}{% endmacro %}{{ f is callable }}{{ 'a'.upper is callable }}{{ joiner() is callable }}",
        "{{ 'a'|safe is escaped }}{{ 'a' is escaped }}{{ 'a'|e is escaped }}{{ none is escaped }}",
        "{{ {(1, 2): 'x'}[(1, 2)] }}{{ {(1, 2): 'x'} }}{{ (1, 2) in {(1, 2): 'x'} }}{{ {('a', (1,)): 0} }}",
        "{{ {[1]: 2} }}",
        "{{ messages[0].content is defined }}{{ messages[0].nope is defined }}{{ messages[0].get is defined }}",
        "{{ 'a'.upper is defined }}{{ 'a'.nope is defined }}{{ none.x is defined }}{{ [].append is defined }}",
        "{{ nope.x is defined }}",
        "{{ messages[2].tool_calls[0].function.name is defined }}{{ messages[2].x is not defined }}",
        "{{ 'a'|safe + '<b>' }}{{ '<b>' + 'a'|safe }}{{ ('<a>'|safe + '<b>') + '<c>' }}{{ '<a>'|safe ~ '<b>' }}",
        "{{ '<'|safe * 2 + '<' }}{{ ('<a>'|safe)[0] + '<' }}{{ ('<a>'|safe)[1:] + '<' }}{{ '%s'|safe % '<' }}",
        "{{ ('<a>'|safe).upper() + '<' }}{{ '<a>'|safe|trim + '<' }}{{ '<a>'|safe|replace('a', '<') + '<' }}",
        "{{ ('<'|safe).join(['<', '>']) }}{{ ('a'|safe).replace('a', '<') }}{{ '<a>'|safe|string + '<' }}",
        "{{ 'aa bb cc dd'|truncate(8) }}|{{ 'aa bb cc dd ee ff'|truncate(8) }}|{{ 'aaaaaaaaaaaa'|truncate(6, true) }}",
        "{{ 'aa bb cc'|truncate(5, leeway=0) }}|{{ 'aa bb cc'|truncate(5, end='!', leeway=0) }}|{{ 'aa'|truncate(1) }}",
        "{{ \"they're bill's (friends) from-the UK\"|title }}",
    ],
)
def test_small_templates_give_what_jinja2_gives(source):
    assert ours(source) == reference(source, messages=MESSAGES)


# Variables


SNIPPETS = [
    "{% set x = x | default(true) %}{{ x }}",
    "{{ a }}{% set a = 1 %}",
    "{% set a = 1 %}{{ a }}",
    "{% if a %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% if a %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% if a %}{% set x = 1 %}{% elif b %}{% set x = 2 %}{% else %}{% set x = 3 %}{% endif %}{{ x }}",
    "{% if a %}{% set x = 1 %}{% elif b %}{% set x = 2 %}{% elif c %}{{ x }}{% else %}{% set x = 3 %}{% endif %}",
    "{% if a %}{{ x }}{% else %}{% set x = 2 %}{% endif %}",
    "{% if a %}{% set x = 2 %}{% else %}{{ x }}{% endif %}",
    "{% set x = 0 %}{% if a %}{% set x = 1 %}{% endif %}",
    "{% for m in ms %}{{ m }}{{ loop.index }}{{ x }}{% endfor %}{% set x = 1 %}",
    "{% for m in ms if m.a == y %}{{ m }}{% else %}{{ m }}{% endfor %}",
    "{% for m in m %}{% set q = q %}{% endfor %}",
    "{% for a, b in c %}{% for a in b %}{{ a }}{{ loop }}{% endfor %}{% endfor %}{{ loop }}",
    "{% for a in b %}{% if a %}{% set y = 1 %}{% endif %}{{ y }}{% endfor %}",
    "{% set y = 0 %}{% for a in b %}{% if a %}{% set y = 1 %}{% endif %}{{ y }}{% endfor %}",
    "{% for a in b recursive %}{{ loop(a) }}{% endfor %}",
    "{% macro f(a, b=c) %}{{ a }}{{ b }}{{ d }}{{ caller() }}{{ varargs }}{% endmacro %}{{ f(e) }}{{ varargs }}",
    "{{ f() }}{% macro f() %}{{ f() }}{{ g() }}{% endmacro %}{% macro g() %}{% endmacro %}",
    "{% macro f(a=a) %}{% endmacro %}",
    "{% call(x) f(y) %}{{ x }}{{ z }}{% endcall %}",
    "{% with a = b, c = a %}{{ a }}{{ c }}{% set d = 1 %}{% endwith %}{{ d }}{{ a }}",
    "{% set x %}{{ y }}{% set z = 1 %}{% endset %}{{ x }}{{ z }}",
    "{% set ns = namespace(a=b) %}{% set ns.c = d %}{{ ns.c }}",
    "{% set ns.c = d %}",
    "{% filter upper %}{{ a }}{% set b = 1 %}{% endfilter %}{{ b }}",
    "{% filter replace(p, q) %}{{ p }}{% endfilter %}",
    "{{ range(3) }}{{ dict() }}{{ namespace() }}{{ cycler(1) }}{{ joiner() }}{{ lipsum }}{{ raise_exception('') }}",
    "{{ self }}",
    "{{ a.b[c](d, e=f, *g, **h)|default(i) is divisibleby(j) if k else l }}{{ [m, (n, o), {p: q}] }}{{ r[s:t:u] }}",
    "{{ true }}{{ None }}{{ 'a' 'b' }}{{ not v }}{{ -w }}{{ x in y and z is defined or aa not in bb }}",
    "{% set a, b = b, a %}",
    "{% set (a, b) = c %}{{ a }}",
    "{% generation %}{{ a }}{% set b = 1 %}{% endgeneration %}{{ b }}",
    "{% for a in b %}{% if c %}{% break %}{% endif %}{% continue %}{% endfor %}",
]


@pytest.mark.parametrize("source", SNIPPETS)
def test_variables_are_those_that_jinja2_finds(source):
    environment = jinja2.Environment(extensions=EXTENSIONS)
    assert ChatTemplate(source).variables == meta.find_undeclared_variables(environment.parse(source))


def test_variables_of_real_templates(shared):
    environment = jinja2.Environment(extensions=EXTENSIONS)
    paths = sorted(shared("templates").glob("*.jinja"))
    assert len(paths) > 20
    for path in paths:
        source = path.read_text(encoding="utf-8")
        assert ChatTemplate(source).variables == meta.find_undeclared_variables(environment.parse(source)), path.name
