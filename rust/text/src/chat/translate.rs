//! A Hugging Face template, rewritten into one that the interpreter can run safely.
//!
//! Text, comments and the markers of tags stay as they are, so white space control is the interpreter's. Statements are checked
//! against the dialect; `generation` becomes a block that is always taken.

use super::error::{Limit, TemplateError};
use super::expression::Tokens;
use super::lexer::{Segment, Tag, segments, syntax};
use super::names::Names;

/// Most bytes of a template.
pub const MAX_SOURCE: usize = 1 << 20;
/// Deepest nesting of statements.
const MAX_BLOCKS: usize = 64;
/// Most `elif` branches of one `if`: the interpreter nests them.
const MAX_BRANCHES: usize = 200;

/// A template for the interpreter.
pub(super) struct Translated {
    pub(super) source: String,
    /// The variables that it takes from outside.
    pub(super) variables: Vec<String>,
}

/// Rewrites a template.
pub(super) fn translate(source: &str) -> Result<Translated, TemplateError> {
    if source.len() > MAX_SOURCE {
        return Err(TemplateError::Limit { limit: Limit::SourceSize, line: None });
    }
    // Jinja2 knows one kind of line end.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Output::default();
    let mut blocks = Blocks::default();
    for segment in segments(&source)? {
        match segment {
            Segment::Verbatim(text) => out.push(text),
            Segment::Tag(tag) => {
                let mut tokens = Tokens::new(&tag.tokens, tag.line);
                let body = if tag.is_block() { statement(&mut tokens, &tag, &mut blocks)? } else { tokens.tuple()?.text };
                if !tokens.is_end() {
                    return Err(tokens.unexpected("the end of the tag"));
                }
                blocks.names.load(tokens.take_loads());
                out.tag(&tag, &body, blocks.closed.take());
                if let Some(block) = blocks.open.last_mut().filter(|block| block.name == "macro" && block.header == 0) {
                    block.header = out.chunks.len();
                }
            }
        }
    }
    match blocks.open.pop() {
        Some(block) => Err(syntax(format!("`{}` is not closed", block.name), block.line)),
        None => Ok(Translated { source: out.chunks.concat(), variables: blocks.names.undeclared() }),
    }
}

/// The rewritten template in chunks, so that the header of a macro can be changed at its end.
#[derive(Default)]
struct Output {
    chunks: Vec<String>,
}

impl Output {
    fn push(&mut self, text: &str) {
        self.chunks.push(text.to_owned());
    }

    fn tag(&mut self, tag: &Tag<'_>, body: &str, closed: Option<Block>) {
        let newlines = "\n".repeat(tag.newlines);
        let Some(block) = closed.filter(|block| block.varargs || block.kwargs) else {
            return self.push(&format!("{} {body}{newlines} {}", tag.open, tag.close));
        };
        // The macro becomes one that takes any arguments.
        let more: String =
            [(block.varargs, ",varargs=none"), (block.kwargs, ",kwargs=none")].iter().filter(|(used, _)| *used).map(|(_, m)| *m).collect();
        let more = if block.parameters.is_empty() { more.trim_start_matches(',') } else { &more };
        if let Some(header) = self.chunks.get_mut(block.header - 1)
            && let Some(at) = header.rfind(')')
        {
            header.insert_str(at, more);
        }
        let names: Vec<String> = block.parameters.iter().map(|name| format!(",\"{name}\"")).collect();
        let (name, varargs, kwargs) = (&block.target, block.varargs, block.kwargs);
        let wrap = format!("set {name}=({name})|_op_variadic({varargs},{kwargs}{})", names.concat());
        self.push(&format!("{} {body} %}}{{% {wrap}{newlines} {}", tag.open, tag.close));
    }
}

#[derive(Default)]
struct Block {
    name: &'static str,
    line: usize,
    branches: usize,
    /// Of a macro: its name and parameters, the number of chunks up to its header, and what its body reads.
    target: String,
    parameters: Vec<String>,
    header: usize,
    varargs: bool,
    kwargs: bool,
}

/// The statements that are open.
#[derive(Default)]
struct Blocks {
    open: Vec<Block>,
    names: Names,
    /// The macro that was closed last.
    closed: Option<Block>,
}

