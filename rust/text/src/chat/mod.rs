//! Chat templates: the Jinja dialect of Hugging Face, with limits against hostile files.
//!
//! A template comes out of a model file, so it is untrusted. It is first translated (`translate`): every operator, literal, subscript,
//! test and filter becomes a call of a function of this module, which follows Python's rules and charges the render for the bytes and
//! items it makes or looks at, before it makes them. The interpreter keeps statements, scopes, macros and calls. What a render may
//! spend is proportionate to its input. Values never contain themselves and are never deep, sources are neither nested deeply nor
//! chained long, and both compiling and rendering run on a thread with a stack that is known to suffice.

mod args;
mod continuation;
mod error;
mod expression;
mod filters;
mod format;
mod functions;
mod lexer;
mod memory;
mod methods;
mod names;
mod objects;
mod ops;
mod prompt;
mod sequences;
mod strftime;
mod strings;
mod support;
mod tests;
mod text;
mod translate;
mod value;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, State, UndefinedBehavior, Value};

pub use continuation::{Continued, continued};
pub use error::{Limit, TemplateError};
pub use prompt::{Prompt, prompt};
pub use strftime::DateTime;
pub use support::Support;

/// Name of the template in its environment.
const NAME: &str = "chat";
/// Stack of the thread that compiles and renders. Sources and values at their limits need a small part of it.
const STACK: usize = 32 << 20;
/// What a render may spend, in units of one instruction or 64 bytes, whatever its input.
const BASE_WORK: u64 = 1 << 20;
/// What it may spend in addition for every node of the input …
const WORK_PER_NODE: u64 = 256;
/// … and for every 64 bytes of it.
const WORK_PER_64_BYTES: u64 = 32;

/// A compiled chat template. It holds no state of a render: use it from many threads at once.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    variables: Vec<String>,
    tokens: [(&'static str, Option<String>); 2],
}

/// What one render sees.
#[derive(Debug, Clone, Copy)]
pub struct RenderInput<'a> {
    /// The conversation: a list of messages. The order of keys is significant, `tojson` writes it.
    pub messages: &'a serde_json::Value,
    /// The tools; none in the template where there are none.
    pub tools: Option<&'a serde_json::Value>,
    /// Whether the template shall open the assistant's turn.
    pub add_generation_prompt: bool,
    /// What `strftime_now` sees; by default the clock of the system, in UTC.
    pub now: Option<DateTime>,
    /// Further variables, for example `enable_thinking`. They go before the ones above.
    pub variables: &'a serde_json::Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// Compiles a template. A token that is `None` is undefined in it.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`], or [`TemplateError::Limit`] where the source is too large or nested too deeply.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<ChatTemplate, TemplateError> {
        let (environment, variables) = on_large_stack(memory::of_compilation(source), || compile(source))?;
        let tokens = [("bos_token", bos_token.map(str::to_owned)), ("eos_token", eos_token.map(str::to_owned))];
        Ok(ChatTemplate { environment, variables, tokens })
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] where the template refuses the conversation, [`TemplateError::Evaluation`] where an operation does
    /// not fit its operands, [`TemplateError::Limit`] where the template asks for more work or memory than the input justifies,
    /// [`TemplateError::OutOfMemory`].
    pub fn render(&self, input: &RenderInput<'_>) -> Result<String, TemplateError> {
        on_large_stack(memory::of_render(input), || {
            let mut size = value::Size::default();
            let context = self.context(input, &mut size).ok_or(TemplateError::Limit { limit: Limit::ValueDepth, line: None })?;
            let mut environment = self.environment.clone();
            environment.set_fuel(Some(BASE_WORK + size.nodes as u64 * WORK_PER_NODE + size.bytes as u64 / 64 * WORK_PER_64_BYTES));
            let output = environment.get_template(NAME)?.render(context)?;
            Ok(output)
        })
    }

    /// The names that the template takes from outside, sorted: those that `jinja2.meta.find_undeclared_variables` reports.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The variables of a render; `None` where a value is too deep.
    fn context(&self, input: &RenderInput<'_>, size: &mut value::Size) -> Option<Value> {
        let mut context = BTreeMap::new();
        for (name, token) in &self.tokens {
            if let Some(token) = token {
                context.insert((*name).to_owned(), Value::from(token.as_str()));
            }
        }
        let now = input.now;
        let strftime =
            Value::from_function(move |state: &State, format: String| now.unwrap_or_else(DateTime::utc_now).format(state, &format));
        context.insert("strftime_now".into(), strftime);
        context.insert("messages".into(), value::from_json(input.messages, 0, size)?);
        context.insert("tools".into(), input.tools.map_or(Some(Value::from(())), |tools| value::from_json(tools, 0, size))?);
        context.insert("documents".into(), Value::from(()));
        context.insert("add_generation_prompt".into(), Value::from(input.add_generation_prompt));
        for (name, variable) in input.variables {
            context.insert(name.clone(), value::from_json(variable, 0, size)?);
        }
        Some(Value::from_pairs(context))
    }
}

/// Compiles a source into an environment of its own, and finds the variables that it takes from outside.
fn compile(source: &str) -> Result<(Environment<'static>, Vec<String>), TemplateError> {
    let translated = translate::translate(source)?;
    let mut env = Environment::empty();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.map_err(|error| TemplateError::Internal(error.to_string()))?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, state, value| {
        let text = text::to_str(state, value)?;
        out.write_str(&text).map_err(minijinja::Error::from)
    });
    env.set_unknown_method_callback(|state, value, name, args| methods::call(state, value, name, args));
    for &(name, function) in
        filters::all().iter().chain(ops::OPERATORS).chain(&[("_op_is", tests::IS), ("_op_is_attribute", tests::IS_ATTRIBUTE)])
    {
        env.add_filter(name, move |state: &State, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            // The interpreter charges for the subject, not for the arguments.
            args.iter().skip(1).try_for_each(|arg| value::charge_key(state, arg))?;
            function(state, &args)
        });
    }
    functions::register(&mut env);
    env.add_template_owned(NAME, translated.source)?;
    Ok((env, translated.variables))
}

/// Runs `work` on a thread whose stack is known, if there is memory for that and `needed` bytes; a panic becomes an error.
fn on_large_stack<T: Send>(needed: usize, work: impl FnOnce() -> Result<T, TemplateError> + Send) -> Result<T, TemplateError> {
    memory::check(needed.saturating_add(STACK))?;
    let guarded =
        || catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(TemplateError::Internal("the interpreter panicked".into())));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat-template".into()).stack_size(STACK).spawn_scoped(scope, guarded);
        let thread = thread.map_err(|_| TemplateError::OutOfMemory { needed: STACK })?;
        thread.join().unwrap_or_else(|_| Err(TemplateError::Internal("the interpreter panicked".into())))
    })
}
