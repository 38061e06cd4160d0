//! What each format gives, whole and in every cut; what hostile output does; the shape of the grammars.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Alternative, AnswerError, Choice, Constraint, Event, Format, Options, Parser, Reasoning, Thought, Tools};

fn tools() -> Tools {
    let weather = json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["city"]}}});
    let add = json!({"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}});
    Tools::from_json(&[weather, add, json!({"name": "now"})]).unwrap()
}

fn options(format: Format) -> Options {
    Options { format, tools: tools(), reasoning: Some(Reasoning::THINK), inside_reasoning: false }
}

/// The joined output.
#[derive(Debug, Default, PartialEq, Clone)]
struct Joined {
    content: String,
    reasoning: String,
    /// Name, arguments, whether it ended.
    calls: Vec<(String, String, bool)>,
    taken_back: Vec<usize>,
    malformed: Vec<String>,
}

impl Joined {
    fn add(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Content(text) => self.content += &text,
                Event::Reasoning(text) => self.reasoning += &text,
                Event::CallBegin { index, name } => {
                    assert_eq!(index, self.calls.len());
                    self.calls.push((name, String::new(), false));
                }
                Event::Arguments { index, json } => {
                    assert!(!json.is_empty() && !self.calls[index].2);
                    self.calls[index].1 += &json;
                }
                Event::CallEnd { index } => self.calls[index].2 = true,
                Event::Malformed { index, raw, reason } => {
                    assert!(!reason.is_empty());
                    self.taken_back.extend(index);
                    self.malformed.push(raw);
                }
            }
        }
    }

    /// Every call is a JSON object, or was taken back.
    fn check(&self) {
        for (index, (name, arguments, ended)) in self.calls.iter().enumerate() {
            assert_ne!(*ended, self.taken_back.contains(&index));
            if *ended {
                assert!(!name.is_empty());
                // Half surrogates and huge numbers are JSON text that serde cannot hold.
                if !arguments.contains("\\u") && !arguments.contains(['e', 'E']) {
                    assert!(serde_json::from_str::<Value>(arguments).is_ok_and(|v| v.is_object()), "{arguments}");
                }
            }
        }
    }

    fn calls(&self) -> Vec<(&str, Value)> {
        let ended = self.calls.iter().filter(|(_, _, ended)| *ended);
        ended.map(|(name, arguments, _)| (name.as_str(), serde_json::from_str(arguments).unwrap())).collect()
    }
}

fn parse<'a>(options: &Options, pieces: impl IntoIterator<Item = &'a str>) -> Joined {
    let mut parser = Parser::new(options.clone());
    let mut joined = Joined::default();
    for piece in pieces {
        joined.add(parser.push(piece));
    }
    joined.add(parser.finish());
    assert!(parser.push("more").is_empty() && parser.finish().is_empty());
    joined.check();
    joined
}

fn characters(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()])
}

fn whole(format: Format, text: &str) -> Joined {
    let options = options(format);
    let joined = parse(&options, [text]);
    assert_eq!(joined, parse(&options, characters(text)), "{text}");
    joined
}

