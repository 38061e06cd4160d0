//! What an answer may be: reasoning, and then one of some alternatives, each with a grammar of its own.

use super::constraint::{Choice, Constraint, Lark};
use super::format::{Format, Reasoning};
use super::{generic, harmony};

/// An answer: reasoning first, then one of the alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The part that may come first, or must be ended if the prompt has begun it.
    pub thought: Option<Thought>,
    /// What may follow.
    pub alternatives: Vec<Alternative>,
}

/// Reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thought {
    /// All of it with its markers; `None` where anything may follow.
    pub grammar: Option<String>,
    /// What begins it; `None`: the prompt did.
    pub open: Option<&'static str>,
    /// What ends it.
    pub close: &'static str,
    /// What begins a call, which ends it too where it has no grammar.
    pub calls: &'static [&'static str],
    /// Whether its grammar goes on after that, with what must stand before the answer.
    pub goes_on: bool,
}

/// What may follow the reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alternative {
    /// Anything.
    Free,
    /// What this grammar says.
    Grammar(String),
    /// The form that was asked for, after what this grammar says, if it says anything.
    Form(Option<String>),
}

/// Why an answer cannot be made to follow what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A call is required of a format without calls.
    #[error("tool_choice: the tool format '{0}' has no calls that could be required")]
    NoCalls(&'static str),
    /// A strict tool, or a form beside tools, in a format without calls.
    #[error("tools: the tool format '{0}' has no calls that could follow a schema, which \"strict\" and forms of the answer ask for")]
    NoStrictCalls(&'static str),
    /// A limit of reasoning where there is none.
    #[error("reasoning_budget: the chat template of this model has no markers of reasoning that are known")]
    NoReasoning,
    /// A required call, and a form of the content.
    #[error("tool_choice: a required call cannot be combined with another constraint on the output")]
    CallAndForm,
}

impl Format {
    /// What an answer must be; `None`: anything.
    ///
    /// # Errors
    /// The format has no way to be what is wanted.
    pub fn answer(self, constraint: &Constraint<'_>) -> Result<Option<Answer>, AnswerError> {
        let reasoning = self.reasoning(constraint);
        if constraint.budget && reasoning.is_none() {
            return Err(AnswerError::NoReasoning);
        }
        let alternatives = self.alternatives(constraint)?;
        if alternatives == [Alternative::Free] && !constraint.budget {
            return Ok(None);
        }
        let thought = reasoning.map(|reasoning| {
            let free = alternatives == [Alternative::Free];
            Thought {
                grammar: (!free).then(|| self.thought(constraint, reasoning)),
                open: (!constraint.inside_reasoning).then_some(reasoning.open),
                close: reasoning.close,
                calls: if constraint.tools.all().is_empty() { &[] } else { self.openers() },
                goes_on: self == Format::Harmony,
            }
        });
        Ok(Some(Answer { thought, alternatives }))
    }

    /// The markers of reasoning.
    pub(super) fn reasoning(self, constraint: &Constraint<'_>) -> Option<Reasoning> {
        if self == Format::Harmony { Some(harmony::REASONING) } else { constraint.reasoning }
    }

    fn thought(self, constraint: &Constraint<'_>, reasoning: Reasoning) -> String {
        let mut lark = Lark::among_text(constraint);
        if self == Format::Harmony {
            return harmony::thought(lark);
        }
        lark.reasoning("thought", self, reasoning.close);
        let open = if constraint.inside_reasoning { String::new() } else { lark.marker(reasoning.open) };
        // A token may hold the end of a marker that is text, and white space.
        lark.text_of(&format!("{open} thought /[ \\n]{{0,4}}/"))
    }

    fn alternatives(self, constraint: &Constraint<'_>) -> Result<Vec<Alternative>, AnswerError> {
        let calls = || self.calls(constraint).map(Alternative::Grammar);
        if constraint.choice != Choice::Auto {
            if constraint.form {
                return Err(AnswerError::CallAndForm);
            }
            return Ok(vec![calls().ok_or(AnswerError::NoCalls(self.name()))?]);
        }
        let tools = constraint.tools.all();
        if constraint.form {
            let mut all = self.forms(constraint);
            if !tools.is_empty() {
                all.push(calls().ok_or(AnswerError::NoStrictCalls(self.name()))?);
            }
            return Ok(all);
        }
        if self == Format::Generic && !tools.is_empty() {
            let replies = generic::replies(constraint).into_iter().flatten().map(Alternative::Grammar);
            return Ok(replies.chain([calls().ok_or(AnswerError::NoCalls(self.name()))?]).collect());
        }
        let strict = tools.iter().any(|tool| tool.strict);
        // The messages of this format are told apart by headers, of reasoning too.
        if !(strict || (self == Format::Harmony && constraint.budget)) {
            return Ok(vec![Alternative::Free]);
        }
        let text = self.among_text(constraint).ok_or(AnswerError::NoStrictCalls(self.name()))?;
        let mut all = vec![Alternative::Grammar(text)];
        if self.bare().is_some() {
            // Without a marker before it, a call is the whole answer.
            all.extend(self.bare_calls(constraint).map(Alternative::Grammar));
        }
        Ok(all)
    }

    /// The form, and the form after the markers that some models write before an answer.
    fn forms(self, constraint: &Constraint<'_>) -> Vec<Alternative> {
        let lark = Lark::among_text(constraint);
        if self == Format::Harmony {
            return vec![Alternative::Form(Some(harmony::answer(lark)))];
        }
        let before = self.silent().first().map(|marker| {
            let marker = lark.marker(marker);
            Alternative::Form(Some(lark.text_of(&marker)))
        });
        [Alternative::Form(None)].into_iter().chain(before).collect()
    }
}
