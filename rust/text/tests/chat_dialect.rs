//! The dialect, feature by feature, against what the reference implementation makes of the same small templates.

use fastllm_text::chat::{ChatTemplate, DateTime, Limit, RenderInput, TemplateError};
use serde_json::{Map, Value, json};

const NOW: DateTime = DateTime { year: 2024, month: 2, day: 29, hour: 9, minute: 5, second: 7, microsecond: 1234 };

fn render(source: &str, messages: &Value, tools: Option<&Value>, variables: &Map<String, Value>) -> Result<String, TemplateError> {
    let input = RenderInput { messages, tools, add_generation_prompt: true, now: Some(NOW), variables };
    ChatTemplate::new(source, Some("<s>"), None)?.render(&input)
}

fn text(source: &str) -> String {
    render(source, &json!([]), None, &Map::new()).unwrap()
}

fn error(source: &str) -> TemplateError {
    render(source, &json!([]), None, &Map::new()).unwrap_err()
}

#[test]
fn small_templates_render_as_in_jinja2() {
    let file: Value = serde_json::from_str(include_str!("data/chat_cases.json")).unwrap();
    let mut wrong = Vec::new();
    for case in file["cases"].as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let result = render(source, &file["messages"], Some(&file["tools"]), &Map::new());
        let agrees = match (&result, case["output"].as_str()) {
            (Ok(text), Some(wanted)) => text == wanted,
            (Err(TemplateError::Raised { message, .. }), None) => case["raised"] == true && case["error"] == *message,
            (Err(TemplateError::Syntax { .. }), None) => {
                case["error"] == "TemplateSyntaxError" || case["error"] == "TemplateAssertionError"
            }
            (Err(TemplateError::Evaluation { .. }), None) => case["raised"].is_null() && case["error"] != "TemplateSyntaxError",
            _ => false,
        };
        if !agrees {
            wrong.push(format!("{source}\n  got {result:?}\n  not {}", case.get("output").unwrap_or(&case["error"])));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the reference sandbox refuses, or what has no reference: lists that change, JSON that is parsed, data named like a method.
#[test]
fn extensions_beyond_the_reference() {
    assert_eq!(
        text("{% set l = [1] %}{% set _ = l.append(2) %}{{ l.pop(0) }}{{ l }}{% set _ = l.extend([3, 4]) %}{{ l.pop() }}{{ l }}"),
        "1[2]4[2, 3]"
    );
    assert_eq!(text("{% set l = [1] %}{% set _ = l.insert(0, 'x') %}{{ l }}"), "['x', 1]");
    assert_eq!(text("{% set ns = namespace(ids=[]) %}{% set _ = ns.ids.append('a') %}{{ ns.ids|length }}{{ ns.ids[0] }}"), "1a");
    assert_eq!(text(r#"{{ ('{"b": [1.5, null], "a": "x"}'|from_json).b }}{{ ('[1]'|fromjson)[0] }}"#), "[1.5, None]1");
    assert_eq!(text("{{ {'items': 5}.items }}{{ {'items': 5}.items() }}"), "5[('items', 5)]");
}

/// As in the reference: what is added to a safe string is escaped, and the result is safe. `~` makes plain text.
#[test]
fn safe_strings_escape_what_is_added() {
    assert_eq!(text("{% set x = 'a'|safe %}{{ x + '<b>' }}{{ '<b>' + x }}{{ (x + '<b>') + '<' }}"), "a&lt;b&gt;&lt;b&gt;aa&lt;b&gt;&lt;");
    assert_eq!(text("{% set x = '<i>'|safe %}{{ x ~ '<b>' }}{{ x.upper() + '&' }}{{ x|replace('i', '<') + '&' }}"), "<i><b><I>&amp;<<>&");
    assert_eq!(text("{{ '<'|e is escaped }}{{ '<'|e|e }}{{ '<' is escaped }}{{ '%s'|safe % '<' }}"), "True&lt;False&lt;");
}

#[test]
fn macros_take_any_arguments() {
    let source = "{%- macro f(a, b=2) -%}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{%- endmacro -%} {{ f(1) }} {{ f(1, 3, 4, 5, x=6) }}";
    assert_eq!(text(source), "12(){} 13(4, 5){'x': 6}");
    assert_eq!(text("{% macro f() %}{{ varargs|join('-') }}{{ caller() }}{% endmacro %}{% call f(1, 2) %}x{% endcall %}"), "1-2x");
    assert!(matches!(error("{% macro f(a) %}{{ kwargs }}{% endmacro %}{{ f(1, 2) }}"), TemplateError::Evaluation { .. }));
}

#[test]
fn filters_take_none_as_jinja2_does() {
    for filter in ["selectattr('a')", "rejectattr('a', 'equalto', 1)", "select", "reject('none')", "map('upper')", "map(attribute='a')"] {
        assert_eq!(text(&format!("{{{{ none|{filter}|list }}}}")), "[]", "{filter}");
    }
    for filter in ["list", "length", "join", "sum", "first", "sort", "unique", "batch(2)", "dictsort", "min", "items", "groupby('a')"] {
        assert!(matches!(error(&format!("{{{{ none|{filter} }}}}")), TemplateError::Evaluation { .. }), "{filter}");
    }
}

#[test]
fn what_more_the_dialect_has() {
    assert_eq!(text("{% set j = joiner('; ') %}{{ j() }}a{{ j() }}b{{ j() }}"), "a; b; ");
    assert_eq!(text("{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}"), "1212");
    assert_eq!(
        text("{{ 'aa bb cc dd'|truncate(8, leeway=0) }}|{{ 'aaaaaaaa'|truncate(5, true, '!', 0) }}|{{ 'short'|truncate(3) }}"),
        "aa...|aaaa!|short"
    );
    assert_eq!(text("{{ {(1, 'a'): 2}[(1, 'a')] }}{{ {(1, 'a'): 2} }}{{ (1, 'a') in {(1, 'a'): 2} }}"), "2{(1, 'a'): 2}True");
    assert_eq!(text("{{ range is callable }}{{ 1 is callable }}{{ nothing is callable }}{{ 'a'.upper is callable }}"), "TrueFalseTrueTrue");
    assert_eq!(
        text("{{ 'a'.upper is defined }}{{ {}.keys is defined }}{{ {}.x is defined }}{{ none.x is undefined }}"),
        "TrueTrueFalseTrue"
    );
    assert!(matches!(error("{{ nothing.x is defined }}"), TemplateError::Evaluation { .. }));
    assert_eq!(text("{{ \"it's a-b (c\"|title }}"), "It's A-B (C");
}

#[test]
fn variables_are_those_of_jinja2() {
    let variables = |source: &str| ChatTemplate::new(source, None, None).unwrap().variables().join(" ");
    assert_eq!(variables("{% set x = x|default(true) %}{{ x }}"), "x");
    assert_eq!(variables("{% set x = 1 %}{{ x }}{% for m in ms %}{{ loop.index }}{{ x }}{{ y }}{% endfor %}{% set y = 1 %}"), "ms");
    assert_eq!(variables("{% if a %}{% set x = 1 %}{% endif %}"), "a x");
    assert_eq!(variables("{% macro f(a, b=c) %}{{ caller() }}{{ varargs }}{{ d }}{% endmacro %}{{ kwargs }}{{ range(3) }}"), "c d kwargs");
    assert_eq!(variables("{% set ns = namespace(a=b) %}{% set ns.c = d %}{% with e = f %}{{ e }}{% endwith %}{{ e }}"), "b d e f");
}

/// A message that is continued ends the prompt, whatever the template writes after it; its white space is kept.
#[test]
fn the_last_message_is_continued() {
    let continued = |source: &str, messages: Value| {
        let input = RenderInput { messages: &messages, tools: None, add_generation_prompt: true, now: None, variables: &Map::new() };
        ChatTemplate::new(source, None, None).unwrap().render_continued(&input)
    };
    let source =
        "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let messages = json!([{"role": "user", "content": " a "}, {"role": "assistant", "content": "b "}]);
    assert_eq!(continued(source, messages.clone()).unwrap(), "<user>a</s><assistant>b ");
    assert!(continued("{{ messages[0].content }}", messages).is_err());
    assert!(continued(source, json!([{"role": "assistant", "content": ""}])).is_err());
    let thought = json!([{"role": "assistant", "content": "", "reasoning_content": "hm"}]);
    assert_eq!(
        continued("{% for m in messages %}<think>{{ m.reasoning_content }}</think>{{ m.content }}{% endfor %}", thought).unwrap(),
        "<think>hm"
    );
}

#[test]
fn tokens_are_undefined_unless_given() {
    assert_eq!(text("{{ bos_token }}{{ eos_token is defined }}{{ documents is none }}{{ tools is none }}"), "<s>FalseTrueTrue");
}

#[test]
fn variables_reach_the_template_and_keep_the_order_of_keys() {
    let variables = json!({"enable_thinking": false, "x": {"z": 1, "a": 2}});
    let source = "{{ enable_thinking }}{{ x|tojson }}{{ add_generation_prompt }}";
    assert_eq!(render(source, &json!([]), None, variables.as_object().unwrap()).unwrap(), "False{\"z\": 1, \"a\": 2}True");
}

#[test]
fn errors_say_what_where_and_which_limit() {
    let raised = error("a\n{% if true %}\n{{ raise_exception('Roles must alternate') }}{% endif %}");
    assert_eq!(raised, TemplateError::Raised { message: "Roles must alternate".into(), line: Some(3) });
    assert_eq!(raised.to_string(), "Roles must alternate");
    let syntax = error("a\n\n{{ 1 + }}");
    assert_eq!(syntax.to_string(), "chat template syntax error, line 3: expected a value, found the end of the tag");
    let evaluation = error("\n{{ 'a' + {} }}");
    assert_eq!(evaluation.to_string(), "chat template, line 2: can only concatenate str (not \"dict\") to str");
    let work = error("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}");
    assert_eq!(work, TemplateError::Limit { limit: Limit::Work, line: Some(1) });
    assert!(matches!(error("{{ range(10**6) }}"), TemplateError::Limit { limit: Limit::Range, .. }));
    assert!(matches!(error(&"x".repeat(2 << 20)), TemplateError::Limit { limit: Limit::SourceSize, .. }));
    let recursion = error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
    assert!(matches!(recursion, TemplateError::Limit { limit: Limit::Recursion, .. }), "{recursion:?}");
}

const TINY: &str = include_str!("data/fastllm-tiny.jinja");

#[test]
fn the_template_of_the_tiny_model() {
    let call = json!([
        {"role": "user", "content": "Add 1 and 2"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": 1}}}]},
        {"role": "tool", "content": "3"},
    ]);
    let tools = json!([{"type": "function", "function": {"name": "add", "parameters": {}}}]);
    let variables = json!({"enable_thinking": true});
    assert_eq!(
        render(TINY, &call, Some(&tools), variables.as_object().unwrap()).unwrap(),
        "<|im_start|>system\nYou are fastllm-tiny, a tiny demo model. Think step by step.\n\n<tools>\n{\"name\": \"add\", \"parameters\": {}}\n</tools>\n\
         Use <tool_call>{\"name\": ..., \"arguments\": {...}}</tool_call> to call a tool.<|im_end|>\n\
         <|im_start|>user\nAdd 1 and 2<|im_end|>\n\
         <|im_start|>assistant\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"b\": 2, \"a\": 1}}\n</tool_call><|im_end|>\n\
         <|im_start|>tool\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    );
}

/// What a render may spend grows with its input: a conversation of any size renders.
#[test]
fn long_conversations_render() {
    let many: Value = (0..20_000).map(|i| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": "Hi"})).collect();
    let long = json!([{"role": "user", "content": "word ".repeat(10_000_000)}]);
    for messages in [many, long] {
        let text = render(TINY, &messages, None, &Map::new()).unwrap();
        assert!(text.ends_with("<|im_start|>assistant\n"));
        assert_eq!(text.matches("<|im_end|>").count(), messages.as_array().unwrap().len() + 1);
    }
}

#[test]
fn input_that_is_too_deep_is_refused() {
    let deep = (0..10_000).fold(json!(1), |inner, _| Value::Array(vec![inner]));
    let result = render("x", &deep, None, &Map::new());
    assert_eq!(result, Err(TemplateError::Limit { limit: Limit::ValueDepth, line: None }));
    // Taken apart from the outside: the tree itself is too deep to be dropped at once.
    let mut rest = deep;
    while let Value::Array(mut items) = rest {
        rest = items.pop().unwrap_or_default();
    }
}

#[test]
fn one_template_renders_on_many_threads() {
    let template = ChatTemplate::new(TINY, None, None).unwrap();
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let render = || {
        let input = RenderInput { messages: &messages, tools: None, add_generation_prompt: false, now: None, variables: &Map::new() };
        template.render(&input).unwrap()
    };
    let expected = render();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..20).all(|_| render() == expected))).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
}

#[test]
fn the_clock_is_used_where_no_time_is_given() {
    let input = RenderInput { messages: &json!([]), tools: None, add_generation_prompt: false, now: None, variables: &Map::new() };
    let year: i32 = ChatTemplate::new("{{ strftime_now('%Y') }}", None, None).unwrap().render(&input).unwrap().parse().unwrap();
    assert!((2024..2200).contains(&year));
}