/// Outputs of real models' shape: what two calls, or one, look like.
const SAMPLES: &[(Format, &str, usize)] = &[
    (
        Format::Hermes,
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}\n</tool_call>",
        2,
    ),
    (
        Format::Llama3,
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}; {\"name\": \"add\", \"parameters\": {\"a\": 1, \"b\": 2}}",
        2,
    ),
    (Format::Llama3, "<|python_tag|>{\"type\": \"function\", \"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}", 1),
    (Format::Pythonic, "[get_weather(city='Paris'), add(a=1, b=2)]", 2),
    (Format::Pythonic, "<|tool_call_start|>[get_weather(city=\"Paris\")]<|tool_call_end|>", 1),
    (
        Format::Mistral,
        "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \"abcdefghi\"}, {\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}]",
        2,
    ),
    (
        Format::MistralArgs,
        "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{\"a\": 1, \"b\": 2}",
        2,
    ),
    (Format::MistralArgs, "[TOOL_CALLS]get_weather{\"city\": \"Paris\"}", 1),
    (
        Format::DeepSeek,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": 1, \"b\": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        2,
    ),
    (
        Format::DeepSeekV31,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1, \"b\": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        2,
    ),
    (Format::Harmony, "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Paris\"}<|call|>", 1),
    (Format::Harmony, " to=functions.get_weather<|channel|>commentary json<|message|>{\"city\": \"Paris\"}", 1),
    (
        Format::Qwen3Coder,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>",
        2,
    ),
    (Format::Qwen3Coder, "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>", 1),
    (
        Format::SeedOss,
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>\n<seed:tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>2</parameter>\n</function>\n</seed:tool_call>",
        2,
    ),
    (
        Format::MinimaxM2,
        "<minimax:tool_call>\n<invoke name=\"get_weather\">\n<parameter name=\"city\">Paris</parameter>\n</invoke>\n<invoke name=\"add\">\n<parameter name=\"a\">1</parameter>\n<parameter name=\"b\">2</parameter>\n</invoke>\n</minimax:tool_call>",
        2,
    ),
    (
        Format::MinimaxM2,
        "<minimax:tool_call><invoke name=\"get_weather\"><parameter name=\"city\">Paris</parameter></invoke></minimax:tool_call>\n<minimax:tool_call><invoke name=\"add\"><parameter name=\"a\">1</parameter><parameter name=\"b\">2</parameter></invoke></minimax:tool_call>",
        2,
    ),
    (
        Format::CommandR,
        "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"add\", \"parameters\": {\"a\": 1, \"b\": 2}}\n]<|END_ACTION|>",
        2,
    ),
    (
        Format::CommandRPlus,
        "Action:\n```json\n[\n    {\n        \"tool_name\": \"get_weather\",\n        \"parameters\": {\"city\": \"Paris\"}\n    }\n]```",
        1,
    ),
    (
        Format::Granite,
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}]",
        2,
    ),
    (Format::Granite, "<tool_call>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]</tool_call>", 1),
    (
        Format::Nemotron,
        "<TOOLCALL>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}]</TOOLCALL>",
        2,
    ),
    (
        Format::Glm4,
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        2,
    ),
    (
        Format::KimiK2,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>{\"a\": 1, \"b\": 2}<|tool_call_end|><|tool_calls_section_end|>",
        2,
    ),
    (
        Format::Generic,
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}\n</tool_call>",
        2,
    ),
    (
        Format::Generic,
        "<tool_call>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}]</tool_call>",
        2,
    ),
];

#[test]
fn every_format_reads_its_calls() {
    for &(format, text, count) in SAMPLES {
        let wanted = [("get_weather", json!({"city": "Paris"})), ("add", json!({"a": 1, "b": 2}))];
        let joined = whole(format, text);
        assert_eq!(joined.calls(), wanted[..count], "{format:?} {text}");
        assert_eq!((joined.content.as_str(), joined.reasoning.as_str()), ("", ""), "{format:?}");
        assert_eq!(joined.malformed, Vec::<String>::new());
    }
}

#[test]
fn reasoning_content_and_calls_are_apart() {
    for &(format, text, count) in SAMPLES {
        if matches!(format, Format::Harmony) {
            continue;
        }
        let joined = whole(format, &format!("<think>\nWell.\n</think>\n\n{text}\n"));
        assert_eq!((joined.reasoning.as_str(), joined.content.as_str()), ("Well.", ""), "{format:?}");
        assert_eq!(joined.calls().len(), count, "{format:?}");
        if !matches!(format, Format::Llama3 | Format::Pythonic) {
            let joined = whole(format, &format!("I look. \n{text}\n"));
            assert_eq!((joined.content.as_str(), joined.calls().len()), ("I look.", count), "{format:?}");
        }
    }
}

