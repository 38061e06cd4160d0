//! Rules to the text of a Lark grammar: `R` and `T` with a number are terminals, `r` with a number are rules.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::{Grammar, Node, Sequence};
use crate::lark;

/// A part of a rule that is no terminal of its own.
pub enum Item<'a> {
    /// The terminal with this number.
    Terminal(usize),
    Rule(usize),
    Token(&'a str),
    Group(Vec<Vec<Item<'a>>>),
    Repeat {
        item: Box<Item<'a>>,
        least: u32,
        most: Option<u32>,
    },
}

/// What a terminal matches.
#[derive(Clone, Copy)]
pub enum Terminal<'a> {
    Rule(usize),
    Nodes(&'a [Node]),
    Literal(&'a str),
}

/// Which terminals are taken apart.
#[derive(Clone, Default)]
pub struct Splits {
    /// Regular rules that are rules all the same.
    rules: HashSet<usize>,
    /// Runs of nodes by their place in memory.
    runs: HashSet<(usize, usize)>,
    literals: HashSet<String>,
}

impl Splits {
    /// Takes a terminal apart. False if it is in its parts already, or is one character.
    pub fn split(&mut self, terminal: Terminal<'_>) -> bool {
        match terminal {
            Terminal::Rule(index) => self.rules.insert(index),
            Terminal::Nodes([Node::Class { .. } | Node::Any]) => false,
            Terminal::Nodes(nodes) => self.runs.insert(place(nodes)),
            Terminal::Literal(text) => text.chars().nth(1).is_some() && self.literals.insert(text.to_owned()),
        }
    }
}

fn place(nodes: &[Node]) -> (usize, usize) {
    (nodes.as_ptr() as usize, nodes.len())
}

/// The rules that are not terminals, in parts.
pub struct Parts<'a> {
    pub terminals: Vec<Terminal<'a>>,
    /// The options of each rule that is no terminal.
    pub rules: Vec<Option<Vec<Vec<Item<'a>>>>>,
    pub root: Item<'a>,
}

/// Takes the rules apart: runs of regular parts are one terminal each, unless `splits` has them.
pub fn parts<'a>(grammar: &'a Grammar<'_>, regular: &'a [bool], splits: &'a Splits) -> Parts<'a> {
    let mut builder = Builder { regular, splits, terminals: Vec::new(), rules: HashMap::new(), literals: HashMap::new() };
    let is_rule = |index: usize| !regular[index] || splits.rules.contains(&index);
    let rules = grammar.rules.iter().enumerate().map(|(index, rule)| is_rule(index).then(|| builder.options(&rule.body))).collect();
    let root = builder.rule(grammar.root);
    Parts { terminals: builder.terminals, rules, root }
}

struct Builder<'a> {
    regular: &'a [bool],
    splits: &'a Splits,
    terminals: Vec<Terminal<'a>>,
    /// The terminals of rules and literals, which may be used in many places.
    rules: HashMap<usize, usize>,
    literals: HashMap<&'a str, usize>,
}

impl<'a> Builder<'a> {
    fn terminal(&mut self, terminal: Terminal<'a>) -> Item<'a> {
        let next = self.terminals.len();
        let number = match terminal {
            Terminal::Rule(index) => *self.rules.entry(index).or_insert(next),
            Terminal::Literal(text) => *self.literals.entry(text).or_insert(next),
            Terminal::Nodes(_) => next,
        };
        if number == next {
            self.terminals.push(terminal);
        }
        Item::Terminal(number)
    }

    fn rule(&mut self, index: usize) -> Item<'a> {
        if self.regular[index] && !self.splits.rules.contains(&index) { self.terminal(Terminal::Rule(index)) } else { Item::Rule(index) }
    }

