//! Which variables a template takes from outside: the result of `jinja2.meta.find_undeclared_variables`.
//!
//! Jinja2 resolves names once for each scope, before the scope runs: a name that a scope loads before it stores it, or stores in a
//! branch of an `if` only, comes from outside unless an enclosing scope has it. A scope sees every name of an enclosing scope,
//! also those that are stored later.

use std::collections::{BTreeSet, HashMap, HashSet};

/// What Jinja2 defines for every template.
const GLOBALS: [&str; 6] = ["range", "dict", "lipsum", "cycler", "joiner", "namespace"];

/// What a template does with names, in the order of its source.
#[derive(Debug)]
enum Node {
    Load(String),
    Store(String),
    If(If),
    Scope(Scope),
}

#[derive(Debug, Default)]
struct If {
    body: Vec<Node>,
    /// Conditions and bodies.
    elifs: Vec<(Vec<Node>, Vec<Node>)>,
    otherwise: Vec<Node>,
}

/// A loop, macro or another statement with names of its own.
#[derive(Debug, Default)]
struct Scope {
    parameters: Vec<String>,
    /// Loads before the body.
    before: Vec<String>,
    body: Vec<Node>,
    /// Loads after the body.
    after: Vec<String>,
    /// Names that are parameters where the body loads them.
    implicit: &'static [&'static str],
}

/// A statement that is not closed yet. Its nodes are on the stack of the builder.
#[derive(Debug)]
enum Open {
    /// Without a scope of its own.
    Transparent,
    If(If, Branch),
    For {
        parameters: Vec<String>,
        /// The loads of the filter after the iterable.
        test: Vec<String>,
        /// The nodes of the body, once the `else` is reached.
        body: Option<Vec<Node>>,
    },
    Scope(Scope),
}

#[derive(Debug)]
enum Branch {
    Body,
    Elif(Vec<Node>),
    Else,
}

/// Collects the nodes of a template, statement by statement.
#[derive(Debug)]
pub(super) struct Names {
    open: Vec<Open>,
    /// The nodes of the template and of every open statement.
    nodes: Vec<Vec<Node>>,
}

impl Default for Names {
    fn default() -> Self {
        Names { open: Vec::new(), nodes: vec![Vec::new()] }
    }
}

impl Names {
    fn push(&mut self, node: Node) {
        if let Some(nodes) = self.nodes.last_mut() {
            nodes.push(node);
        }
    }

    pub(super) fn load(&mut self, names: Vec<String>) {
        for name in names {
            self.push(Node::Load(name));
        }
    }

    pub(super) fn store(&mut self, name: &str) {
        self.push(Node::Store(name.to_owned()));
    }

    fn start(&mut self, open: Open) {
        self.open.push(open);
        self.nodes.push(Vec::new());
    }

    /// A statement whose body belongs to the enclosing scope.
    pub(super) fn start_transparent(&mut self) {
        self.start(Open::Transparent);
    }

    /// An `if`, after the loads of its condition.
    pub(super) fn start_if(&mut self) {
        self.start(Open::If(If::default(), Branch::Body));
    }

    /// A `for`, after the loads of its iterable.
    pub(super) fn start_for(&mut self, parameters: Vec<String>, test: Vec<String>) {
        self.start(Open::For { parameters, test, body: None });
    }

