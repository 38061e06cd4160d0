//! What an answer of a chat may be, in the formats of real models: reasoning, content in a form, text, and calls.

mod common;

use std::sync::{Arc, OnceLock};

use common::{allows, schema};
use fastllm_engine::Constraint;
use fastllm_gguf::{GgufFile, Header, OwnedValue, Writer};
use fastllm_grammar::{Compiler, Source};
use fastllm_text::tokenizer::Tokenizer;
use fastllm_text::tools::{Choice, Constraint as Wanted, Format, Reasoning, Tools};
use serde_json::json;

const CONTROL: [&str; 18] = [
    "<|return|>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|constrain|>",
    "<|end|>",
    "<|call|>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<|START_ACTION|>",
    "<|END_ACTION|>",
    "<|START_RESPONSE|>",
];
const SCHEMA: &str = r#"{"type":"object","properties":{"name":{"type":"string"}},"required":["name"],"additionalProperties":false}"#;

/// The tokenizer of the embedded model, with or without control tokens for the markers of formats.
fn compiler(control: bool) -> &'static Compiler {
    static COMPILERS: [OnceLock<Compiler>; 2] = [OnceLock::new(), OnceLock::new()];
    COMPILERS[usize::from(control)].get_or_init(|| {
        if !control {
            return Compiler::new(common::tokenizer());
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/fastllm/models/fastllm-tiny-q4_0.gguf");
        let mut writer = Writer::new();
        for (key, value) in GgufFile::open(path).unwrap().metadata().iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
            let mut value = OwnedValue::from(value);
            if let OwnedValue::Array(_, values) = &mut value {
                match key {
                    "tokenizer.ggml.tokens" => values.extend(CONTROL.map(OwnedValue::from)),
                    "tokenizer.ggml.token_type" => values.extend(CONTROL.map(|_| OwnedValue::I32(3))),
                    _ => {}
                }
            }
            writer.set(key, value);
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        let header = Header::parse(&bytes, bytes.len() as u64).unwrap();
        Compiler::new(Arc::new(Tokenizer::from_metadata(&header.metadata).unwrap()))
    })
}

#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "options of a request")]
struct Case {
    format: Format,
    control: bool,
    choice: Choice<'static>,
    form: Option<Source>,
    strict: bool,
    tools: bool,
    budget: Option<usize>,
    reasoning: Option<Reasoning>,
    inside: bool,
}

fn case(format: Format) -> Case {
    let reasoning = Some(Reasoning::THINK);
    Case { format, control: false, choice: Choice::Auto, form: None, strict: false, tools: true, budget: None, reasoning, inside: false }
}

impl Case {
    fn start(&self) -> Box<dyn Constraint> {
        let compiler = compiler(self.control);
        let add = json!({"name": "add", "strict": self.strict, "parameters": {"type": "object",
            "properties": {"a": {"type": "integer"}}, "required": ["a"]}});
        let declared = [add, json!({"name": "other"})];
        let tools = Tools::from_json(if self.tools { &declared } else { &[] }).unwrap();
        let wanted = Wanted {
            tools: &tools,
            choice: self.choice,
            parallel: true,
            form: self.form.is_some(),
            loose: false,
            budget: self.budget.is_some(),
            reasoning: self.reasoning,
            inside_reasoning: self.inside,
            control: &|text| tokenizer(self.control).control_id(text),
        };
        let form = self.form.as_ref().map(|form| compiler.compile(form).unwrap());
        let answer = self.format.answer(&wanted).unwrap().expect("a grammar");
        Arc::new(compiler.answer(answer, form.as_ref(), self.budget).unwrap()).constraint()
    }

    /// Whether the answer may be this text.
    fn accepts(&self, text: &str) -> bool {
        let (mut constraint, tokenizer) = (self.start(), tokenizer(self.control));
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if constraint.is_complete() {
                return false;
            }
            let mask = constraint.mask().unwrap();
            let bytes = |id: u32| tokenizer.token_bytes(id).unwrap_or_default();
            let fits = |id: &u32| allows(mask, *id) && !bytes(*id).is_empty() && rest.starts_with(bytes(*id));
            let Some(id) = (0..tokenizer.vocab_size() as u32).filter(fits).max_by_key(|id| bytes(*id).len()) else { return false };
            constraint.accept(id).unwrap();
            rest = &rest[bytes(id).len()..];
        }
        let ends = tokenizer.end_of_generation();
        constraint.is_complete() || ends.iter().any(|&id| allows(constraint.mask().unwrap(), id))
    }

    fn check(&self, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(self.accepts(text), "{:?} must accept {text}", self.format);
        }
        for text in bad {
            assert!(!self.accepts(text), "{:?} must refuse {text}", self.format);
        }
    }
}

