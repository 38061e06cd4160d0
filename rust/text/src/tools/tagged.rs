//! Calls whose arguments are bare texts between tags, read one after the other.

use super::cursor::{Cursor, Next};
use super::sink::Sink;
use super::{Tools, json, typed};

/// The arguments of a call, given on one by one.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    any: bool,
    /// Bytes of the value that were searched for its end.
    searched: usize,
}

impl Arguments {
    /// Reads a value up to and over `close`; `None` where it has not come yet.
    pub fn value(&mut self, input: &mut Cursor, close: &str) -> Option<String> {
        match input.next_from(self.searched, &[close]) {
            Next::At(at, _) => {
                let value = input.take(at).to_owned();
                input.take(close.len());
                self.searched = 0;
                Some(value)
            }
            Next::Not(at) => {
                self.searched = at;
                None
            }
        }
    }

    /// Gives on an argument.
    pub fn push(&mut self, tools: &Tools, tool: &str, key: &str, value: &str, out: &mut Sink) {
        let value = typed::value(value, typed::schema(tools.find(tool), key));
        out.arguments(&format!("{}{}: {value}", if self.any { ", " } else { "{" }, json::quoted(key)));
        self.any = true;
    }

    /// Ends the call.
    pub fn end(&self, out: &mut Sink) {
        out.arguments(if self.any { "}" } else { "{}" });
        out.end();
    }
}
