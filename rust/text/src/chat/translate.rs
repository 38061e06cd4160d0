//! A Hugging Face template, rewritten into one that the interpreter can run safely.
//!
//! Text, comments and the markers of tags stay as they are, so white space control is the interpreter's. Statements are checked
//! against the dialect; `generation` becomes a block that is always taken.

use super::error::{Limit, TemplateError};
use super::expression::Tokens;
use super::lexer::{Segment, Tag, segments, syntax};

/// Most bytes of a template.
const MAX_SOURCE: usize = 1 << 20;
/// Deepest nesting of statements.
const MAX_BLOCKS: usize = 64;
/// Most `elif` branches of one `if`: the interpreter nests them.
const MAX_BRANCHES: usize = 200;

/// Rewrites a template.
pub(super) fn translate(source: &str) -> Result<String, TemplateError> {
    if source.len() > MAX_SOURCE {
        return Err(TemplateError::Limit { limit: Limit::SourceSize, line: None });
    }
    // Jinja2 knows one kind of line end.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() * 2);
    let mut blocks = Blocks::default();
    for segment in segments(&source)? {
        match segment {
            Segment::Verbatim(text) => out.push_str(text),
            Segment::Tag(tag) => {
                let mut tokens = Tokens::new(&tag.tokens, tag.line);
                let body = if tag.is_block() { statement(&mut tokens, &tag, &mut blocks)? } else { tokens.tuple()?.text };
                if !tokens.is_end() {
                    return Err(tokens.unexpected("the end of the tag"));
                }
                out.push_str(tag.open);
                out.push(' ');
                out.push_str(&body);
                out.extend(std::iter::repeat_n('\n', tag.newlines));
                out.push(' ');
                out.push_str(tag.close);
            }
        }
    }
    match blocks.open.pop() {
        Some(block) => Err(syntax(format!("`{}` is not closed", block.name), block.line)),
        None => Ok(out),
    }
}

struct Block {
    name: &'static str,
    line: usize,
    branches: usize,
}

/// The statements that are open.
#[derive(Default)]
struct Blocks {
    open: Vec<Block>,
}

impl Blocks {
    fn push(&mut self, name: &'static str, line: usize) -> Result<(), TemplateError> {
        self.open.push(Block { name, line, branches: 0 });
        if self.open.len() > MAX_BLOCKS { Err(TemplateError::Limit { limit: Limit::Nesting, line: Some(line) }) } else { Ok(()) }
    }

    fn pop(&mut self, name: &str, line: usize) -> Result<(), TemplateError> {
        match self.open.pop() {
            Some(block) if block.name == name => Ok(()),
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
            Ok("if true".into())
        }
        "else" => blocks.branch(line).map(|()| "else".into()),
        "elif" => {
            blocks.branch(line)?;
            Ok(format!("elif {}", tokens.expression()?.text))
        }
        "if" => {
            blocks.push("if", line)?;
            Ok(format!("if {}", tokens.expression()?.text))
        }
        "for" => {
            blocks.push("for", line)?;
            for_loop(tokens)
        }
        "set" => set(tokens, blocks, line),
        "macro" => {
            blocks.push("macro", line)?;
            let name = tokens.name()?;
            Ok(format!("macro {name}{}", parameters(tokens)?))
        }
        "call" => {
            blocks.push("call", line)?;
            let parameters = if tokens.peek_op("(") { parameters(tokens)? } else { String::new() };
            Ok(format!("call{parameters} {}", tokens.expression()?.text))
        }
        "with" => {
            blocks.push("with", line)?;
            let mut pairs = Vec::new();
            while !tokens.is_end() {
                let name = tokens.name()?;
                tokens.expect_op("=")?;
                pairs.push(format!("{name}={}", tokens.expression()?.text));
                if !tokens.eat_op(",") {
                    break;
                }
            }
            Ok(format!("with {}", pairs.join(",")))
        }
        "filter" => {
            blocks.push("filter", line)?;
            Ok(format!("filter {}", filter_chain(tokens)?))
        }
        _ => Err(syntax(format!("unknown statement `{word}`"), line)),
    }
}

/// One name, or several with or without brackets.
fn targets(tokens: &mut Tokens<'_>) -> Result<String, TemplateError> {
    let brackets = tokens.eat_op("(");
    let mut names = vec![tokens.name()?];
    while tokens.eat_op(",") {
        if tokens.peek_name("in") || tokens.peek_op("=") || tokens.peek_op(")") {
            break;
        }
        names.push(tokens.name()?);
        tokens.count(names.len())?;
    }
    if brackets {
        tokens.expect_op(")")?;
    }
    Ok(names.join(","))
}

fn for_loop(tokens: &mut Tokens<'_>) -> Result<String, TemplateError> {
    let names = targets(tokens)?;
    if !tokens.eat_name("in") {
        return Err(tokens.unexpected("`in`"));
    }
    let mut out = format!("for {names} in ({})|_op_iter", tokens.iterable()?);
    if tokens.eat_name("if") {
        out.push_str(" if ");
        out.push_str(&tokens.expression()?.text);
    }
    if tokens.eat_name("recursive") {
        out.push_str(" recursive");
    }
    Ok(out)
}

fn set(tokens: &mut Tokens<'_>, blocks: &mut Blocks, line: usize) -> Result<String, TemplateError> {
    let mut target = targets(tokens)?;
    let attribute = tokens.eat_op(".");
    if attribute {
        target = format!("{target}.{}", tokens.name()?);
    }
    if tokens.eat_op("=") {
        let value = tokens.tuple()?.text;
        return Ok(if attribute { format!("set {target}=({value})|_op_store") } else { format!("set {target}=({value})") });
    }
    blocks.push("set", line)?;
    let filters = if tokens.eat_op("|") { format!("|{}", filter_chain(tokens)?) } else { String::new() };
    Ok(format!("set {target}{filters}"))
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

/// The parameters of a macro or call block, with brackets.
fn parameters(tokens: &mut Tokens<'_>) -> Result<String, TemplateError> {
    tokens.expect_op("(")?;
    let mut names = Vec::new();
    while !tokens.eat_op(")") {
        let name = tokens.name()?;
        names.push(if tokens.eat_op("=") { format!("{name}={}", tokens.expression()?.text) } else { name.to_owned() });
        tokens.count(names.len())?;
        if !tokens.peek_op(")") {
            tokens.expect_op(",")?;
        }
    }
    Ok(format!("({})", names.join(",")))
}