fn tokenizer(control: bool) -> &'static Tokenizer {
    static CONTROLS: [OnceLock<Arc<Tokenizer>>; 2] = [OnceLock::new(), OnceLock::new()];
    CONTROLS[usize::from(control)].get_or_init(|| Arc::clone(compiler(control).tokenizer()))
}

/// One call in each format, with the arguments, and whether the markers are tokens.
const CALLS: &[(Format, bool, &str)] = &[
    (Format::Hermes, false, "<tool_call>\n{\"name\": \"add\", \"arguments\": ARGS}\n</tool_call>"),
    (Format::Llama3, true, "{\"name\": \"add\", \"parameters\": ARGS}"),
    (Format::Llama3, false, "{\"name\": \"add\", \"parameters\": ARGS}"),
    (Format::Mistral, true, "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": ARGS}]"),
    (Format::Mistral, false, "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": ARGS}]"),
    (Format::MistralArgs, true, "[TOOL_CALLS]add[ARGS]ARGS"),
    (
        Format::DeepSeek,
        true,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\nARGS\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    (Format::DeepSeekV31, true, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>ARGS<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
    (
        Format::CommandR,
        true,
        "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"add\", \"parameters\": ARGS}\n]<|END_ACTION|>",
    ),
    (Format::CommandRPlus, false, "Action:\n```json\n[\n    {\"tool_name\": \"add\", \"parameters\": ARGS}\n]```"),
    (Format::Granite, false, "<|tool_call|>[{\"name\": \"add\", \"arguments\": ARGS}]"),
    (Format::Nemotron, false, "<TOOLCALL>[{\"name\": \"add\", \"arguments\": ARGS}]</TOOLCALL>"),
    (
        Format::KimiK2,
        false,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>ARGS<|tool_call_end|><|tool_calls_section_end|>",
    ),
    (Format::Harmony, true, "<|channel|>commentary to=functions.add <|constrain|>json<|message|>ARGS<|call|>"),
];

fn call(text: &str, arguments: &str) -> String {
    match text.strip_suffix("[ARGS]ARGS") {
        Some(head) => format!("{head}[ARGS]{arguments}"),
        None => text.replace("ARGS", arguments),
    }
}

/// Reasoning in the format, and content after it.
fn thought(format: Format) -> (&'static str, &'static str) {
    match format {
        Format::Harmony => ("<|channel|>analysis<|message|>I think {.<|end|><|start|>assistant", "<|channel|>final<|message|>"),
        _ => ("<think>I think {.</think>\n\n", ""),
    }
}

#[test]
fn strict_calls_follow_the_schema_and_text_is_free() {
    for &(format, control, text) in CALLS {
        let case = Case { strict: true, control, ..case(format) };
        let (right, wrong) = (call(text, "{\"a\": 1}"), call(text, "{\"a\": \"1\"}"));
        let other = right.replace("add", "other");
        let loose = call(text, "{\"x\": [1, {}]}").replace("add", "other");
        let (think, answer) = thought(format);
        let said = format!("{think}{answer}It is [1], 3 < 4 and <b>.");
        case.check(
            &[&right, &other, &loose, &said, &format!("{answer}Hi"), &format!("{think}{right}")],
            &[&wrong, &format!("{think}{wrong}"), &call(text, "{}"), &right.replace("add", "unknown")],
        );
        if !matches!(format, Format::Llama3 | Format::Harmony) {
            case.check(
                &[&format!("I look.\n{right}"), &format!("A {right} b {loose}")],
                &[&format!("I look.\n{wrong}"), &format!("{right} and {wrong}")],
            );
        }
    }
    let case = Case { strict: true, control: true, ..case(Format::Llama3) };
    let tagged = |a: &str| format!("See: <|python_tag|>{{\"name\": \"add\", \"parameters\": {{\"a\": {a}}}}}");
    case.check(&[&tagged("1"), "See {\"name\": 1}"], &[&tagged("[]"), "{\"x\": 1}", " {\"name\": \"add\", \"parameters\": {}}"]);
}

#[test]
fn bare_arguments_are_strict_too() {
    let tags = |tool: &str, a: &str| format!("<tool_call>\n<function={tool}>\n<parameter=a>\n{a}\n</parameter>\n</function>\n</tool_call>");
    let seed =
        |tool: &str, a: &str| format!("<seed:tool_call>\n<function={tool}>\n<parameter=a>{a}</parameter>\n</function>\n</seed:tool_call>");
    let invoke = |tool: &str, a: &str| {
        let call = format!("<invoke name=\"{tool}\">\n<parameter name=\"a\">{a}</parameter>\n</invoke>\n");
        format!("<minimax:tool_call>\n{call}{call}</minimax:tool_call>")
    };
    let glm = |tool: &str, a: &str| format!("<tool_call>{tool}\n<arg_key>a</arg_key>\n<arg_value>{a}</arg_value>\n</tool_call>");
    let python = |tool: &str, a: &str| format!("[{tool}(a={a})]");
    for format in [Format::Qwen3Coder, Format::SeedOss, Format::MinimaxM2, Format::Glm4, Format::Pythonic] {
        let text = |tool: &str, a: &str| match format {
            Format::Qwen3Coder => tags(tool, a),
            Format::SeedOss => seed(tool, a),
            Format::MinimaxM2 => invoke(tool, a),
            Format::Glm4 => glm(tool, a),
            _ => python(tool, a),
        };
        let case = Case { strict: true, ..case(format) };
        case.check(
            &[&text("add", "1"), &text("other", "\"x\""), "<think>So.</think>Hi [x]"],
            &[&text("add", "\"x\""), &format!("<think>So.</think>{}", text("add", "x"))],
        );
        // Where only the name tells a call from text, it is text.
        assert_eq!(case.accepts(&text("unknown", "1")), format == Format::Pythonic);
    }
    Case { strict: true, ..case(Format::Pythonic) }.check(&["[a](b)", "[1, 2]"], &["[add(", " [ add(b=1)]"]);
}

#[test]
fn content_has_its_form_after_reasoning_and_beside_calls() {
    let (right, wrong) = ("{\"name\": \"add\"}", "{\"name\": 1}");
    for &(format, control, text) in CALLS {
        let (think, answer) = thought(format);
        let call_ = call(text, "{\"a\": 1}");
        for tools in [false, true] {
            let case = Case { form: Some(schema(SCHEMA)), tools, control, ..case(format) };
            let good = [format!("{answer}{right}"), format!("{think}{answer}{right}")];
            let bad = [format!("{answer}{wrong}"), format!("{think}{answer}{wrong}"), format!("{think}{answer}Hi"), think.to_owned()];
            case.check(&good.each_ref().map(String::as_str), &bad.each_ref().map(String::as_str));
            assert_eq!((case.accepts(&call_), case.accepts(&format!("{think}{call_}"))), (tools, tools), "{format:?}");
            assert!(!case.accepts(&call(text, "{\"a\": \"1\"}")));
        }
        let required = Case { choice: Choice::Required, control, ..case(format) };
        required.check(&[&call_, &format!("{think}{call_}")], &[&format!("{answer}{right}"), &format!("{answer}Hi"), think]);
    }
    let response = Case { form: Some(schema(SCHEMA)), control: true, ..case(Format::CommandR) };
    response.check(&[&format!("<think>So.</think><|START_RESPONSE|>{right}")], &[&format!("<|START_RESPONSE|>{wrong}")]);
}

#[test]
fn forms_of_all_kinds_are_taken_as_they_are() {
    let lark = common::lark("start: thought call\nthought: \"(\" call* \")\"\ncall: /[a-z]/");
    let gbnf = common::gbnf("root ::= \"<\" [a-z]+ \">\"");
    let choices = Source::Choices(vec!["yes".to_owned(), "no".to_owned()]);
    for (form, text) in [(lark, "(ab)c"), (gbnf, "<thinking>"), (choices, "no"), (common::regex("a/b|\\d"), "a/b")] {
        let case = Case { form: Some(form), ..case(Format::Hermes) };
        case.check(&[text, &format!("<think>\n{text}</think>\n{text}")], &["", "<think>", "<think></think>", &format!("{text}!")]);
    }
}

#[test]
fn a_prompt_that_has_opened_the_reasoning_is_closed() {
    let form = Some(schema(SCHEMA));
    let case = Case { form, inside: true, ..case(Format::DeepSeek) };
    case.check(
        &["\nSo.\n</think>\n\n{\"name\": \"x\"}", "</think>{\"name\": \"\"}"],
        &["{\"name\": \"x\"}", "So.", "<think></think>Hi", "So.</think>", "So.</think>     {\"name\": \"x\"}"],
    );
}

/// Writes `text` again and again until it is not allowed, and what must follow: what was written, its tokens before that, and where it
/// stands.
fn exhaust(case: &Case, text: &str) -> (String, usize, Box<dyn Constraint>) {
    let (mut constraint, tokenizer) = (case.start(), tokenizer(case.control));
    let (mut out, mut count) = (Vec::new(), 0);
    let mut ids = tokenizer.encode(text, fastllm_text::tokenizer::EncodeOptions { add_special: false, parse_special: true }).unwrap();
    ids = ids.repeat(50);
    for id in ids {
        let mask = constraint.mask().unwrap();
        if !allows(mask, id) {
            break;
        }
        constraint.accept(id).unwrap();
        out.extend_from_slice(tokenizer.token_bytes(id).unwrap());
        count += 1;
    }
    for _ in 0..16 {
        let mask = constraint.mask().unwrap().to_vec();
        let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|&id| allows(&mask, id)).collect();
        let forced = constraint.forced().unwrap();
        let [id] = allowed[..] else { break };
        if let Some(first) = forced.first() {
            assert_eq!(*first, id);
        }
        constraint.accept(id).unwrap();
        out.extend_from_slice(tokenizer.token_bytes(id).unwrap());
    }
    (String::from_utf8_lossy(&out).into_owned(), count, constraint)
}