    /// A statement with a scope, which loads the names `before` its body and `after` it.
    pub(super) fn start_scope(
        &mut self,
        parameters: Vec<String>,
        before: Vec<String>,
        after: Vec<String>,
        implicit: &'static [&'static str],
    ) {
        self.start(Open::Scope(Scope { parameters, before, after, implicit, body: Vec::new() }));
    }

    /// An `elif` with the loads of its condition, or an `else`.
    pub(super) fn branch(&mut self, condition: Option<Vec<String>>) {
        let Some(nodes) = self.nodes.last_mut().map(std::mem::take) else { return };
        match self.open.last_mut() {
            Some(Open::If(node, branch)) => {
                let next = condition.map_or(Branch::Else, |loads| Branch::Elif(loads.into_iter().map(Node::Load).collect()));
                node.close(std::mem::replace(branch, next), nodes);
            }
            Some(Open::For { body, .. }) => *body = Some(nodes),
            _ => {}
        }
    }

    /// Whether the body of the innermost open statement loads a name before it stores it.
    pub(super) fn body_loads(&self, name: &str) -> bool {
        self.nodes.last().is_some_and(|nodes| loads_first(nodes, name) == Some(true))
    }

    /// The end of a statement.
    pub(super) fn end(&mut self) {
        let (Some(open), Some(nodes)) = (self.open.pop(), self.nodes.pop()) else { return };
        match open {
            Open::Transparent => nodes.into_iter().for_each(|node| self.push(node)),
            Open::If(mut node, branch) => {
                node.close(branch, nodes);
                self.push(Node::If(node));
            }
            Open::For { parameters, test, body } => {
                let (body, otherwise) = match body {
                    Some(body) => (body, nodes),
                    None => (nodes, Vec::new()),
                };
                self.push(Node::Scope(Scope { parameters: parameters.clone(), body, implicit: &["loop"], ..Scope::default() }));
                self.push(Node::Scope(Scope { body: otherwise, ..Scope::default() }));
                self.push(Node::Scope(Scope { parameters, before: test, ..Scope::default() }));
            }
            Open::Scope(mut scope) => {
                scope.body = nodes;
                self.push(Node::Scope(scope));
            }
        }
    }

    /// The names that come from outside, sorted.
    pub(super) fn undeclared(mut self) -> Vec<String> {
        let body = self.nodes.drain(..).flatten().collect();
        let template = Scope { body, implicit: &["self"], ..Scope::default() };
        let mut found = BTreeSet::new();
        analyse(&template, &mut Vec::new(), &mut found);
        found.into_iter().filter(|name| !GLOBALS.contains(name)).map(str::to_owned).collect()
    }
}

impl If {
    /// Takes the nodes of the branch that ends.
    fn close(&mut self, branch: Branch, nodes: Vec<Node>) {
        match branch {
            Branch::Body => self.body = nodes,
            Branch::Elif(condition) => self.elifs.push((condition, nodes)),
            Branch::Else => self.otherwise = nodes,
        }
    }
}

/// Whether nodes load a name before they store it; `None` where they do neither.
fn loads_first(nodes: &[Node], name: &str) -> Option<bool> {
    let sequence = |parts: [&[Node]; 2]| parts.into_iter().find_map(|nodes| loads_first(nodes, name));
    nodes.iter().find_map(|node| match node {
        Node::Load(loaded) => (loaded == name).then_some(true),
        Node::Store(stored) => (stored == name).then_some(false),
        Node::If(node) => loads_first(&node.body, name)
            .or_else(|| node.elifs.iter().find_map(|(condition, body)| sequence([condition, body])))
            .or_else(|| loads_first(&node.otherwise, name)),
        Node::Scope(scope) => {
            let loads = |names: &[String]| names.iter().any(|loaded| loaded == name).then_some(true);
            let parameter = scope.parameters.iter().any(|parameter| parameter == name).then_some(false);
            parameter.or_else(|| loads(&scope.before)).or_else(|| loads_first(&scope.body, name)).or_else(|| loads(&scope.after))
        }
    })
}

/// What a scope, or one branch of it, knows.
#[derive(Default)]
struct Layer<'n> {
    /// Its names, and whether they come from outside.
    names: HashMap<&'n str, bool>,
    stores: HashSet<&'n str>,
}

/// A scope while its nodes are read: layers for the branches that are open, on the layers of the scope itself.
struct Symbols<'s, 'n> {
    outer: &'s [HashMap<&'n str, bool>],
    layers: Vec<Layer<'n>>,
}

