//! Expressions, rewritten so that every operator, literal, subscript, test and filter is a call of ours.
//!
//! The interpreter keeps attribute access, calls, `and`/`or`/`not` and the conditional; none of these makes or walks a value.
//! The grammar and its precedences are Jinja2's.

use super::error::{Limit, TemplateError};
use super::lexer::{Token, syntax};

/// Highest syntax tree that is handed to the interpreter, whose compiler recurses over it.
const MAX_HEIGHT: usize = 400;
/// Deepest nesting of brackets.
const MAX_NESTING: usize = 48;
/// Most arguments of a call or elements of a literal.
const MAX_ARGUMENTS: usize = 4096;

/// A rewritten expression, which a filter can follow as it is. A filtered one needs brackets before `.` and `(`.
pub(super) struct Expr {
    pub(super) text: String,
    filtered: bool,
    height: usize,
    /// Bytes of the text before the `.` of the attribute with which it ends, if it ends with one.
    attribute_at: Option<usize>,
}

impl Expr {
    fn atom(text: impl Into<String>, height: usize) -> Expr {
        Expr { text: text.into(), filtered: false, height, attribute_at: None }
    }

    fn filtered(text: String, height: usize) -> Expr {
        Expr { text, filtered: true, height, attribute_at: None }
    }

    fn into_atom(self) -> Expr {
        if self.filtered { Expr::atom(format!("({})", self.text), self.height) } else { self }
    }
}

/// A cursor over the tokens of one tag.
pub(super) struct Tokens<'t> {
    all: &'t [Token],
    at: usize,
    line: usize,
    nesting: usize,
    /// The variables that were read since they were last taken.
    loads: Vec<String>,
}

type Result<T> = std::result::Result<T, TemplateError>;

impl<'t> Tokens<'t> {
    pub(super) fn new(tokens: &'t [Token], line: usize) -> Self {
        Tokens { all: tokens, at: 0, line, nesting: 0, loads: Vec::new() }
    }

    /// The variables that were read since the last call.
    pub(super) fn take_loads(&mut self) -> Vec<String> {
        std::mem::take(&mut self.loads)
    }

    pub(super) fn is_end(&self) -> bool {
        self.at >= self.all.len()
    }

