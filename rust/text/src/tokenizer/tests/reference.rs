//! Ids made by the original tokenizers of the models.

use std::path::Path;

use serde_json::Value;

use super::{PLAIN, open, published, shipped};

fn cases(folder: &Path) -> Vec<(String, Vec<u32>)> {
    let text = std::fs::read_to_string(folder.join("cases.json")).expect("cases.json");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("a list of cases");
    let ids = |case: &Value| case["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect();
    cases.iter().map(|case| (case["text"].as_str().expect("text").to_owned(), ids(case))).collect()
}

/// Checks every vocabulary of a folder and returns how many cases there were.
fn check(folder: &Path) -> usize {
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let vocabulary = entry.expect("an entry").path();
        if !vocabulary.is_dir() {
            continue;
        }
        let tokenizer = open(&vocabulary);
        let name = vocabulary.file_name().expect("a name").to_string_lossy().into_owned();
        for (text, ids) in cases(&vocabulary) {
            count += 1;
            let found = tokenizer.encode(&text, PLAIN);
            if found.as_ref() != Ok(&ids) {
                wrong.push(format!("{name} {text:?}\n  expected {ids:?}\n  found    {found:?}"));
            }
            // Text that starts with a space and is encoded without one would lose it; no case here does.
            let decoded = tokenizer.decode(&ids, false).expect("ids of the vocabulary");
            if decoded != text {
                wrong.push(format!("{name} {text:?} decoded as {decoded:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    count
}

#[test]
fn cases_of_the_shipped_vocabularies() {
    assert_eq!(check(&shipped()), 180);
}

#[test]
fn cases_of_published_vocabularies() {
    if let Some(folder) = published() {
        let count = check(&folder);
        println!("{count} cases");
        assert!(count > 600, "only {count} cases");
    }
}
