//! Splitting text into the pieces within which byte-pair merges happen, as the tokenizer of each model family does.
//!
//! A family is a sequence of stages. Each stage is one regular expression of the model's `tokenizer.json`, and cuts every piece that
//! the stages before it left into its matches and the gaps between them. The expressions are not interpreted: they are written
//! out as scanners over Unicode classes, which need no backtracking and are linear; the tests hold them against the expressions
//! themselves.

mod scan;
mod stages;
#[cfg(test)]
mod tests;

use scan::Scan;

/// One expression: where a match that starts at the given position ends.
type Stage = fn(Scan<'_>, usize) -> Option<usize>;

/// A family of pre-tokenizers.
#[derive(Clone, Copy, Debug)]
pub struct Pretokenizer {
    stages: &'static [Step],
    /// A piece that is a token is that token, whatever the merges say.
    pub whole_words: bool,
    /// Whether the family adds BOS where the file does not say.
    pub add_bos: bool,
}

/// How one stage cuts.
#[derive(Clone, Copy, Debug)]
enum Step {
    Matches(Stage),
    /// `\s+$`, which no scanner that looks at one position can do in linear time.
    TrailingSpace,
}

const PLAIN: Pretokenizer = Pretokenizer { stages: &[], whole_words: false, add_bos: false };

macro_rules! stages {
    ($($stage:expr),+) => { &[$(Step::Matches($stage)),+] };
}

impl Pretokenizer {
    /// The pre-tokenizer of the files that name none.
    pub const DEFAULT: Self =
        Self { stages: stages![stages::default_punctuation, stages::gpt2, stages::numbers, stages::three_digits], ..PLAIN };

    /// No split at all.
    pub const WHOLE: Self = PLAIN;

    /// `[^\n]+|\n+`: the split of tokenizers that treat spaces as part of words.
    pub const NEWLINE_RUNS: Self = Self { stages: stages![stages::newline_runs], ..PLAIN };

    /// The pre-tokenizer that `tokenizer.ggml.pre` names, under any name that files use for it.
    pub fn named(name: &str) -> Option<Self> {
        const LLAMA3: Pretokenizer = Pretokenizer { stages: stages![stages::llama3], ..PLAIN };
        const GPT4O: Pretokenizer = Pretokenizer { stages: stages![stages::gpt4o], ..PLAIN };
        Some(match name {
            "default" => Self::DEFAULT,
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" | "jina-v5-nano" => {
                Self { whole_words: true, add_bos: true, ..LLAMA3 }
            }
            "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => LLAMA3,
            "minicpm5" => Self { stages: stages![stages::numbers_by_three, stages::llama3_long_numbers], whole_words: true, ..PLAIN },
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "hunyuan" | "megrez" | "kormo" | "f2llmv2" | "solar-open" | "grok-2"
            | "bailingmoe" | "bailingmoe2" | "llada-moe" => Self { stages: stages![stages::qwen2], ..PLAIN },
            "ufakzeka" => Self { stages: stages![stages::qwen2_without_contractions], ..PLAIN },
            "laguna" => Self { stages: stages![stages::newline_runs, stages::qwen2], ..PLAIN },
            "seed-coder" => Self { stages: stages![stages::seed_coder], ..PLAIN },
            "qwen35" => Self { stages: stages![stages::qwen35], ..PLAIN },
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4" | "gigachat" | "a.x-4.0"
            | "mellum" | "modern-bert" | "roberta-bpe" | "jina-es" | "jina-de" | "jina-v1-en" | "jina-v2-es" | "jina-v2-de"
            | "jina-v2-code" => Self { stages: stages![stages::gpt2], ..PLAIN },
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
                Self { stages: stages![stages::number, stages::gpt2], ..PLAIN }
            }
            "falcon" => Self { stages: stages![stages::falcon_punctuation, stages::gpt2, stages::three_digits], ..PLAIN },
            "poro-chat" | "bloom" | "gpt3-finnish" => Self { stages: stages![stages::bloom], ..PLAIN },
            "viking" => Self { stages: stages![stages::bloom, stages::number], ..PLAIN },
            "deepseek-llm" => Self {
                stages: &[
                    Step::Matches(stages::newline),
                    Step::Matches(stages::deepseek_letters),
                    Step::Matches(stages::deepseek_punctuation),
                    Step::TrailingSpace,
                    Step::Matches(stages::deepseek_cjk),
                    Step::Matches(stages::number),
                ],
                ..PLAIN
            },
            "deepseek-coder" => Self {
                stages: stages![stages::newline, stages::spaced_letters, stages::spaced_punctuation, stages::deepseek_cjk, stages::number],
                ..PLAIN
            },
            "deepseek-v3" | "hunyuan-dense" | "hy_v4" | "joyai-llm" => {
                Self { stages: stages![stages::numbers_by_three, stages::ideographs_and_kana, stages::deepseek3], ..PLAIN }
            }
            "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => GPT4O,
            "granite-embed-multi-97m" => Self { whole_words: true, ..GPT4O },
            "tekken" => Self { stages: stages![stages::tekken], whole_words: true, add_bos: true },
            _ => return None,
        })
    }

    /// Calls `emit` with the byte range of each piece, from left to right. The pieces cover the text.
    ///
    /// # Errors
    /// The first error of `emit`, which ends the work.
    pub fn split<E>(&self, text: &str, emit: &mut dyn FnMut(usize, &str) -> Result<(), E>) -> Result<(), E> {
        split(self.stages, 0, text, emit)
    }
}

fn split<E>(stages: &[Step], base: usize, text: &str, emit: &mut dyn FnMut(usize, &str) -> Result<(), E>) -> Result<(), E> {
    let Some((stage, rest)) = stages.split_first() else { return emit(base, text) };
    let mut pass = |from: usize, to: usize| if from < to { split(rest, base + from, &text[from..to], emit) } else { Ok(()) };
    match stage {
        Step::TrailingSpace => {
            let cut = text.trim_end().len();
            pass(0, cut)?;
            pass(cut, text.len())
        }
        Step::Matches(stage) => {
            let scan = Scan::new(text);
            let (mut gap, mut at) = (0, 0);
            while let Some(here) = scan.at(at) {
                match stage(scan, at) {
                    Some(end) => {
                        pass(gap, at)?;
                        pass(at, end)?;
                        gap = end;
                        at = end;
                    }
                    None => at = here.end,
                }
            }
            pass(gap, text.len())
        }
    }
}