    fn peek(&self) -> Option<&'t Token> {
        self.all.get(self.at)
    }

    pub(super) fn peek_op(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Token::Op(o)) if *o == op)
    }

    pub(super) fn peek_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(n)) if n == name)
    }

    pub(super) fn eat_op(&mut self, op: &str) -> bool {
        let found = self.peek_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_name(&mut self, name: &str) -> bool {
        let found = self.peek_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.eat_op(op) { Ok(()) } else { Err(self.unexpected(&format!("`{op}`"))) }
    }

    pub(super) fn name(&mut self) -> Result<&'t str> {
        match self.peek() {
            Some(Token::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> TemplateError {
        let found = match self.peek() {
            None => "the end of the tag".to_owned(),
            Some(Token::Name(text) | Token::Int(text) | Token::Float(text)) => format!("`{text}`"),
            Some(Token::Str(_)) => "a string".to_owned(),
            Some(Token::Op(op)) => format!("`{op}`"),
        };
        syntax(format!("expected {wanted}, found {found}"), self.line)
    }

    fn limit(&self, limit: Limit) -> TemplateError {
        TemplateError::Limit { limit, line: Some(self.line) }
    }

    fn checked(&self, expr: Expr) -> Result<Expr> {
        if expr.height > MAX_HEIGHT { Err(self.limit(Limit::Nesting)) } else { Ok(expr) }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.limit(Limit::Nesting));
        }
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    /// Applies one of our filters.
    fn call(&self, subject: Expr, name: &str, arguments: &[Expr]) -> Result<Expr> {
        let height = 1 + arguments.iter().map(|a| a.height).fold(subject.height, usize::max);
        let mut text = subject.text;
        text.push('|');
        text.push_str(name);
        if !arguments.is_empty() {
            text.push('(');
            for (i, argument) in arguments.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                text.push_str(&argument.text);
            }
            text.push(')');
        }
        self.checked(Expr::filtered(text, height))
    }

    /// An expression, or several with commas between them: a tuple.
    pub(super) fn tuple(&mut self) -> Result<Expr> {
        let first = self.expression()?;
        if !self.peek_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.eat_op(",") {
            if self.is_end() || self.peek_op(")") || self.peek_op("=") || self.peek_name("if") {
                break;
            }
            items.push(self.expression()?);
            self.count(items.len())?;
        }
        self.call(Expr::atom("0", 1), "_op_tuple", &items)
    }

    /// Refuses more than the interpreter can take in one place.
    pub(super) fn count(&self, n: usize) -> Result<()> {
        if n > MAX_ARGUMENTS { Err(self.limit(Limit::Arguments)) } else { Ok(()) }
    }

    /// An expression with the conditional `a if b else c`.
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.nested(|tokens| {
            let mut value = tokens.or()?;
            while tokens.eat_name("if") {
                let condition = tokens.or()?;
                let mut height = value.height.max(condition.height);
                let mut text = format!("({} if {}", value.text, condition.text);
                if tokens.eat_name("else") {
                    let other = tokens.expression()?;
                    height = height.max(other.height);
                    text.push_str(" else ");
                    text.push_str(&other.text);
                }
                text.push(')');
                value = tokens.checked(Expr::atom(text, height + 1))?;
            }
            Ok(value)
        })
    }

    /// Operands joined by `and` or `or`.
    fn logic(&mut self, word: &str, operand: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let first = operand(self)?;
        if !self.peek_name(word) {
            return Ok(first);
        }
        let mut height = first.height;
        let mut text = format!("({}", first.text);
        let mut n = 0;
        while self.eat_name(word) {
            let next = operand(self)?;
            n += 1;
            height = height.max(next.height);
            text.push(' ');
            text.push_str(word);
            text.push(' ');
            text.push_str(&next.text);
        }
        text.push(')');
        self.checked(Expr::atom(text, height + n))
    }

    fn or(&mut self) -> Result<Expr> {
        self.logic("or", Self::and)
    }

    fn and(&mut self) -> Result<Expr> {
        self.logic("and", Self::not)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.eat_name("not") {
            let inner = self.nested(Self::not)?;
            return self.checked(Expr::atom(format!("(not {})", inner.text), inner.height + 1));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut arguments = Vec::new();
        while let Some(op) = self.comparison() {
            let next = self.sum()?;
            arguments.push(Expr::atom(format!("\"{op}\""), 1));
            arguments.push(next);
            self.count(arguments.len())?;
        }
        if arguments.is_empty() { Ok(first) } else { self.call(first, "_op_compare", &arguments) }
    }

    fn comparison(&mut self) -> Option<&'static str> {
        for op in ["==", "!=", "<=", ">=", "<", ">"] {
            if self.eat_op(op) {
                return Some(op);
            }
        }
        if self.eat_name("in") {
            return Some("in");
        }
        if self.peek_name("not") && matches!(self.all.get(self.at + 1), Some(Token::Name(n)) if n == "in") {
            self.at += 2;
            return Some("not in");
        }
        None
    }

    /// A chain of operators of one precedence, applied from the left.
    fn chain(&mut self, operators: &[(&str, &str)], operand: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let mut value = operand(self)?;
        while let Some((_, name)) = operators.iter().find(|(op, _)| self.peek_op(op)) {
            self.at += 1;
            let next = operand(self)?;
            value = self.call(value, name, &[next])?;
        }
        Ok(value)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.chain(&[("+", "_op_add"), ("-", "_op_sub")], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        let mut others = Vec::new();
        while self.eat_op("~") {
            others.push(self.product()?);
            self.count(others.len())?;
        }
        if others.is_empty() { Ok(first) } else { self.call(first, "_op_concat", &others) }
    }

    fn product(&mut self) -> Result<Expr> {
        self.chain(&[("*", "_op_mul"), ("//", "_op_intdiv"), ("/", "_op_div"), ("%", "_op_mod")], Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.chain(&[("**", "_op_pow")], Self::unary)
    }

    fn unary(&mut self) -> Result<Expr> {
        let value = self.signed()?;
        self.filters(value)
    }

    fn signed(&mut self) -> Result<Expr> {
        let sign = if self.eat_op("-") {
            "_op_neg"
        } else if self.eat_op("+") {
            "_op_pos"
        } else {
            let value = self.primary()?;
            return self.postfix(value);
        };
        let inner = self.nested(Self::signed)?;
        self.call(inner, sign, &[])
    }

    fn primary(&mut self) -> Result<Expr> {
        let Some(token) = self.peek() else { return Err(self.unexpected("a value")) };
        self.at += 1;
        match token {
            Token::Name(name) => match name.as_str() {
                "true" | "True" => Ok(Expr::atom("true", 1)),
                "false" | "False" => Ok(Expr::atom("false", 1)),
                "none" | "None" => Ok(Expr::atom("none", 1)),
                "and" | "or" | "not" | "is" | "in" | "if" | "else" => {
                    self.at -= 1;
                    Err(self.unexpected("a value"))
                }
                _ => {
                    self.loads.push(name.clone());
                    Ok(Expr::atom(name.as_str(), 1))
                }
            },
            Token::Str(text) => Ok(Expr::atom(quote(text), 1)),
            Token::Int(digits) => {
                // A point after the digits would be read as a fraction.
                let value: u64 = digits.parse().map_err(|_| syntax(format!("the integer {digits} is too large"), self.line))?;
                Ok(Expr::atom(format!("({value})"), 1))
            }
            Token::Float(digits) => {
                let value: f64 = digits.parse().map_err(|_| syntax(format!("bad number {digits}"), self.line))?;
                Ok(Expr::atom(format!("(\"{value:e}\"|_op_float)"), 1))
            }
            Token::Op("(") => {
                if self.eat_op(")") {
                    return self.call(Expr::atom("0", 1), "_op_tuple", &[]);
                }
                let inner = self.tuple()?;
                self.expect_op(")")?;
                Ok(inner)
            }
            Token::Op("[") => {
                let items = self.list("]", |tokens, items| {
                    items.push(tokens.expression()?);
                    Ok(())
                })?;
                self.call(Expr::atom("0", 1), "_op_list", &items)
            }
            Token::Op("{") => {
                let items = self.list("}", |tokens, items| {
                    items.push(tokens.expression()?);
                    tokens.expect_op(":")?;
                    items.push(tokens.expression()?);
                    Ok(())
                })?;
                self.call(Expr::atom("0", 1), "_op_dict", &items)
            }
            Token::Op(_) => {
                self.at -= 1;
                Err(self.unexpected("a value"))
            }
        }
    }

    /// Elements up to `close`, with commas between them.
    fn list(&mut self, close: &str, mut element: impl FnMut(&mut Self, &mut Vec<Expr>) -> Result<()>) -> Result<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.eat_op(close) {
            element(self, &mut items)?;
            self.count(items.len())?;
            if !self.peek_op(close) {
                self.expect_op(",")?;
            }
        }
        Ok(items)
    }

    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            if self.eat_op(".") {
                if let Some(Token::Int(digits)) = self.peek() {
                    self.at += 1;
                    let index = Expr::atom(quote(digits), 1);
                    value = self.call(value, "_op_get", &[self.call(index, "int", &[])?])?;
                    continue;
                }
                let name = self.name()?;
                let base = value.into_atom();
                if name == "changed" && self.peek_op("(") {
                    value = self.changed(&base)?;
                    continue;
                }
                value = self.checked(Expr::atom(format!("{}.{name}", base.text), base.height + 1))?;
                value.attribute_at = Some(base.text.len());
            } else if self.eat_op("[") {
                value = self.subscript(value)?;
            } else if self.peek_op("(") {
                value = self.invoke(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    /// `loop.changed(…)` keeps and compares what it is given: give it texts.
    fn changed(&mut self, base: &Expr) -> Result<Expr> {
        self.expect_op("(")?;
        let items = self.list(")", |tokens, items| {
            items.push(tokens.expression()?);
            Ok(())
        })?;
        let text = self.call(self.call(Expr::atom("0", 1), "_op_tuple", &items)?, "_op_repr", &[])?;
        self.checked(Expr::atom(format!("{}.changed({})", base.text, text.text), base.height.max(text.height) + 1))
    }

    fn invoke(&mut self, callee: Expr) -> Result<Expr> {
        let callee = callee.into_atom();
        let (arguments, height) = self.arguments()?;
        self.checked(Expr::atom(format!("{}({arguments})", callee.text), callee.height.max(height) + 1))
    }

    /// The arguments of a call with its brackets.
    fn arguments(&mut self) -> Result<(String, usize)> {
        self.expect_op("(")?;
        let mut height = 0;
        let mut n = 0;
        let mut text = String::new();
        while !self.eat_op(")") {
            if n > 0 {
                text.push(',');
            }
            n += 1;
            self.count(n)?;
            if self.eat_op("**") {
                text.push_str("**");
            } else if self.eat_op("*") {
                text.push('*');
            } else if let (Some(Token::Name(name)), Some(Token::Op("="))) = (self.peek(), self.all.get(self.at + 1)) {
                self.at += 2;
                text.push_str(name);
                text.push('=');
            }
            let value = self.expression()?;
            height = height.max(value.height);
            text.push_str(&value.text);
            if !self.peek_op(")") {
                self.expect_op(",")?;
            }
        }
        Ok((text, height))
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let mut parts = Vec::new();
        let mut part = None;
        let mut slice = false;
        loop {
            if self.eat_op("]") {
                parts.push(part.take());
                break;
            }
            if self.eat_op(":") {
                slice = true;
                parts.push(part.take());
            } else if part.is_none() {
                part = Some(self.tuple()?);
            } else {
                return Err(self.unexpected("`]`"));
            }
        }
        if parts.len() > 3 {
            return Err(syntax("a slice has at most three parts", self.line));
        }
        let mut parts: Vec<Expr> = parts.into_iter().map(|part| part.unwrap_or_else(|| Expr::atom("none", 1))).collect();
        if slice {
            return self.call(value, "_op_slice", &parts);
        }
        match parts.pop() {
            Some(index) if index.text != "none" => self.call(value, "_op_get", &[index]),
            _ => Err(syntax("empty subscript", self.line)),
        }
    }

    /// The iterable of a `for`: an `if` after it is the loop's filter.
    pub(super) fn iterable(&mut self) -> Result<String> {
        let first = self.nested(Self::or)?;
        if !self.peek_op(",") {
            return Ok(first.text);
        }
        let mut items = vec![first];
        while self.eat_op(",") {
            items.push(self.or()?);
            self.count(items.len())?;
        }
        Ok(self.call(Expr::atom("0", 1), "_op_tuple", &items)?.text)
    }

    /// A filter without a subject, which is written as `x`.
    pub(super) fn bare_filter(&mut self) -> Result<Expr> {
        self.filter(&Expr::atom("x", 1))
    }

    /// What follows a value: filters, tests and calls.
    fn filters(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            if self.eat_op("|") {
                value = self.filter(&value)?;
            } else if self.eat_name("is") {
                value = self.test(&value)?;
            } else if self.peek_op("(") {
                value = self.invoke(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    /// A filter with its arguments, after the `|`.
    pub(super) fn filter(&mut self, subject: &Expr) -> Result<Expr> {
        let name = self.name()?;
        if !super::filters::exists(name) {
            return Err(syntax(format!("no filter named '{name}'"), self.line));
        }
        let (mut arguments, mut height) = (String::new(), 0);
        if self.peek_op("(") {
            let (text, inner) = self.arguments()?;
            (arguments, height) = (format!("({text})"), inner);
        }
        self.checked(Expr::filtered(format!("{}|{name}{arguments}", subject.text), subject.height.max(height) + 1))
    }

    fn test(&mut self, subject: &Expr) -> Result<Expr> {
        let negated = self.eat_name("not");
        let name = self.name()?;
        if !super::tests::exists(name) {
            return Err(syntax(format!("no test named '{name}'"), self.line));
        }
        if let (Some(at), "defined" | "undefined" | "callable") = (subject.attribute_at, name) {
            let (base, attribute) = (&subject.text[..at], &subject.text[at + 1..]);
            let call = format!("{base}|_op_is_attribute(\"{attribute}\",\"{name}\")");
            let height = subject.height + 2;
            return self.checked(if negated { Expr::atom(format!("(not {call})"), height) } else { Expr::filtered(call, height) });
        }
        let (mut text, mut height) = (String::new(), 0);
        if self.peek_op("(") {
            (text, height) = self.arguments()?;
        } else if self.starts_operand() {
            let operand = self.primary()?;
            let operand = self.postfix(operand)?;
            (text, height) = (operand.text, operand.height);
        }
        let comma = if text.is_empty() { "" } else { "," };
        let call = format!("{}|_op_is(\"{name}\"{comma}{text})", subject.text);
        let height = subject.height.max(height) + 2;
        self.checked(if negated { Expr::atom(format!("(not {call})"), height) } else { Expr::filtered(call, height) })
    }

    /// Whether a test's argument without brackets follows.
    fn starts_operand(&self) -> bool {
        match self.peek() {
            Some(Token::Name(name)) => !matches!(name.as_str(), "else" | "or" | "and" | "if" | "is" | "in" | "not" | "recursive"),
            Some(Token::Str(_) | Token::Int(_) | Token::Float(_)) => true,
            Some(Token::Op(op)) => matches!(*op, "[" | "{"),
            None => false,
        }
    }
}

/// A string literal of the interpreter.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}
