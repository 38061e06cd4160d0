//! Rules to the text of a Lark grammar: `R` and `T` with a number are terminals, `r` with a number are rules.

use std::fmt::Write;

use super::{Grammar, Node, Sequence};
use crate::lark;

pub fn emit(grammar: &Grammar, regular: &[bool]) -> String {
    let mut emitter = Emitter { regular, terminals: 0, out: String::new(), extra: String::new() };
    let start = emitter.reference(grammar.root);
    let mut out = format!("start: {start}\n");
    for (index, rule) in grammar.rules.iter().enumerate() {
        let name = emitter.reference(index);
        emitter.out.clear();
        emitter.options(&rule.body, regular[index]);
        let _ = writeln!(out, "{name}: {}", emitter.out);
    }
    out + &emitter.extra
}

fn is_regular(node: &Node, rules: &[bool]) -> bool {
    let mut regular = !node.has_token();
    node.rules(&mut |index, _| regular &= rules[index]);
    regular
}

struct Emitter<'a> {
    regular: &'a [bool],
    /// Terminals for runs of regular parts.
    terminals: usize,
    out: String,
    extra: String,
}

impl Emitter<'_> {
    fn reference(&self, index: usize) -> String {
        format!("{}{index}", if self.regular[index] { 'R' } else { 'r' })
    }

    fn options(&mut self, options: &[Sequence], terminal: bool) {
        for (index, nodes) in options.iter().enumerate() {
            if index > 0 {
                self.out.push_str(" | ");
            }
            self.sequence(nodes, terminal);
        }
    }

    /// Within a rule, runs of regular parts become one terminal each.
    fn sequence(&mut self, nodes: &[Node], terminal: bool) {
        if nodes.is_empty() {
            self.out.push_str("\"\"");
        }
        let regular = self.regular;
        for run in nodes.chunk_by(|a, b| is_regular(a, regular) && is_regular(b, regular)) {
            let named = !terminal && is_regular(&run[0], regular) && !matches!(run, [Node::Rule { .. } | Node::Literal(_)]);
            if named {
                let outer = std::mem::take(&mut self.out);
                for node in run {
                    self.node(node, true);
                }
                let body = std::mem::replace(&mut self.out, outer);
                let _ = writeln!(self.extra, "T{}: {body}", self.terminals);
                let _ = write!(self.out, "T{} ", self.terminals);
                self.terminals += 1;
            } else {
                for node in run {
                    self.node(node, terminal);
                }
            }
        }
    }

    fn node(&mut self, node: &Node, terminal: bool) {
        match node {
            Node::Literal(text) => self.out.push_str(&lark::string(text)),
            Node::Class { negated, ranges } => self.class(*negated, ranges),
            Node::Any => self.out.push_str("/(?s:.)/"),
            Node::Rule { index, .. } => {
                let name = self.reference(*index);
                self.out.push_str(&name);
            }
            Node::Token(name) => self.out.push_str(name),
            Node::Group(options) => self.group(options, terminal),
            Node::Repeat { node, least, most } => {
                match &**node {
                    Node::Group(options) => self.group(options, terminal),
                    node => {
                        self.out.push('(');
                        self.node(node, terminal);
                        self.out.push(')');
                    }
                }
                match (least, most) {
                    (0, None) => self.out.push('*'),
                    (1, None) => self.out.push('+'),
                    (0, Some(1)) => self.out.push('?'),
                    (least, Some(most)) => {
                        let _ = write!(self.out, "{{{least},{most}}}");
                    }
                    (least, None) => {
                        let _ = write!(self.out, "{{{least},}}");
                    }
                }
            }
        }
        self.out.push(' ');
    }

    fn group(&mut self, options: &[Sequence], terminal: bool) {
        self.out.push('(');
        self.options(options, terminal);
        self.out.push(')');
    }

    fn class(&mut self, negated: bool, ranges: &[(char, char)]) {
        self.out.push_str(if negated { "/[^" } else { "/[" });
        for &(first, last) in ranges {
            let _ = write!(self.out, "\\x{{{:x}}}", first as u32);
            if last != first {
                let _ = write!(self.out, "-\\x{{{:x}}}", last as u32);
            }
        }
        self.out.push_str("]/");
    }
}
