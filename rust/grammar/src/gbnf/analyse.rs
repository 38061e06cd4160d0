//! Which rules are regular, and whether any calls itself before it reads anything.

use super::{Grammar, Node, Sequence, error};
use crate::error::GrammarError;

/// Whether each rule is regular: it has no special token and leads to no recursion.
///
/// # Errors
/// Left recursion, which no rule may have.
pub fn check(grammar: &Grammar) -> Result<Vec<bool>, GrammarError> {
    let empty = nullable(grammar);
    refuse_left_recursion(grammar, &empty)?;
    Ok(regular(grammar))
}

/// Whether each rule matches the empty text.
fn nullable(grammar: &Grammar) -> Vec<bool> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); grammar.rules.len()];
    for (user, rule) in grammar.rules.iter().enumerate() {
        rule.body.iter().flatten().for_each(|node| node.rules(&mut |index, _| users[index].push(user)));
    }
    let mut empty = vec![false; grammar.rules.len()];
    let mut changed: Vec<usize> = (0..grammar.rules.len()).collect();
    while let Some(rule) = changed.pop() {
        if !empty[rule] && any_empty(&grammar.rules[rule].body, &empty) {
            empty[rule] = true;
            changed.extend_from_slice(&users[rule]);
        }
    }
    empty
}

fn any_empty(options: &[Sequence], empty: &[bool]) -> bool {
    options.iter().any(|nodes| nodes.iter().all(|node| is_empty(node, empty)))
}

fn is_empty(node: &Node, empty: &[bool]) -> bool {
    match node {
        Node::Literal(text) => text.is_empty(),
        Node::Class { .. } | Node::Any | Node::Token(_) => false,
        Node::Rule { index, .. } => empty[*index],
        Node::Group(options) => any_empty(options, empty),
        Node::Repeat { node, least, .. } => *least == 0 || is_empty(node, empty),
    }
}

/// Calls `visit` with the rules that can come first.
fn firsts(options: &[Sequence], empty: &[bool], visit: &mut dyn FnMut(usize, usize)) {
    for nodes in options {
        for node in nodes {
            firsts_of(node, empty, visit);
            if !is_empty(node, empty) {
                break;
            }
        }
    }
}

fn firsts_of(node: &Node, empty: &[bool], visit: &mut dyn FnMut(usize, usize)) {
    match node {
        Node::Rule { index, at } => visit(*index, *at),
        Node::Group(options) => firsts(options, empty, visit),
        Node::Repeat { node, .. } => firsts_of(node, empty, visit),
        Node::Literal(_) | Node::Class { .. } | Node::Any | Node::Token(_) => {}
    }
}

fn refuse_left_recursion(grammar: &Grammar, empty: &[bool]) -> Result<(), GrammarError> {
    let edges = |rule: usize| {
        let mut edges = Vec::new();
        firsts(&grammar.rules[rule].body, empty, &mut |index, at| edges.push((index, at)));
        edges
    };
    match find_cycle(grammar.rules.len(), edges) {
        Some((rule, at)) => {
            Err(error(grammar.text, at, format!("left recursion: the rule {:?} begins with itself", grammar.rules[rule].name)))
        }
        None => Ok(()),
    }
}

/// A depth-first search without recursion. The first edge found that closes a cycle: where it leads, and its place.
fn find_cycle(count: usize, edges: impl Fn(usize) -> Vec<(usize, usize)>) -> Option<(usize, usize)> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; count];
    for start in 0..count {
        if states[start] != State::New {
            continue;
        }
        let mut path = vec![(start, edges(start))];
        states[start] = State::Open;
        while let Some((node, left)) = path.last_mut() {
            let Some((next, at)) = left.pop() else {
                states[*node] = State::Done;
                path.pop();
                continue;
            };
            match states[next] {
                State::Open => return Some((next, at)),
                State::New => {
                    states[next] = State::Open;
                    path.push((next, edges(next)));
                }
                State::Done => {}
            }
        }
    }
    None
}

/// Rules from which, by taking away rules whose own rules are all taken, nothing recursive is left.
fn regular(grammar: &Grammar) -> Vec<bool> {
    let count = grammar.rules.len();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut open = vec![0usize; count];
    for (user, rule) in grammar.rules.iter().enumerate() {
        rule.body.iter().flatten().for_each(|node| {
            node.rules(&mut |index, _| {
                users[index].push(user);
                open[user] += 1;
            });
        });
    }
    let has_token: Vec<bool> = grammar.rules.iter().map(|rule| rule.body.iter().flatten().any(Node::has_token)).collect();
    let mut regular = vec![false; count];
    let mut ready: Vec<usize> = (0..count).filter(|&rule| open[rule] == 0 && !has_token[rule]).collect();
    while let Some(rule) = ready.pop() {
        regular[rule] = true;
        for &user in &users[rule] {
            open[user] -= 1;
            if open[user] == 0 && !has_token[user] {
                ready.push(user);
            }
        }
    }
    regular
}
