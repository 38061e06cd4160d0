//! The formats: their names, and how a chat template gives them away.

use super::call::JsonCalls;
use super::constraint::{Constraint, Lark};
use super::{Dialect, Tools};
use super::{command_r, deepseek, generic, glm4, granite, harmony, hermes, kimi_k2, llama3, minimax_m2, mistral, nemotron};
use super::{pythonic, qwen3_coder, seed_oss, xml};

/// The markers around reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reasoning {
    /// Begins it.
    pub open: &'static str,
    /// Ends it.
    pub close: &'static str,
}

/// How a family of models writes tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// No calls: all is text.
    #[default]
    Plain,
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2 to 3.
    Hermes,
    /// `{"name": …, "parameters": {…}}`, bare or after `<|python_tag|>`: Llama 3.
    Llama3,
    /// `[f(a=1), g()]`: Llama 3.2 and 4, LFM2.
    Pythonic,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`: Mistral to 2024.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`: Mistral since 2025.
    MistralArgs,
    /// `<｜tool▁calls▁begin｜>`, with a fenced JSON text: DeepSeek V3 and R1.
    DeepSeek,
    /// `<｜tool▁calls▁begin｜>`, with the bare JSON text: DeepSeek V3.1.
    DeepSeekV31,
    /// Messages in channels: gpt-oss.
    Harmony,
    /// `<function=…><parameter=…>`: Qwen3-Coder.
    Qwen3Coder,
    /// `<seed:tool_call><function=…><parameter=…>`: Seed-OSS.
    SeedOss,
    /// `<minimax:tool_call><invoke name="…"><parameter name="…">`: MiniMax M2.
    MinimaxM2,
    /// `<|START_ACTION|>[{"tool_name": …, "parameters": {…}}]`: Command R7B and A.
    CommandR,
    /// ``Action: ```json [{"tool_name": …}]``: Command R and R+.
    CommandRPlus,
    /// `<|tool_call|>[{"name": …, "arguments": {…}}]`: Granite 3, Phi-4-mini.
    Granite,
    /// `<TOOLCALL>[{"name": …, "arguments": {…}}]</TOOLCALL>`: Nemotron Nano.
    Nemotron,
    /// `<tool_call>name<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>`: GLM 4.5 and later.
    Glm4,
    /// `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}`: Kimi K2.
    KimiK2,
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>` or `<reply>…`: our own, where the template teaches no format that is known.
    Generic,
}

use Format::{
    CommandR, CommandRPlus, DeepSeek, DeepSeekV31, Generic, Glm4, Granite, Harmony, Hermes, KimiK2, Llama3, MinimaxM2, Mistral,
    MistralArgs, Nemotron, Plain, Pythonic, Qwen3Coder, SeedOss,
};

impl Format {
    /// All of them.
    pub const ALL: [Format; 19] = [
        Plain,
        Hermes,
        Llama3,
        Pythonic,
        Mistral,
        MistralArgs,
        DeepSeek,
        DeepSeekV31,
        Harmony,
        Qwen3Coder,
        SeedOss,
        MinimaxM2,
        CommandR,
        CommandRPlus,
        Granite,
        Nemotron,
        Glm4,
        KimiK2,
        Generic,
    ];

    /// Its name, for options.
    pub fn name(self) -> &'static str {
        match self {
            Plain => "plain",
            Hermes => "hermes",
            Llama3 => "llama3",
            Pythonic => "pythonic",
            Mistral => "mistral",
            MistralArgs => "mistral_args",
            DeepSeek => "deepseek",
            DeepSeekV31 => "deepseek_v3_1",
            Harmony => "harmony",
            Qwen3Coder => "qwen3_coder",
            SeedOss => "seed_oss",
            MinimaxM2 => "minimax_m2",
            CommandR => "command_r",
            CommandRPlus => "command_r_plus",
            Granite => "granite",
            Nemotron => "nemotron",
            Glm4 => "glm4",
            KimiK2 => "kimi_k2",
            Generic => "generic",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The format that a chat template teaches, by the markers in its source; `Plain` where there are none that are known.
    pub fn detect(template: &str) -> Format {
        let has = |text: &str| template.contains(text);
        // From the unmistakable to the common ones.
        let signs = [
            (Harmony, has("<|channel|>") && has("<|message|>")),
            (KimiK2, has("<|tool_call_argument_begin|>")),
            // The older templates write the type of a call before its name.
            (DeepSeek, has("<｜tool▁calls▁begin｜>") && has("```json")),
            (DeepSeekV31, has("<｜tool▁calls▁begin｜>")),
            (MistralArgs, has("[TOOL_CALLS]") && has("[ARGS]")),
            (Mistral, has("[TOOL_CALLS]")),
            (CommandR, has("<|START_ACTION|>")),
            (CommandRPlus, has("<|CHATBOT_TOKEN|>") && has("Action:")),
            (Nemotron, has("<TOOLCALL>")),
            (Granite, has("<|tool_call|>")),
            (Glm4, has("<arg_key>")),
            (SeedOss, has("<seed:tool_call>")),
            (MinimaxM2, has("<minimax:tool_call>") && has("<parameter name=")),
            (Qwen3Coder, has("<function=") && has("<parameter=")),
            (Hermes, has("<tool_call>")),
            (
                Pythonic,
                has("<|tool_list_start|>")
                    || has("<|tool_call_start|>")
                    || has("<|python_start|>")
                    || has("func_name1(params_name1")
                    // LFM2.5: the first templates write no calls, but are the only ones with this option and this title.
                    || (has("keep_past_thinking") && has("List of tools: ")),
            ),
            (Llama3, has("<|start_header_id|>") && (has("<|python_tag|>") || has("\"parameters\": "))),
        ];
        signs.into_iter().find(|(_, sign)| *sign).map_or(Plain, |(format, _)| format)
    }

    /// The texts that steer the parser. Where one of them is a control token, the text that is parsed must have it.
    pub fn markers(self) -> Vec<&'static str> {
        let more: &[&str] = match self {
            Hermes => hermes::MARKERS,
            Llama3 => llama3::MARKERS,
            Pythonic => pythonic::MARKERS,
            Mistral | MistralArgs => mistral::MARKERS,
            DeepSeek | DeepSeekV31 => deepseek::MARKERS,
            Harmony => harmony::MARKERS,
            Qwen3Coder => qwen3_coder::MARKERS,
            SeedOss => seed_oss::MARKERS,
            MinimaxM2 => minimax_m2::MARKERS,
            CommandR | CommandRPlus => command_r::MARKERS,
            Granite => granite::MARKERS,
            Nemotron => nemotron::MARKERS,
            Glm4 => glm4::MARKERS,
            KimiK2 => kimi_k2::MARKERS,
            Generic => generic::MARKERS,
            Plain => &[],
        };
        let reply: Vec<&str> = self.reply().iter().flat_map(|reply| [reply.open, reply.close]).collect();
        let mut all = [self.openers(), self.silent(), more, &reply].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What begins a call, wherever it stands.
    pub(super) fn openers(self) -> &'static [&'static str] {
        match self {
            Plain | Harmony => &[],
            Hermes => hermes::OPENERS,
            Llama3 => llama3::OPENERS,
            Pythonic => pythonic::OPENERS,
            Mistral | MistralArgs => mistral::OPENERS,
            DeepSeek | DeepSeekV31 => deepseek::OPENERS,
            Qwen3Coder => qwen3_coder::OPENERS,
            SeedOss => seed_oss::OPENERS,
            MinimaxM2 => minimax_m2::OPENERS,
            CommandR | CommandRPlus => command_r::OPENERS,
            Granite => granite::OPENERS,
            Nemotron => nemotron::OPENERS,
            Glm4 => glm4::OPENERS,
            KimiK2 => kimi_k2::OPENERS,
            Generic => generic::OPENERS,
        }
    }

    /// Markers around the answer, which are no part of it.
    pub(super) fn silent(self) -> &'static [&'static str] {
        match self {
            CommandR => command_r::SILENT,
            _ => &[],
        }
    }

    /// The markers around an answer in text, which are no part of it, where it stands at the beginning.
    pub(super) fn reply(self) -> Option<Reasoning> {
        (self == Generic).then_some(generic::REPLY)
    }

    /// The first character of calls without marker, at the beginning of an answer.
    pub(super) fn bare(self) -> Option<char> {
        match self {
            Llama3 => Some('{'),
            Pythonic => Some('['),
            _ => None,
        }
    }

    /// What reads all of the output, where markers are everywhere.
    pub(super) fn whole(self, tools: &Tools) -> Option<Box<dyn Dialect>> {
        (self == Harmony).then(|| Box::new(harmony::Messages::new(tools)) as Box<dyn Dialect>)
    }

    /// What reads a call without marker.
    pub(super) fn bare_dialect(self, tools: &Tools) -> Box<dyn Dialect> {
        match self {
            Pythonic => Box::new(pythonic::List::new(tools, true)),
            _ => Box::new(JsonCalls::new(llama3::BARE, tools)),
        }
    }

    /// What reads on after the opener of this number.
    pub(super) fn dialect(self, opener: usize, tools: &Tools) -> Box<dyn Dialect> {
        let json = |shape| Box::new(JsonCalls::new(shape, tools));
        match self {
            Plain | Harmony | Hermes => json(hermes::SHAPE),
            Llama3 => json(llama3::TAGGED),
            Pythonic => Box::new(pythonic::List::new(tools, false)),
            Mistral | MistralArgs => Box::new(mistral::Calls::new(tools)),
            DeepSeek | DeepSeekV31 => Box::new(deepseek::calls(opener)),
            Qwen3Coder => Box::new(xml::Calls::new(&qwen3_coder::TAGS, tools, opener)),
            SeedOss => Box::new(xml::Calls::new(&seed_oss::TAGS, tools, opener)),
            MinimaxM2 => Box::new(xml::Calls::new(&minimax_m2::TAGS, tools, opener)),
            CommandR | CommandRPlus => json(command_r::shape(opener)),
            Granite => json(granite::SHAPE),
            Nemotron => json(nemotron::SHAPE),
            Glm4 => Box::new(glm4::Call::new(tools)),
            KimiK2 => Box::new(kimi_k2::calls(opener)),
            Generic => json(generic::SHAPE),
        }
    }

    /// A grammar, in the Lark dialect of llguidance, that makes the model call the declared tools as it was taught. `None` for
    /// `Plain`, which has no way to write a call, and where no tool is chosen.
    pub(super) fn calls(self, constraint: &Constraint<'_>) -> Option<String> {
        let mut lark = Lark::new(constraint)?;
        if self == Harmony {
            return Some(harmony::grammar(lark));
        }
        let calls = self.rules_of_calls(&mut lark)?;
        Some(lark.text_of(&calls))
    }

    /// As [`Format::calls`], without the opening marker that calls have elsewhere; only calls of strict tools follow their schema.
    pub(super) fn bare_calls(self, constraint: &Constraint<'_>) -> Option<String> {
        let mut lark = Lark::among_text(constraint);
        let calls = match self {
            Llama3 => llama3::grammar(&mut lark),
            Pythonic => pythonic::grammar_bare(&mut lark),
            _ => return None,
        };
        // While it could still be text, it may come in any tokens.
        Some(lark.text_of(&calls).replacen("%llguidance {}", "%llguidance {\"no_forcing\": true}", 1))
    }

    /// A grammar for text in which calls of strict tools follow their schema. `None` for `Plain`.
    pub(super) fn among_text(self, constraint: &Constraint<'_>) -> Option<String> {
        let mut lark = Lark::among_text(constraint);
        if self == Harmony {
            return Some(harmony::among_text(lark));
        }
        let calls = self.rules_of_calls(&mut lark)?;
        Some(lark.finish_among_text(self, &calls))
    }

    fn rules_of_calls(self, lark: &mut Lark<'_>) -> Option<String> {
        let calls = match self {
            Plain | Harmony => return None,
            Hermes => hermes::grammar(lark),
            Llama3 => llama3::grammar_tagged(lark),
            Pythonic => pythonic::grammar(lark),
            Mistral => mistral::grammar_list(lark),
            MistralArgs => mistral::grammar_args(lark),
            DeepSeek => deepseek::grammar(lark, true),
            DeepSeekV31 => deepseek::grammar(lark, false),
            Qwen3Coder => qwen3_coder::grammar(lark),
            SeedOss => seed_oss::grammar(lark),
            MinimaxM2 => minimax_m2::grammar(lark),
            CommandR => command_r::grammar(lark),
            CommandRPlus => command_r::grammar_plus(lark),
            Granite => granite::grammar(lark),
            Nemotron => nemotron::grammar(lark),
            Glm4 => glm4::grammar(lark),
            KimiK2 => kimi_k2::grammar(lark),
            Generic => generic::grammar(lark),
        };
        Some(calls)
    }
}

impl Reasoning {
    /// The usual markers.
    pub const THINK: Reasoning = Reasoning { open: "<think>", close: "</think>" };

    /// The markers that a chat template writes; `None` where it has none that are known.
    pub fn detect(template: &str) -> Option<Reasoning> {
        let known = [
            Reasoning { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
            Reasoning { open: "[THINK]", close: "[/THINK]" },
            Reasoning { open: "<seed:think>", close: "</seed:think>" },
            Reasoning::THINK,
        ];
        known.into_iter().find(|r| template.contains(r.open) || template.contains(r.close))
    }

    /// Whether a prompt ends within reasoning that it has opened.
    pub fn is_open(self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.open)
    }
}