impl<'n> Symbols<'_, 'n> {
    fn knows(&self, name: &str) -> bool {
        self.layers.iter().any(|layer| layer.names.contains_key(name))
    }

    fn enclosed(&self, name: &str) -> bool {
        self.outer.iter().any(|names| names.contains_key(name))
    }

    fn define(&mut self, name: &'n str, outside: bool) {
        if let Some(layer) = self.layers.last_mut() {
            layer.names.insert(name, outside);
        }
    }

    fn load(&mut self, name: &'n str) {
        if !self.knows(name) && !self.enclosed(name) {
            self.define(name, true);
        }
    }

    fn store(&mut self, name: &'n str) {
        if let Some(layer) = self.layers.last_mut() {
            layer.stores.insert(name);
        }
        if !self.knows(name) {
            self.define(name, false);
        }
    }

    fn declare(&mut self, name: &'n str) {
        self.define(name, false);
        if let Some(layer) = self.layers.last_mut() {
            layer.stores.insert(name);
        }
    }

    fn read(&mut self, nodes: &'n [Node]) {
        for node in nodes {
            match node {
                Node::Load(name) => self.load(name),
                Node::Store(name) => self.store(name),
                Node::If(node) => {
                    let body = self.branch(|symbols| symbols.read(&node.body));
                    let elifs = self.branch(|symbols| {
                        for (condition, body) in &node.elifs {
                            symbols.read(condition);
                            let body = symbols.branch(|symbols| symbols.read(body));
                            symbols.merge([body, Layer::default(), Layer::default()]);
                        }
                    });
                    let otherwise = self.branch(|symbols| symbols.read(&node.otherwise));
                    self.merge([body, elifs, otherwise]);
                }
                Node::Scope(_) => {}
            }
        }
    }

    fn branch(&mut self, read: impl FnOnce(&mut Self)) -> Layer<'n> {
        self.layers.push(Layer::default());
        read(self);
        self.layers.pop().unwrap_or_default()
    }

    /// Takes over what the branches of an `if` know. What they store may come from outside: none of them may be taken.
    fn merge(&mut self, branches: [Layer<'n>; 3]) {
        let stored = branches.iter().flat_map(|branch| &branch.stores).copied();
        let new: HashSet<&'n str> = stored.filter(|name| !self.layers.iter().any(|layer| layer.stores.contains(name))).collect();
        if let Some(layer) = self.layers.last_mut() {
            for branch in branches {
                layer.names.extend(branch.names);
                layer.stores.extend(branch.stores);
            }
        }
        for name in new {
            let outside = !self.enclosed(name);
            self.define(name, outside);
        }
    }
}

/// Finds the names that a scope, and then those in it, take from outside.
fn analyse<'n>(scope: &'n Scope, outer: &mut Vec<HashMap<&'n str, bool>>, found: &mut BTreeSet<&'n str>) {
    let mut symbols = Symbols { outer, layers: vec![Layer::default()] };
    scope.parameters.iter().for_each(|name| symbols.declare(name));
    scope.implicit.iter().filter(|name| loads_first(&scope.body, name) == Some(true)).for_each(|name| symbols.declare(name));
    scope.before.iter().for_each(|name| symbols.load(name));
    symbols.read(&scope.body);
    scope.after.iter().for_each(|name| symbols.load(name));
    let names = symbols.layers.pop().unwrap_or_default().names;
    found.extend(names.iter().filter(|(_, outside)| **outside).map(|(name, _)| *name));
    outer.push(names);
    inner(&scope.body, outer, found);
    outer.pop();
}

fn inner<'n>(nodes: &'n [Node], outer: &mut Vec<HashMap<&'n str, bool>>, found: &mut BTreeSet<&'n str>) {
    for node in nodes {
        match node {
            Node::Scope(scope) => analyse(scope, outer, found),
            Node::If(node) => {
                inner(&node.body, outer, found);
                node.elifs.iter().for_each(|(_, body)| inner(body, outer, found));
                inner(&node.otherwise, outer, found);
            }
            _ => {}
        }
    }
}