#[test]
fn reasoning_ends_when_its_budget_is_used_up() {
    for budget in [0, 1, 5] {
        for form in [None, Some(schema(SCHEMA))] {
            let case = Case { budget: Some(budget), form, inside: true, tools: false, ..case(Format::Hermes) };
            let (text, count, mut constraint) = exhaust(&case, "a ");
            assert!(text.ends_with("</think>") && count == budget, "{count}: {text}");
            // The answer goes on, in its form if it has one.
            let letter = common::encode("a")[0];
            assert_eq!(allows(constraint.mask().unwrap(), letter), case.form.is_none());
            let brace = |id: &u32| tokenizer(false).token_bytes(*id).is_some_and(|bytes| bytes.starts_with(b"{"));
            assert!((0..tokenizer(false).vocab_size() as u32).filter(brace).any(|id| allows(constraint.mask().unwrap(), id)));
        }
    }
    // What is there of the marker is not written twice, and characters stay whole.
    let case = Case { budget: Some(3), inside: true, tools: false, ..case(Format::Hermes) };
    assert_eq!(exhaust(&case, "</t").0.matches("</think>").count(), 1);
    let (text, ..) = exhaust(&case, "\u{10330}");
    assert!(!text.contains('\u{fffd}') && text.ends_with("</think>"), "{text}");
    // It may begin later, or not at all.
    let late = Case { budget: Some(2), inside: false, tools: false, ..case.clone() };
    late.check(&["Hi <think> a b c d e f", "\n <think>a</think> a b c d", "<think></think>"], &["<think>a b c d e f</think>"]);
}

#[test]
fn harmony_has_one_budget() {
    let case = Case { budget: Some(2), control: true, ..case(Format::Harmony) };
    let (think, answer) = ("<|channel|>analysis<|message|>So<|end|><|start|>assistant", "<|channel|>final<|message|>");
    let call = "<|channel|>commentary to=functions.add <|constrain|>json<|message|>{\"a\": \"free\"}<|call|>";
    let said = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant";
    case.check(
        &[&format!("{think}{answer}Hi there"), &format!("{think}{said}{call}"), &format!("{answer}Hi")],
        &[&format!("{think}{think}{answer}Hi"), &format!("{}{answer}Hi", think.replace("So", "So and so and so")), "Hi"],
    );
    let (text, ..) = exhaust(&case, "<|channel|>analysis<|message|>a a a a a a a");
    assert!(text.ends_with("<|end|><|start|>assistant<|channel|>"), "{text}");
}