impl Blocks {
    fn push(&mut self, name: &'static str, line: usize) -> Result<(), TemplateError> {
        self.open.push(Block { name, line, ..Block::default() });
        if self.open.len() > MAX_BLOCKS { Err(TemplateError::Limit { limit: Limit::Nesting, line: Some(line) }) } else { Ok(()) }
    }

    fn pop(&mut self, name: &str, line: usize) -> Result<(), TemplateError> {
        match self.open.pop() {
            Some(mut block) if block.name == name => {
                if name == "macro" {
                    (block.varargs, block.kwargs) = (self.names.body_loads("varargs"), self.names.body_loads("kwargs"));
                    self.closed = Some(block);
                }
                self.names.end();
                Ok(())
            }
            Some(block) => Err(syntax(format!("`end{name}` while `{}` is open", block.name), line)),
            None => Err(syntax(format!("`end{name}` without `{name}`"), line)),
        }
    }

    fn branch(&mut self, line: usize) -> Result<(), TemplateError> {
        let Some(block) = self.open.last_mut() else { return Err(syntax("a branch outside of `if` and `for`", line)) };
        block.branches += 1;
        if block.branches > MAX_BRANCHES {
            return Err(TemplateError::Limit { limit: Limit::Nesting, line: Some(line) });
        }
        Ok(())
    }
}

/// What a macro has besides its parameters.
const CALLED: [&str; 3] = ["caller", "varargs", "kwargs"];

const BLOCKS: [&str; 8] = ["if", "for", "macro", "call", "set", "with", "filter", "generation"];

fn statement(tokens: &mut Tokens<'_>, tag: &Tag<'_>, blocks: &mut Blocks) -> Result<String, TemplateError> {
    let line = tag.line;
    let word = tokens.name()?;
    if let Some(name) = word.strip_prefix("end")
        && BLOCKS.contains(&name)
    {
        blocks.pop(name, line)?;
        // The name after `endmacro` and its like says nothing.
        if !tokens.is_end() {
            tokens.name()?;
        }
        return Ok(if name == "generation" { "endif".into() } else { word.into() });
    }
    match word {
        "raw" | "endraw" => Ok(word.into()),
        "break" | "continue" => {
            if blocks.open.iter().any(|block| block.name == "for") {
                Ok(word.into())
            } else {
                Err(syntax(format!("`{word}` outside of a loop"), line))
            }
        }
        "generation" => {
            blocks.push("generation", line)?;
            blocks.names.start_transparent();
            Ok("if true".into())
        }
        "else" => {
            blocks.branch(line)?;
            blocks.names.branch(None);
            Ok("else".into())
        }
        "elif" => {
            blocks.branch(line)?;
            let condition = tokens.expression()?.text;
            blocks.names.branch(Some(tokens.take_loads()));
            Ok(format!("elif {condition}"))
        }
        "if" => {
            blocks.push("if", line)?;
            let condition = tokens.expression()?.text;
            blocks.names.load(tokens.take_loads());
            blocks.names.start_if();
            Ok(format!("if {condition}"))
        }
        "for" => {
            blocks.push("for", line)?;
            for_loop(tokens, &mut blocks.names)
        }
        "set" => set(tokens, blocks, line),
        "macro" => {
            blocks.push("macro", line)?;
            let name = tokens.name()?;
            let parameters = parameters(tokens)?;
            blocks.names.store(name);
            if let Some(block) = blocks.open.last_mut() {
                (block.target, block.parameters) = (name.to_owned(), parameters.names.clone());
            }
            blocks.names.start_scope(parameters.names, tokens.take_loads(), Vec::new(), &CALLED);
            Ok(format!("macro {name}{}", parameters.text))
        }
        "call" => {
            blocks.push("call", line)?;
            let parameters = if tokens.peek_op("(") { parameters(tokens)? } else { Parameters::default() };
            let defaults = tokens.take_loads();
            let call = tokens.expression()?.text;
            blocks.names.load(tokens.take_loads());
            blocks.names.start_scope(parameters.names, defaults, Vec::new(), &CALLED);
            Ok(format!("call{} {call}", parameters.text))
        }
        "with" => {
            blocks.push("with", line)?;
            with(tokens, &mut blocks.names)
        }
        "filter" => {
            blocks.push("filter", line)?;
            let chain = filter_chain(tokens)?;
            let loads = tokens.take_loads();
            blocks.names.load(loads.clone());
            blocks.names.start_scope(Vec::new(), Vec::new(), loads, &[]);
            Ok(format!("filter {chain}"))
        }
        _ => Err(syntax(format!("unknown statement `{word}`"), line)),
    }
}

