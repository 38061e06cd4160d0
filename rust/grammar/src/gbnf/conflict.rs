//! Terminals whose end a lexer cannot tell.
//!
//! A lexer takes the longest match. That leaves out texts where one terminal ends, what follows it begins with a character, and the same
//! terminal, or a different one that began at the same place, could also continue with that character. Both are then taken apart, down
//! to single characters, which have nothing to continue with.

use std::collections::HashSet;

use super::chars::{Set, intersects, unite};
use super::emit::{Item, Parts, Splits, parts};
use super::positions::{Positions, of_terminal};
use super::{Grammar, error};
use crate::error::GrammarError;

/// Maximum number of pairs of positions that are compared for one grammar.
const MAX_PAIRS: usize = 3_000_000;

/// The splits that leave no terminal whose end is in doubt.
///
/// # Errors
/// The grammar is too large for that to be found out.
pub fn resolve(grammar: &Grammar, regular: &[bool]) -> Result<Splits, GrammarError> {
    let mut splits = Splits::default();
    let mut work = 0;
    loop {
        let mut next = splits.clone();
        let parts = parts(grammar, regular, &splits);
        let mut changed = false;
        for (a, b) in conflicts(grammar, &parts, &mut work)? {
            changed |= next.split(parts.terminals[a]);
            changed |= next.split(parts.terminals[b]);
        }
        if !changed {
            return Ok(splits);
        }
        drop(parts);
        splits = next;
    }
}

/// Pairs of terminals of which the second can continue where the first ends and something else may follow.
fn conflicts(grammar: &Grammar, parts: &Parts, work: &mut usize) -> Result<Vec<(usize, usize)>, GrammarError> {
    let positions: Vec<Positions> =
        parts.terminals.iter().map(|terminal| of_terminal(grammar, *terminal)).collect::<Option<_>>().ok_or_else(|| too_large(grammar))?;
    let follow = Follow::of(parts, &positions, work).ok_or_else(|| too_large(grammar))?;
    let mut found = Vec::new();
    for (a, first) in positions.iter().enumerate() {
        *work += positions.len();
        if *work > MAX_PAIRS {
            return Err(too_large(grammar));
        }
        for (b, second) in positions.iter().enumerate() {
            if !follow.terminals[a].is_empty()
                && continues(first, second, &follow.terminals[a], a == b, work).ok_or_else(|| too_large(grammar))?
            {
                found.push((a, b));
            }
        }
    }
    Ok(found)
}

fn too_large(grammar: &Grammar) -> GrammarError {
    error(grammar.text, 0, "the grammar is too large to find the ends of its terminals: write repeated parts as rules, or use fewer rules")
}

/// Whether, after a word of `first`, `second` can continue with a character of `follow`. `None`: too much work.
fn continues(first: &Positions, second: &Positions, follow: &Set, same: bool, work: &mut usize) -> Option<bool> {
    let overlap = |p: usize, q: usize| intersects(&first.sets[p], &second.sets[q]);
    if same && first.nullable && first.first.iter().any(|p| intersects(&first.sets[*p], follow)) {
        return Some(true);
    }
    let mut pairs: Vec<(usize, usize)> =
        first.first.iter().flat_map(|p| second.first.iter().map(move |q| (*p, *q))).filter(|(p, q)| overlap(*p, *q)).collect();
    *work += first.first.len() * second.first.len();
    let mut seen: HashSet<(usize, usize)> = pairs.iter().copied().collect();
    while let Some((p, q)) = pairs.pop() {
        *work += 1 + first.follow[p].len() * second.follow[q].len();
        if *work > MAX_PAIRS {
            return None;
        }
        if first.last[p] && second.follow[q].iter().any(|next| intersects(&second.sets[*next], follow)) {
            return Some(true);
        }
        for next in first.follow[p].iter().flat_map(|p| second.follow[q].iter().map(move |q| (*p, *q))) {
            if overlap(next.0, next.1) && seen.insert(next) {
                pairs.push(next);
            }
        }
    }
    Some(false)
}

/// The characters that may begin each rule and follow each part.
struct Follow<'a> {
    positions: &'a [Positions],
    firsts: Vec<(Set, bool)>,
    rules: Vec<Set>,
    terminals: Vec<Set>,
    changed: bool,
}

impl<'a> Follow<'a> {
    fn of(parts: &Parts, positions: &'a [Positions], work: &mut usize) -> Option<Self> {
        let count = parts.rules.len();
        let mut follow = Self {
            positions,
            firsts: vec![(Set::new(), false); count],
            rules: vec![Set::new(); count],
            terminals: vec![Set::new(); positions.len()],
            changed: true,
        };
        // What begins a rule comes from rules that are written later, as a rule, and what follows it from earlier ones.
        let mut order: Vec<usize> = (0..count).collect();
        while follow.changed {
            follow.changed = false;
            order.reverse();
            for &index in &order {
                let Some(options) = &parts.rules[index] else { continue };
                *work += options.iter().map(Vec::len).sum::<usize>() + 1;
                let before = follow.rules[index].clone();
                let (set, nullable) = follow.options(options, &before);
                let (first, empty) = &mut follow.firsts[index];
                let mut grown = unite(first, &set);
                grown |= nullable && !*empty;
                *empty |= nullable;
                follow.changed |= grown;
            }
            if *work > MAX_PAIRS {
                return None;
            }
        }
        Some(follow)
    }

    /// The characters that begin the options, and whether one is empty, where `after` follows them.
    fn options(&mut self, options: &[Vec<Item>], after: &Set) -> (Set, bool) {
        let (mut set, mut empty) = (Set::new(), false);
        for items in options {
            let (first, nullable) = self.sequence(items, after);
            unite(&mut set, &first);
            empty |= nullable;
        }
        (set, empty)
    }

    fn sequence(&mut self, items: &[Item], after: &Set) -> (Set, bool) {
        let (mut first, mut empty, mut after) = (Set::new(), true, after.clone());
        for item in items.iter().rev() {
            let (set, nullable) = self.item(item, &after);
            if nullable {
                unite(&mut first, &set);
                unite(&mut after, &set);
            } else {
                first.clone_from(&set);
                after = set;
                empty = false;
            }
        }
        (first, empty)
    }

    fn item(&mut self, item: &Item, after: &Set) -> (Set, bool) {
        match item {
            Item::Terminal(number) => {
                self.changed |= unite(&mut self.terminals[*number], after);
                let positions = &self.positions[*number];
                let mut set = Set::new();
                for p in &positions.first {
                    unite(&mut set, &positions.sets[*p]);
                }
                (set, positions.nullable)
            }
            Item::Rule(index) => {
                self.changed |= unite(&mut self.rules[*index], after);
                self.firsts[*index].clone()
            }
            Item::Token(_) => (Set::new(), false),
            Item::Group(options) => self.options(options, after),
            Item::Repeat { item, least, most } => {
                let mut after = after.clone();
                let (mut set, mut nullable) = self.item(item, &after);
                if *most != Some(1) {
                    unite(&mut after, &set);
                    (set, nullable) = self.item(item, &after);
                }
                (set, nullable || *least == 0)
            }
        }
    }
}
