//! Real templates against the reference implementation. The templates belong to their authors and are not shipped:
//! the test reads `../shared/templates` beside the repository, or `$FASTLLM_SHARED/templates`, and says so where it is missing.

use std::fs;
use std::path::{Path, PathBuf};

use fastllm_text::chat::{ChatTemplate, DateTime, RenderInput, TemplateError};
use serde_json::Value;

fn templates() -> Option<PathBuf> {
    let shared =
        std::env::var_os("FASTLLM_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    Some(shared.join("templates")).filter(|path| path.join("golden.json").is_file())
}

fn render(source: &str, entry: &Value) -> Result<String, TemplateError> {
    let date: Vec<i32> = entry["date"].as_str().unwrap().split('-').map(|part| part.parse().unwrap()).collect();
    let now = DateTime { year: date[0], month: date[1] as u8, day: date[2] as u8, hour: 10, minute: 30, second: 0, microsecond: 0 };
    ChatTemplate::new(source, entry["bos_token"].as_str(), entry["eos_token"].as_str())?.render(&RenderInput {
        messages: &entry["messages"],
        tools: Some(&entry["tools"]).filter(|tools| !tools.is_null()),
        add_generation_prompt: entry["add_generation_prompt"].as_bool().unwrap(),
        now: Some(now),
        variables: entry["kwargs"].as_object().unwrap(),
    })
}

/// What is wrong with the result, if anything.
fn difference(entry: &Value, result: &Result<String, TemplateError>) -> Option<String> {
    let lenient = entry["lenient_output"].as_str();
    match (result, entry["output"].as_str()) {
        (Ok(text), Some(wanted)) if text == wanted => None,
        (Ok(text), _) if lenient == Some(text) => None,
        (Ok(text), wanted) => Some(format!("got {text:?}\nnot {wanted:?} / {:?}", entry["error"])),
        (Err(error), Some(_)) => Some(format!("failed: {error:?}")),
        (Err(error), None) => {
            let raised = entry["error"]["type"] == "raise_exception";
            match error {
                TemplateError::Raised { message, .. } if raised => (entry["error"]["message"] != *message).then(|| message.clone()),
                TemplateError::Evaluation { .. } if !raised => None,
                _ => Some(format!("failed in another way: {error:?}")),
            }
        }
    }
}

#[test]
fn real_templates_render_as_in_the_reference() {
    let Some(folder) = templates() else {
        println!("skipped: no ../shared/templates/golden.json and no FASTLLM_SHARED");
        return;
    };
    let golden: Vec<Value> = serde_json::from_str(&fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for entry in &golden {
        let name = entry["template"].as_str().unwrap();
        let source = fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        if let Some(difference) = difference(entry, &render(&source, entry)) {
            wrong.push(format!("{name} / {}: {difference}", entry["case"]));
        }
    }
    println!("{} of {} renders agree", golden.len() - wrong.len(), golden.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
