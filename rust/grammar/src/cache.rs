//! Compiled grammars that may be asked for again: the least recently used go first.

use std::collections::HashMap;
use std::sync::Arc;

use crate::compiler::Grammar;
use crate::source::Source;

#[derive(Default)]
pub struct Cache {
    entries: HashMap<Source, Entry>,
    bytes: usize,
    clock: u64,
}

struct Entry {
    grammar: Arc<Grammar>,
    bytes: usize,
    used: u64,
}

impl Cache {
    pub fn get(&mut self, source: &Source) -> Option<Arc<Grammar>> {
        self.clock += 1;
        let entry = self.entries.get_mut(source)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.grammar))
    }

    /// Adds a grammar, unless it is larger than `limit` alone, and makes room for it.
    pub fn insert(&mut self, source: Source, grammar: &Arc<Grammar>, limit: usize) {
        let bytes = grammar.bytes() + source.len();
        if bytes > limit || self.entries.contains_key(&source) {
            return;
        }
        while self.bytes + bytes > limit {
            let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(source, _)| source.clone()) else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.bytes;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        self.entries.insert(source, Entry { grammar: Arc::clone(grammar), bytes, used: self.clock });
    }
}