#[test]
fn harmony_has_channels() {
    let joined = whole(
        Format::Harmony,
        "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"Oslo\"}<|call|>",
    );
    assert_eq!((joined.reasoning.as_str(), joined.content.as_str()), ("Need weather.", "I look it up."));
    assert_eq!(joined.calls(), [("get_weather", json!({"city": "Oslo"}))]);
    let joined = whole(
        Format::Harmony,
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>It is < 4 <|b|>.<|return|>",
    );
    assert_eq!((joined.reasoning.as_str(), joined.content.as_str()), ("Easy.", "It is < 4 <|b|>."));
    // Two channels in a header: the last one counts.
    let joined = whole(
        Format::Harmony,
        "<|channel|>commentary to=assistant<|channel|>analysis<|message|>secret<|end|><|start|>assistant<|channel|>final<|message|>Hello",
    );
    assert_eq!((joined.reasoning.as_str(), joined.content.as_str(), joined.malformed.len()), ("secret", "Hello", 0));
    let joined = whole(
        Format::Harmony,
        "<|channel|>analysis to=functions.add<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}<|call|>",
    );
    assert_eq!((joined.content.as_str(), joined.calls()), ("", vec![("now", json!({}))]));
    let joined = whole(Format::Harmony, "Only text <|");
    assert_eq!((joined.content.as_str(), joined.malformed.len()), ("Only text <|", 0));
}

#[test]
fn the_prompt_may_have_opened_the_reasoning() {
    let inside = Options { inside_reasoning: true, ..options(Format::Hermes) };
    let text = "First.\n</think>\n\n<tool_call>{\"name\": \"now\"}</tool_call>";
    for joined in [parse(&inside, [text]), parse(&inside, characters(text))] {
        assert_eq!((joined.reasoning.as_str(), joined.content.as_str(), joined.calls()), ("First.", "", vec![("now", json!({}))]));
    }
    assert_eq!(parse(&inside, ["It never ends"]).reasoning, "It never ends");
    // Only at the beginning: an answer may speak of the tags.
    assert_eq!(whole(Format::Hermes, "Write <think> and </think>.").content, "Write <think> and </think>.");
}

#[test]
fn a_call_ends_open_reasoning() {
    for &(format, text, count) in SAMPLES {
        if format == Format::Harmony || !format.openers().iter().any(|opener| text.starts_with(opener)) {
            continue;
        }
        let inside = Options { inside_reasoning: true, ..options(format) };
        for (before, options) in [("Look first.\n", &inside), ("<think>\nLook first.", &options(format))] {
            for (after, content) in [("", ""), ("\n</think>\n\n", ""), ("\n</think>\n\nDone.", "Done."), ("Done.", "Done.")] {
                let text = format!("{before}{text}{after}");
                let joined = parse(options, [text.as_str()]);
                assert_eq!(joined, parse(options, characters(&text)), "{format:?} {text}");
                assert_eq!((joined.reasoning.as_str(), joined.content.as_str()), ("Look first.", content), "{format:?} {text}");
                assert_eq!((joined.calls().len(), joined.malformed.len()), (count, 0), "{format:?} {text}");
                for (at, _) in text.char_indices() {
                    assert_eq!(joined, parse(options, [&text[..at], &text[at..]]), "{format:?} {at}");
                }
            }
        }
    }
}

#[test]
fn reasoning_may_speak_of_calls() {
    let inside = Options { inside_reasoning: true, ..options(Format::Hermes) };
    let text = "I need <tool_call> here.\n</think>\n<tool_call>{\"name\": \"now\"}</tool_call>";
    for joined in [parse(&inside, [text]), parse(&inside, characters(text))] {
        assert_eq!((joined.reasoning.as_str(), joined.content.as_str()), ("I need <tool_call> here.", ""));
        assert_eq!((joined.calls(), joined.malformed.len()), (vec![("now", json!({}))], 1));
    }
    // A call that breaks off is taken back, and its text is reasoning.
    let text = "So: <tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1";
    for joined in [parse(&inside, [text]), parse(&inside, characters(text))] {
        assert_eq!((joined.reasoning.as_str(), joined.content.as_str(), joined.taken_back.as_slice()), (text, "", &[0][..]));
    }
    // After an answer has begun, the marker is text.
    let text = "<tool_call>{\"name\": \"now\"}</tool_call> So </think> is text.";
    assert_eq!(parse(&inside, [text]).content, " So </think> is text.");
    // Without tools there are no calls in reasoning either.
    let none = Options { tools: Tools::default(), ..inside };
    assert_eq!(parse(&none, [text]).reasoning, "<tool_call>{\"name\": \"now\"}</tool_call> So");
}