    fn options(&mut self, options: &'a [Sequence]) -> Vec<Vec<Item<'a>>> {
        options.iter().map(|nodes| self.sequence(nodes)).collect()
    }

    fn sequence(&mut self, nodes: &'a [Node]) -> Vec<Item<'a>> {
        let regular = self.regular;
        let mut items = Vec::new();
        for run in nodes.chunk_by(|a, b| is_regular(a, regular) && is_regular(b, regular)) {
            let whole = run.len() > 1 && !self.splits.runs.contains(&place(run));
            if whole {
                items.push(self.terminal(Terminal::Nodes(run)));
            } else {
                run.chunks(1).for_each(|node| self.single(node, &mut items));
            }
        }
        items
    }

    /// A slice of one node.
    fn single(&mut self, node: &'a [Node], items: &mut Vec<Item<'a>>) {
        match &node[0] {
            Node::Rule { index, .. } => items.push(self.rule(*index)),
            Node::Token(name) => items.push(Item::Token(name)),
            Node::Literal(text) if self.splits.literals.contains(text) => {
                let ends = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
                ends.for_each(|c| items.push(self.terminal(Terminal::Literal(c))));
            }
            Node::Literal(text) => items.push(self.terminal(Terminal::Literal(text))),
            one if is_regular(one, self.regular) && !self.splits.runs.contains(&place(node)) => {
                items.push(self.terminal(Terminal::Nodes(node)));
            }
            Node::Class { .. } | Node::Any => items.push(self.terminal(Terminal::Nodes(node))),
            Node::Group(options) => items.push(Item::Group(self.options(options))),
            Node::Repeat { node, least, most } => {
                let mut inner = Vec::new();
                self.single(std::slice::from_ref(&**node), &mut inner);
                let item = Box::new(Item::Group(vec![inner]));
                items.push(Item::Repeat { item, least: *least, most: *most });
            }
        }
    }
}

pub fn is_regular(node: &Node, rules: &[bool]) -> bool {
    let mut regular = !node.has_token();
    node.rules(&mut |index, _| regular &= rules[index]);
    regular
}

/// The text of the grammar.
pub fn emit(grammar: &Grammar, regular: &[bool], parts: &Parts) -> String {
    let mut out = "start: ".to_owned();
    let printer = Printer { parts };
    printer.item(&mut out, &parts.root);
    out.truncate(out.trim_end().len());
    out.push('\n');
    for (index, rule) in grammar.rules.iter().enumerate() {
        if let Some(options) = &parts.rules[index] {
            let _ = write!(out, "r{index}: ");
            printer.options(&mut out, options);
            out.push('\n');
        }
        if regular[index] {
            let _ = write!(out, "R{index}: ");
            terminal_options(&mut out, &rule.body);
            out.push('\n');
        }
    }
    for (index, terminal) in parts.terminals.iter().enumerate() {
        if let Terminal::Nodes(nodes) = terminal {
            let _ = write!(out, "T{index}: ");
            for node in *nodes {
                terminal_node(&mut out, node);
            }
            out.push('\n');
        }
    }
    out
}

struct Printer<'a> {
    parts: &'a Parts<'a>,
}

impl Printer<'_> {
    fn options(&self, out: &mut String, options: &[Vec<Item>]) {
        for (index, items) in options.iter().enumerate() {
            out.push_str(if index > 0 { " | " } else { "" });
            if items.is_empty() {
                out.push_str("\"\"");
            }
            for item in items {
                self.item(out, item);
            }
        }
    }

    fn item(&self, out: &mut String, item: &Item) {
        match item {
            Item::Terminal(number) => match self.parts.terminals[*number] {
                Terminal::Rule(index) => named(out, 'R', index),
                Terminal::Nodes(_) => named(out, 'T', *number),
                Terminal::Literal(text) => out.push_str(&lark::string(text)),
            },
            Item::Rule(index) => named(out, 'r', *index),
            Item::Token(name) => out.push_str(name),
            Item::Group(options) => {
                out.push('(');
                self.options(out, options);
                out.push(')');
            }
            Item::Repeat { item, least, most } => {
                self.item(out, item);
                out.truncate(out.trim_end().len());
                times(out, *least, *most);
            }
        }
        out.push(' ');
    }
}

fn named(out: &mut String, kind: char, number: usize) {
    let _ = write!(out, "{kind}{number}");
}

fn times(out: &mut String, least: u32, most: Option<u32>) {
    let _ = match (least, most) {
        (0, None) => write!(out, "*"),
        (1, None) => write!(out, "+"),
        (0, Some(1)) => write!(out, "?"),
        (least, Some(most)) => write!(out, "{{{least},{most}}}"),
        (least, None) => write!(out, "{{{least},}}"),
    };
}

fn terminal_options(out: &mut String, options: &[Sequence]) {
    for (index, nodes) in options.iter().enumerate() {
        out.push_str(if index > 0 { " | " } else { "" });
        if nodes.is_empty() {
            out.push_str("\"\"");
        }
        for node in nodes {
            terminal_node(out, node);
        }
    }
}

fn terminal_node(out: &mut String, node: &Node) {
    match node {
        Node::Literal(text) => out.push_str(&lark::string(text)),
        Node::Class { negated, ranges } => class(out, *negated, ranges),
        Node::Any => out.push_str("/(?s:.)/"),
        Node::Rule { index, .. } => {
            let _ = write!(out, "R{index}");
        }
        Node::Token(name) => out.push_str(name),
        Node::Group(options) => {
            out.push('(');
            terminal_options(out, options);
            out.push(')');
        }
        Node::Repeat { node, least, most } => {
            let is_group = matches!(**node, Node::Group(_));
            out.push_str(if is_group { "" } else { "(" });
            terminal_node(out, node);
            out.truncate(out.trim_end().len());
            out.push_str(if is_group { "" } else { ")" });
            times(out, *least, *most);
        }
    }
    out.push(' ');
}

fn class(out: &mut String, negated: bool, ranges: &[(char, char)]) {
    out.push_str(if negated { "/[^" } else { "/[" });
    for &(first, last) in ranges {
        let _ = write!(out, "\\x{{{:x}}}", first as u32);
        if last != first {
            let _ = write!(out, "-\\x{{{:x}}}", last as u32);
        }
    }
    out.push_str("]/");
}