/// One name, or several with or without brackets.
fn targets(tokens: &mut Tokens<'_>) -> Result<Vec<String>, TemplateError> {
    let brackets = tokens.eat_op("(");
    let mut names = vec![tokens.name()?.to_owned()];
    while tokens.eat_op(",") {
        if tokens.peek_name("in") || tokens.peek_op("=") || tokens.peek_op(")") {
            break;
        }
        names.push(tokens.name()?.to_owned());
        tokens.count(names.len())?;
    }
    if brackets {
        tokens.expect_op(")")?;
    }
    Ok(names)
}

fn for_loop(tokens: &mut Tokens<'_>, names: &mut Names) -> Result<String, TemplateError> {
    let parameters = targets(tokens)?;
    if !tokens.eat_name("in") {
        return Err(tokens.unexpected("`in`"));
    }
    let mut out = format!("for {} in ({})|_op_iter", parameters.join(","), tokens.iterable()?);
    names.load(tokens.take_loads());
    if tokens.eat_name("if") {
        out.push_str(" if ");
        out.push_str(&tokens.expression()?.text);
    }
    if tokens.eat_name("recursive") {
        out.push_str(" recursive");
    }
    names.start_for(parameters, tokens.take_loads());
    Ok(out)
}

fn set(tokens: &mut Tokens<'_>, blocks: &mut Blocks, line: usize) -> Result<String, TemplateError> {
    let names = targets(tokens)?;
    let mut target = names.join(",");
    let attribute = tokens.eat_op(".");
    if attribute {
        target = format!("{target}.{}", tokens.name()?);
    }
    let inline = tokens.eat_op("=");
    let body = if inline {
        let value = tokens.tuple()?.text;
        if attribute { format!("set {target}=({value})|_op_store") } else { format!("set {target}=({value})") }
    } else {
        blocks.push("set", line)?;
        let filters = if tokens.eat_op("|") { format!("|{}", filter_chain(tokens)?) } else { String::new() };
        format!("set {target}{filters}")
    };
    blocks.names.load(tokens.take_loads());
    if attribute {
        blocks.names.load(names);
    } else {
        for name in &names {
            blocks.names.store(name);
        }
    }
    if !inline {
        blocks.names.start_scope(Vec::new(), Vec::new(), Vec::new(), &[]);
    }
    Ok(body)
}

fn with(tokens: &mut Tokens<'_>, names: &mut Names) -> Result<String, TemplateError> {
    let (mut parameters, mut pairs) = (Vec::new(), Vec::new());
    while !tokens.is_end() {
        let name = tokens.name()?;
        tokens.expect_op("=")?;
        pairs.push(format!("{name}={}", tokens.expression()?.text));
        parameters.push(name.to_owned());
        if !tokens.eat_op(",") {
            break;
        }
    }
    names.load(tokens.take_loads());
    names.start_scope(parameters, Vec::new(), Vec::new(), &[]);
    Ok(format!("with {}", pairs.join(",")))
}

/// Filters with `|` between them and no subject.
fn filter_chain(tokens: &mut Tokens<'_>) -> Result<String, TemplateError> {
    const SUBJECT: &str = "x|";
    let mut chain = tokens.bare_filter()?;
    while tokens.eat_op("|") {
        chain = tokens.filter(&chain)?;
    }
    Ok(chain.text.strip_prefix(SUBJECT).unwrap_or(&chain.text).to_owned())
}

/// The parameters of a macro or call block.
#[derive(Default)]
struct Parameters {
    names: Vec<String>,
    /// With their defaults and brackets.
    text: String,
}

fn parameters(tokens: &mut Tokens<'_>) -> Result<Parameters, TemplateError> {
    tokens.expect_op("(")?;
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    while !tokens.eat_op(")") {
        let name = tokens.name()?;
        names.push(name.to_owned());
        texts.push(if tokens.eat_op("=") { format!("{name}={}", tokens.expression()?.text) } else { name.to_owned() });
        tokens.count(names.len())?;
        if !tokens.peek_op(")") {
            tokens.expect_op(",")?;
        }
    }
    Ok(Parameters { names, text: format!("({})", texts.join(",")) })
}