#[test]
fn a_generic_answer_in_text_has_markers() {
    for (text, content) in [
        ("<reply>\nHello.", "Hello."),
        ("<reply>\nHello.\n</reply>", "Hello."),
        (" <reply>Hello </rep", "Hello </rep"),
        ("Hello <reply> and </reply>.", "Hello <reply> and </reply>."),
        ("<reply>\n<reply>", "<reply>"),
        ("<reply>", ""),
        ("<reply></reply>", ""),
    ] {
        let joined = whole(Format::Generic, text);
        assert_eq!((joined.content.as_str(), joined.malformed.len()), (content, 0), "{text}");
    }
    let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    for text in [format!("<reply>\nI look.\n</reply>\n{call}"), format!("<think>Hm.</think>\n<reply>\nI look.\n{call}")] {
        let joined = whole(Format::Generic, &text);
        assert_eq!((joined.content.as_str(), joined.calls().len()), ("I look.", 1), "{text}");
    }
    assert_eq!(whole(Format::Hermes, "<reply>x</reply>").content, "<reply>x</reply>");
}

#[test]
fn text_without_calls_stays_as_it_is() {
    let texts = [
        "",
        " ",
        "\n\nHi \n",
        "a < b <tool",
        "[1, 2]",
        "[\"a\", \"b\"]",
        "[",
        "{",
        "{\"name\": \"Asha\", \"age\": 7}",
        "Action: go!",
        "<",
        "<|",
        "{}",
        "[]",
        " [x] ",
    ];
    for format in Format::ALL {
        for text in texts {
            let joined = whole(format, text);
            assert_eq!((joined.content.as_str(), joined.calls.len(), joined.malformed.len()), (text, 0, 0), "{format:?} {text:?}");
            let none = Options { tools: Tools::default(), ..options(format) };
            assert_eq!(parse(&none, [text]).content, text, "{format:?}");
        }
    }
    // Without tools, nothing is a call.
    for &(format, text, _) in SAMPLES.iter().filter(|(format, ..)| *format != Format::Harmony) {
        let none = Options { tools: Tools::default(), reasoning: None, ..options(format) };
        assert_eq!(parse(&none, [text]).content, text);
    }
}

