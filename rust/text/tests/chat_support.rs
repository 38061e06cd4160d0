//! What templates write when they are given it.

use std::fs;
use std::path::{Path, PathBuf};

use fastllm_text::chat::{ChatTemplate, Support};

fn support(source: &str) -> Support {
    ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap().support()
}

#[test]
fn a_template_supports_what_it_writes() {
    let all = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}\
               {{ c.function.arguments|tojson }}{% endfor %}\n{% endfor %}{{ tools|tojson }}";
    assert_eq!(support(all), Support { system: true, tools: true, calls: true, results: true });
    let users = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}";
    assert_eq!(support(users), Support::default());
    let refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}";
    assert_eq!(support(refuses), Support::default());
    let needs_tools = "{% for t in tools %}{{ t.function.name }}{% else %}{{ 1 / 0 }}{% endfor %}{{ messages[0].content }}";
    assert_eq!(support(needs_tools), Support { system: true, tools: true, ..Support::default() });
    let needs_text =
        "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name + c.function.arguments }}{% endfor %}{% endfor %}";
    assert_eq!(support(needs_text), Support { calls: true, ..Support::default() });
}

#[test]
fn real_templates() {
    let shared =
        std::env::var_os("FASTLLM_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = shared.join("templates");
    if !folder.is_dir() {
        println!("skipped: {} is missing", folder.display());
        return;
    }
    let all = Support { system: true, tools: true, calls: true, results: true };
    let known = [
        ("Qwen-Qwen3-0.6B", all),
        ("meta-llama-Llama-3.1-8B-Instruct", all),
        ("openai-gpt-oss-120b", all),
        ("CohereForAI-c4ai-command-r-plus-tool_use", Support { calls: true, ..all }),
        ("google-gemma-2-2b-it", Support::default()),
        ("classic-phi-4", Support { system: true, ..Support::default() }),
    ];
    for (name, expected) in known {
        let source = fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        assert_eq!(support(&source), expected, "{name}");
    }
}
