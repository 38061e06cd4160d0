//! The characters of a terminal, and which may come after which: its position automaton (Glushkov).
//!
//! Counts of repetitions are left out: a part that may come more than once may come any number of times. The automaton then accepts more
//! than the terminal, so that what is not found here is not there.

use super::chars::{Set, complement, set};
use super::emit::Terminal;
use super::{Grammar, Node, Sequence};

/// Maximum number of characters and classes of one terminal, with those of the rules in it.
const MAX_POSITIONS: usize = 4_000;
/// Maximum number of steps from one position to the next.
const MAX_STEPS: usize = 200_000;

/// Maximum number of rules within each other.
const MAX_DEPTH: usize = 300;

#[derive(Default)]
pub struct Positions {
    /// The characters of each position.
    pub sets: Vec<Set>,
    pub follow: Vec<Vec<usize>>,
    pub first: Vec<usize>,
    /// Whether a position may be the last one.
    pub last: Vec<bool>,
    pub nullable: bool,
    steps: usize,
    depth: usize,
}

/// Where a part begins and ends.
struct Part {
    first: Vec<usize>,
    last: Vec<usize>,
    nullable: bool,
}

/// The positions of a terminal; `None` if there are too many.
pub fn of_terminal(grammar: &Grammar, terminal: Terminal) -> Option<Positions> {
    let mut positions = Positions::default();
    let part = match terminal {
        Terminal::Rule(index) => positions.options(grammar, &grammar.rules[index].body)?,
        Terminal::Nodes(nodes) => positions.sequence(grammar, nodes)?,
        Terminal::Literal(text) => positions.literal(text)?,
    };
    positions.last = vec![false; positions.sets.len()];
    part.last.iter().for_each(|p| positions.last[*p] = true);
    (positions.first, positions.nullable) = (part.first, part.nullable);
    Some(positions)
}

impl Positions {
    fn add(&mut self, set: Set) -> Option<Part> {
        self.sets.push(set);
        self.follow.push(Vec::new());
        let at = vec![self.sets.len() - 1];
        (self.sets.len() <= MAX_POSITIONS).then(|| Part { first: at.clone(), last: at, nullable: false })
    }

    fn connect(&mut self, from: &[usize], to: &[usize]) -> Option<()> {
        self.steps += from.len() * to.len();
        if self.steps > MAX_STEPS {
            return None;
        }
        for &p in from {
            self.follow[p].extend(to);
            self.follow[p].sort_unstable();
            self.follow[p].dedup();
        }
        Some(())
    }

    fn options(&mut self, grammar: &Grammar, options: &[Sequence]) -> Option<Part> {
        let mut all = Part { first: Vec::new(), last: Vec::new(), nullable: false };
        for nodes in options {
            let part = self.sequence(grammar, nodes)?;
            all.first.extend(part.first);
            all.last.extend(part.last);
            all.nullable |= part.nullable;
        }
        Some(all)
    }

    fn sequence(&mut self, grammar: &Grammar, nodes: &[Node]) -> Option<Part> {
        nodes.iter().try_fold(Part { first: Vec::new(), last: Vec::new(), nullable: true }, |before, node| {
            let part = self.node(grammar, node)?;
            self.concat(before, part)
        })
    }

    fn concat(&mut self, mut a: Part, mut b: Part) -> Option<Part> {
        self.connect(&a.last, &b.first)?;
        if a.nullable {
            a.first.append(&mut b.first);
        }
        if b.nullable {
            b.last.append(&mut a.last);
        }
        Some(Part { first: a.first, last: b.last, nullable: a.nullable && b.nullable })
    }

    fn literal(&mut self, text: &str) -> Option<Part> {
        text.chars().try_fold(Part { first: Vec::new(), last: Vec::new(), nullable: true }, |before, c| {
            let part = self.add(vec![(c as u32, c as u32)])?;
            self.concat(before, part)
        })
    }

    fn node(&mut self, grammar: &Grammar, node: &Node) -> Option<Part> {
        match node {
            Node::Literal(text) => self.literal(text),
            Node::Class { negated, ranges } => {
                let listed = set(ranges);
                self.add(if *negated { complement(&listed) } else { listed })
            }
            Node::Any => self.add(complement(&Set::new())),
            Node::Rule { index, .. } => {
                self.depth += 1;
                let part = if self.depth > MAX_DEPTH { None } else { self.options(grammar, &grammar.rules[*index].body) };
                self.depth -= 1;
                part
            }
            Node::Token(_) => Some(Part { first: Vec::new(), last: Vec::new(), nullable: false }),
            Node::Group(options) => self.options(grammar, options),
            Node::Repeat { node, least, most } => {
                let mut part = self.node(grammar, node)?;
                if *most != Some(1) {
                    let (first, last) = (part.first.clone(), part.last.clone());
                    self.connect(&last, &first)?;
                }
                part.nullable |= *least == 0;
                Some(part)
            }
        }
    }
}