#[test]
fn what_is_no_call_stays_in_the_content() {
    let cases: &[(Format, &str)] = &[
        (Format::Hermes, "<tool_call>nothing"),
        (Format::Hermes, "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1"),
        (Format::Hermes, "<tool_call>{\"name\": \"add\", \"arguments\": {a: 1}}</tool_call>"),
        (Format::Hermes, "<tool_call>{\"name\": \"add\", \"arguments\": [1]}</tool_call>"),
        (Format::Hermes, "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>"),
        (Format::Hermes, "<tool_call>{\"arguments\": {}}</tool_call>"),
        (Format::Hermes, "<tool_call>"),
        (Format::Mistral, "[TOOL_CALLS]"),
        (Format::Mistral, "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {\"a\": 01}}]"),
        (Format::MistralArgs, "[TOOL_CALLS]add[ARGS]7"),
        (Format::DeepSeek, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n7\n```"),
        (Format::KimiK2, "<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"),
        (Format::Qwen3Coder, "<tool_call>\n<function=add>\n<parameter=a>\n1"),
        (Format::Qwen3Coder, "<tool_call>\n<func"),
        (Format::SeedOss, "<seed:tool_call>\n<function=add>\n<parameter=a>1"),
        (Format::MinimaxM2, "<minimax:tool_call>\n<invoke name=\"add\">\n<parameter name=\"a\">1</parameter>"),
        (Format::MinimaxM2, "<minimax:tool_call>\n{}"),
        (Format::Glm4, "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1"),
        (Format::Pythonic, "[add(a=b)]"),
        (Format::Pythonic, "[add(a=1"),
        (Format::Harmony, "<|channel|>commentary to=functions.add<|message|>{\"a\": "),
        (Format::Harmony, "<|channel|>comm"),
        (Format::Granite, "<|tool_call|>[{\"name\": \"add\"} {"),
        (Format::Nemotron, "<TOOLCALL>{}</TOOLCALL>"),
    ];
    for &(format, text) in cases {
        let joined = whole(format, text);
        if !text.starts_with("<|tool_call|>[") {
            assert_eq!((joined.content.as_str(), joined.calls().len()), (text, 0), "{format:?}");
            assert_eq!(joined.malformed.len(), 1, "{format:?} {text}");
        }
    }
    // The reader finds its way back.
    let joined = whole(Format::Hermes, "<tool_call>{oops}</tool_call> <tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>");
    assert_eq!((joined.content.as_str(), joined.calls().len()), ("<tool_call>{oops}</tool_call>", 1));
}

#[test]
fn arguments_are_json_whatever_the_model_writes() {
    let call = |format, text: &str| whole(format, text).calls().into_iter().map(|(_, arguments)| arguments).collect::<Vec<_>>();
    // Arguments first, as a string, null, with other keys, with raw line feeds.
    assert_eq!(call(Format::Hermes, "<tool_call>{\"arguments\": {\"a\": [1, {}]}, \"name\": \"add\"}"), [json!({"a": [1, {}]})]);
    assert_eq!(call(Format::Hermes, "<tool_call>{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}"), [json!({"a": 1})]);
    assert_eq!(call(Format::Hermes, "<tool_call>{\"id\": 5, \"name\": \"add\", \"arguments\": null, \"x\": [{}]}"), [json!({})]);
    assert_eq!(
        call(Format::Hermes, "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": \"x\ny</tool_call>\"}}"),
        [json!({"a": "x\ny</tool_call>"})]
    );
    assert_eq!(
        call(Format::Hermes, "<tool_call>{\"name\": \"add\", \"arguments\": {\"n\": {\"name\": \"é😀\"}}}"),
        [json!({"n": {"name": "é😀"}})]
    );
    // Types by the schema.
    let text = "<tool_call><function=get_weather><parameter=city>\n007\n</parameter><parameter=days>\n3\n</parameter><parameter=exact>True</parameter><parameter=tags>['a', \"b\"]</parameter><parameter=other>null</parameter></function></tool_call>";
    assert_eq!(call(Format::Qwen3Coder, text), [json!({"city": "007", "days": 3, "exact": true, "tags": ["a", "b"], "other": null})]);
    let text = "<seed:tool_call><function=get_weather><parameter=city>\nA\n\n</parameter><parameter=days>3</parameter></function></seed:tool_call>";
    assert_eq!(call(Format::SeedOss, text), [json!({"city": "A\n", "days": 3})]);
    // Values of MiniMax M2 have nothing around them.
    let text = "<minimax:tool_call><invoke name=\"get_weather\"><parameter name=\"city\">\n<b>é😀\n</parameter><parameter name=\"tags\">[\"</invoke>\"]</parameter></invoke></minimax:tool_call>";
    assert_eq!(call(Format::MinimaxM2, text), [json!({"city": "\n<b>é😀\n", "tags": ["</invoke>"]})]);
    let text = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>{\"x\": 1}</arg_value><arg_key>days</arg_key><arg_value>many</arg_value></tool_call>";
    assert_eq!(call(Format::Glm4, text), [json!({"city": "{\"x\": 1}", "days": "many"})]);
    assert_eq!(call(Format::Glm4, "<tool_call>now</tool_call>"), [json!({})]);
    // Python, also without keywords.
    let text = "[get_weather(\"Paris\", 3, exact=False), now()]";
    assert_eq!(call(Format::Pythonic, text), [json!({"city": "Paris", "days": 3, "exact": false}), json!({})]);
    assert_eq!(call(Format::Pythonic, "[add(a={'x': (1, None)}, b=')]')]"), [json!({"a": {"x": [1, null]}, "b": ")]"})]);
}

#[test]
fn parts_of_arguments_come_early() {
    let mut parser = Parser::new(options(Format::Hermes));
    assert_eq!(parser.push("Sure.<tool_c"), [Event::Content("Sure.".into())]);
    assert_eq!(parser.push("all>{\"name\": \"add\", \"arguments\": "), []);
    let begun = [Event::CallBegin { index: 0, name: "add".into() }, Event::Arguments { index: 0, json: "{\"a\"".into() }];
    assert_eq!(parser.push("{\"a\""), begun);
    assert_eq!(parser.push(": 1}"), [Event::Arguments { index: 0, json: ": 1}".into() }]);
    assert_eq!(parser.push("}"), [Event::CallEnd { index: 0 }]);
}

#[test]
fn hostile_output_costs_little() {
    let long = 1 << 18;
    for format in Format::ALL {
        let openers: Vec<&str> = format.openers().iter().copied().chain(["[", "{", "<", "", "<think>", "[add("]).collect();
        for opener in openers {
            for filling in [
                "[",
                "{\"a\":",
                " ",
                "<",
                "\"",
                "a",
                "<tool_call>",
                "{\"name\": \"add\", \"arguments\": {\"",
                "\\",
                "(",
                "\n",
                "<|",
                "<|start|>",
                "<｜tool▁call▁begin｜>",
            ] {
                let text = format!("{opener}{}", filling.repeat(long / 2 / filling.len()));
                let start = std::time::Instant::now();
                let whole = parse(&options(format), [text.as_str()]);
                // Some ten milliseconds; what is quadratic takes ten seconds.
                assert!(start.elapsed().as_secs() < 4, "{format:?} {opener} {filling}");
                assert!(whole.content.len() + whole.reasoning.len() <= text.len());
            }
        }
        // Cut into characters, which is the worst case for what looks again at what it holds.
        for filling in
            ["<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": \"", "  ", "<", "<tool_call>add<arg_key>a</arg_key><arg_value>"]
        {
            let text = filling.repeat(long / 4 / filling.len());
            parse(&options(format), characters(&text));
        }
    }
}

#[test]
fn templates_give_their_format_away() {
    for (template, format) in [
        ("<tool_call></tool_call>", Format::Hermes),
        ("<tool_call> <function=x> <parameter=y>", Format::Qwen3Coder),
        ("<tool_call> <seed:tool_call> <function=x> <parameter=y>", Format::SeedOss),
        ("<minimax:tool_call> <invoke name=\"x\"> <parameter name=\"y\">", Format::MinimaxM2),
        ("<tool_call> <arg_key>", Format::Glm4),
        ("List of tools: {% set keep_past_thinking = false %}", Format::Pythonic),
        ("[TOOL_CALLS] [ARGS]", Format::MistralArgs),
        ("Hi {{ messages }}", Format::Plain),
    ] {
        assert_eq!(Format::detect(template), format);
    }
    for format in Format::ALL {
        assert_eq!(Format::from_name(format.name()), Some(format));
    }
    assert_eq!(Format::from_name("hermes "), None);
    assert!(Reasoning::THINK.is_open("<|im_start|>assistant\n<think>\n") && !Reasoning::THINK.is_open("<think></think>"));
    assert_eq!(Reasoning::detect("… split('</think>')"), Some(Reasoning::THINK));
    assert_eq!(Reasoning::detect("<seed:think>").map(|reasoning| reasoning.close), Some("</seed:think>"));
}

fn constraint<'a>(tools: &'a Tools, control: &'a dyn Fn(&str) -> Option<u32>) -> Constraint<'a> {
    let choice = Choice::Auto;
    Constraint {
        tools,
        choice,
        parallel: true,
        form: false,
        budget: false,
        loose: false,
        reasoning: None,
        inside_reasoning: false,
        control,
    }
}

fn grammar(format: Format, choice: Choice<'_>, parallel: bool, control: &dyn Fn(&str) -> Option<u32>) -> Option<String> {
    format.calls(&Constraint { choice, parallel, ..constraint(&tools(), control) })
}

#[test]
fn grammars_name_the_tools_and_the_tokens() {
    for format in Format::ALL {
        let all = grammar(format, Choice::Required, true, &|_| None);
        assert_eq!(all.is_none(), format == Format::Plain);
        let Some(all) = all else { continue };
        let named = grammar(format, Choice::Named("add"), false, &|_| None).unwrap();
        assert!(all.starts_with("%llguidance {}\nstart: "), "{all}");
        assert!(all.contains("get_weather") && all.contains("now") && !named.contains("get_weather") && named.contains("add"));
        assert_eq!(grammar(format, Choice::Named("none"), true, &|_| None), None);
        if format != Format::Harmony {
            assert!(all.contains(")*") && !named.lines().nth(1).unwrap().contains('*'), "{named}");
        }
        for marker in ["<tool_call>", "<|tool_call|>"] {
            assert!(!all.contains(&format!(" {marker}")), "{all}");
        }
    }
    let tokens = grammar(Format::Hermes, Choice::Named("now"), false, &|text| (text == "<tool_call>").then_some(7)).unwrap();
    assert_eq!(
        tokens,
        "%llguidance {}\nstart: tagged\narguments_0: %json {\"type\":\"object\"}\ncall_0: \"{\\\"name\\\": \\\"now\\\", \\\"arguments\\\": \" \
         arguments_0 \"}\"\ncall: call_0\ntagged: <tool_call> \"\\n\" call \"\\n\" \"</tool_call>\"\n"
    );
    let mistral = grammar(Format::MistralArgs, Choice::Named("now"), false, &|text| (text != "[CALL_ID]").then_some(9)).unwrap();
    assert!(mistral.contains("call_0: <[9]> \"now\" <[9]> arguments_0"), "{mistral}");
}

#[test]
fn grammars_allow_reasoning_first() {
    let tools = tools();
    let thought = |inside_reasoning, control: &dyn Fn(&str) -> Option<u32>| {
        let reasoning = Some(Reasoning::THINK);
        let constraint = Constraint { choice: Choice::Required, reasoning, inside_reasoning, ..constraint(&tools, control) };
        Format::Hermes.answer(&constraint).unwrap().unwrap().thought.unwrap()
    };
    let Thought { grammar, open, close, .. } = thought(false, &|_| None);
    let text = grammar.unwrap();
    // Nothing in the reasoning begins a call: it would end the reasoning, and no grammar would hold its arguments.
    assert!(text.contains("start: \"<think>\" thought") && text.contains("thought[lazy]: THOUGHT \"</think>\""), "{text}");
    assert!(text.contains("THOUGHT: /(?s:.*)/ & ~/(?s:.*)<tool_call>(?s:.*)/"), "{text}");
    assert_eq!((open, close), (Some("<think>"), "</think>"));
    let Thought { grammar, open, .. } = thought(true, &|_| Some(1));
    let tokens = grammar.unwrap();
    assert!(tokens.contains("start:  thought") && tokens.contains("thought: THOUGHT </think>"), "{tokens}");
    assert_eq!(open, None);
}

#[test]
fn an_answer_has_a_grammar_only_where_it_needs_one() {
    let (loose, none) = (tools(), Tools::default());
    let strict = Tools::from_json(&[json!({"type": "function", "function": {"name": "now", "strict": true}})]).unwrap();
    assert!(strict.all()[0].strict && Tools::from_json(&[json!({"name": "now", "strict": 1})]).is_err());
    let control = |_: &str| None;
    for format in Format::ALL {
        let free = format.answer(&constraint(&loose, &control));
        if format == Format::Generic {
            // Models were not taught it: a grammar holds every answer.
            assert_eq!(free.unwrap().unwrap().alternatives.len(), 3);
            continue;
        }
        assert_eq!(free, Ok(None));
        let strictly = format.answer(&constraint(&strict, &control));
        let formed = format.answer(&Constraint { form: true, ..constraint(&loose, &control) });
        if format == Format::Plain {
            assert_eq!((&strictly, &formed), (&Err(AnswerError::NoStrictCalls("plain")), &Err(AnswerError::NoStrictCalls("plain"))));
            continue;
        }
        assert_eq!(strictly.unwrap().unwrap().alternatives.len(), if format.bare().is_some() { 2 } else { 1 }, "{format:?}");
        let formed = formed.unwrap().unwrap().alternatives;
        assert!(formed.iter().any(|a| matches!(a, Alternative::Form(_))) && matches!(formed.last(), Some(Alternative::Grammar(_))));
        let alone = format.answer(&Constraint { form: true, ..constraint(&none, &control) }).unwrap().unwrap();
        assert!(alone.alternatives.iter().all(|a| matches!(a, Alternative::Form(_))));
        let limited = format.answer(&Constraint { budget: true, ..constraint(&none, &control) });
        if format != Format::Harmony {
            assert_eq!(limited, Err(AnswerError::NoReasoning));
            let reasoning = Some(Reasoning::THINK);
            let limited = format.answer(&Constraint { budget: true, reasoning, ..constraint(&none, &control) }).unwrap().unwrap();
            assert_eq!((limited.alternatives, limited.thought.unwrap().grammar), (vec![Alternative::Free], None));
        }
        let both = Constraint { form: true, choice: Choice::Required, ..constraint(&loose, &control) };
        assert_eq!(format.answer(&both), Err(AnswerError::CallAndForm));
    }
}

/// Pieces of what the formats are made of, mixed up.
fn soup() -> impl Strategy<Value = String> {
    let samples: Vec<String> = SAMPLES.iter().map(|(_, text, _)| (*text).to_owned()).collect();
    let markers: Vec<String> = Format::ALL.iter().flat_map(|f| f.markers()).map(str::to_owned).collect();
    let small = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "'",
        ",",
        ":",
        " ",
        "\n",
        "name",
        "add",
        "<think>",
        "</think>",
        "1",
        "é",
        "😀",
        "\\",
        "\\u12",
        "true",
        "```json",
        "<",
        "{\"name\": \"add\", \"arguments\": {\"a\": ",
    ]);
    let piece = prop_oneof![
        1 => prop::sample::select(samples),
        3 => prop::sample::select(markers),
        5 => small.prop_map(str::to_owned),
        1 => ".{0,6}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn cuts_do_not_matter(text in soup(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8), inside in any::<bool>()) {
        for format in Format::ALL {
            let options = Options { inside_reasoning: inside, ..options(format) };
            let expected = parse(&options, [text.as_str()]);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).filter(|at| text.is_char_boundary(*at)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            prop_assert_eq!(&expected, &parse(&options, at.windows(2).map(|pair| &text[pair[0]..pair[1]])));
            prop_assert_eq!(&expected, &parse(&options, characters(&text)));
        }
    }

    #[test]
    fn cut_short_samples_are_taken_back(sample in prop::sample::select(SAMPLES.to_vec()), at in any::<prop::sample::Index>()) {
        let (format, text, _) = sample;
        let at = at.index(text.len());
        if text.is_char_boundary(at) {
            parse(&options(format), [&text[..at]]);
        }
    }
}
