//! Where examples come from and how they become prompts, as a config says it. Opening them is left to [`crate::prompt`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use reckon_datasets::{
    ArithmeticConfig, Columns, CountdownConfig, KnightsConfig, MultiplicationConfig, Only, ParityConfig,
    ThreeSumConfig, plain_map, table,
};
use reckon_rewards::RubricConfig;
use serde::{Deserialize, Serialize};

/// Where examples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "dataset", rename_all = "snake_case", deny_unknown_fields)]
pub enum DataConfig {
    /// Generated: combine numbers into a target. Verifier `countdown`.
    Countdown {
        /// The problems.
        #[serde(default)]
        problems: CountdownConfig,
    },
    /// Generated: the value of a bracketed expression. Verifier `numeric`.
    Arithmetic {
        /// The problems.
        #[serde(default)]
        problems: ArithmeticConfig,
    },
    /// Generated: who tells the truth. Verifier `logic`.
    KnightsAndKnaves {
        /// The problems.
        #[serde(default)]
        problems: KnightsConfig,
    },
    /// Generated: which three numbers sum to a target. Verifier `exact`.
    ThreeSum {
        /// The problems.
        #[serde(default)]
        problems: ThreeSumConfig,
    },
    /// Generated: whether the count of ones is odd. Verifier `exact`.
    Parity {
        /// The problems.
        #[serde(default)]
        problems: ParityConfig,
    },
    /// Generated: products of long numbers. Verifier `numeric`.
    Multiplication {
        /// The problems.
        #[serde(default)]
        problems: MultiplicationConfig,
    },
    /// Files of rows: JSON Lines, JSON, CSV or Parquet, also compressed.
    File(FileConfig),
    /// Several of these, mixed by weight.
    Mixture {
        /// What is mixed.
        sources: Vec<SourceConfig>,
    },
}

table! {
    /// Rows from files.
    pub struct FileConfig {
        /// One file or a list of them: JSON Lines, JSON, CSV or Parquet, also compressed with gzip or zstd.
        pub path: Paths,
        /// A file of further columns for the rows of `path`, which its column `id` names, such as the pass rates that
        /// `reckon data measure` writes.
        pub rates: Option<PathBuf>,
        /// What columns of the rows of `path` are to hold, one of some values or a number in a range, such as
        /// `{ level = ["Level 3"], pass_rate = "0.2..0.8" }`; the other rows are left out.
        #[serde(default)]
        pub only: Only,
        /// Files of held-out rows, or the share of `path` that is held out by a hash of the question.
        #[serde(default)]
        pub held_out: HeldOut,
        /// Rows that do not fit the model's context beside a completion: `error` refuses the run, `drop` leaves them out.
        #[serde(default)]
        pub long_prompts: LongPrompts,
        /// Which columns hold what; what is not given is recognised.
        #[serde(default)]
        pub columns: Columns,
    }
}

/// What is done with rows that do not fit the model's context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongPrompts {
    /// The run is refused.
    #[default]
    Error,
    /// They are left out, and counted.
    Drop,
}

/// One path, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// A single file.
    One(PathBuf),
    /// Files whose rows follow one another.
    Several(Vec<PathBuf>),
}

impl Paths {
    /// The paths as a slice.
    pub fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

/// What is evaluated on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeldOut {
    /// This share of the rows, in [0, 1).
    Share(f64),
    /// These files.
    Files(Paths),
}

impl Default for HeldOut {
    fn default() -> Self {
        Self::Share(0.05)
    }
}

table! {
    /// One source of a mixture.
    pub struct SourceConfig {
        /// What metrics and errors call it; the dataset and a number when absent.
        pub name: Option<String>,
        /// How many of the prompts it gives, relative to the others.
        #[serde(default = "one")]
        pub weight: f64,
        /// Where its examples come from; no mixture.
        pub from: DataConfig,
        /// How its questions become prompts; the run's `[prompt]` when absent.
        pub prompt: Option<PromptConfig>,
        /// How its completions are judged; the run's `[rubric]` when absent.
        pub rubric: Option<RubricConfig>,
    }
}

fn one() -> f64 {
    1.0
}

table! {
    /// How an example becomes a prompt. `{question}` and `{column}` stand for what the example holds, `{{` for a brace.
    pub struct PromptConfig {
        /// `chat` for the model's own chat template, `r1`, `tinyzero`, `qwen-math` or `plain`, or a text of one's own with
        /// `{question}`.
        pub template: Option<String> = None,
        /// What the user says, which then stands for `{question}` in the template: `{question}` itself when absent.
        pub user: Option<String> = None,
        /// Stands for `{system}` in the template; in a chat, what the system says.
        pub system: Option<String> = None,
        /// The start of the completion, put after the prompt; verifiers read it as the model's own.
        pub prefill: Option<String> = None,
        /// What a chat template is told beside the conversation, such as `{ enable_thinking = false }`.
        #[serde(serialize_with = "plain_map")]
        pub variables: BTreeMap<String, serde_json::Value> = BTreeMap::new(),
        /// The day that a chat template which prints the date is told, such as 2026-11-26: that on which the run begins
        /// when absent.
        pub date: Option<String> = None,
    }
}

impl PromptConfig {
    /// The name of a model's own template.
    pub const CHAT: &str = "chat";

    /// Whether the model's own chat template writes the prompts.
    pub fn is_chat(&self) -> bool {
        self.template.as_deref() == Some(Self::CHAT)
    }
}

/// A source with what the run gives it.
#[derive(Debug, Clone, Copy)]
pub struct SourceView<'a> {
    /// Its own name, if it has one.
    pub name: Option<&'a str>,
    /// Relative to the others.
    pub weight: f64,
    /// Where its examples come from.
    pub from: &'a DataConfig,
    /// How they become prompts.
    pub prompt: &'a PromptConfig,
    /// How completions are judged.
    pub rubric: &'a RubricConfig,
    /// Problems to train on that come again, where they are generated; endless ones do not.
    pub rows: Option<usize>,
}

impl DataConfig {
    /// Fixes the day that the chat templates of a run are told, where neither `prompt` nor a source gives one: a run that
    /// is resumed on another day has the prompts that it began with.
    pub fn begin_on(&mut self, prompt: &mut PromptConfig, date: &str) {
        let prompts = match self {
            Self::Mixture { sources } => sources.iter_mut().filter_map(|source| source.prompt.as_mut()).collect(),
            _ => Vec::new(),
        };
        for prompt in prompts.into_iter().chain([prompt]).filter(|prompt| prompt.is_chat()) {
            prompt.date.get_or_insert_with(|| date.to_owned());
        }
    }

    /// The sources: those of a mixture, or the one that this is.
    pub fn sources<'a>(&'a self, prompt: &'a PromptConfig, rubric: &'a RubricConfig) -> Result<Vec<SourceView<'a>>> {
        let Self::Mixture { sources } = self else {
            return Ok(vec![SourceView { name: None, weight: 1.0, from: self, prompt, rubric, rows: None }]);
        };
        ensure!(!sources.is_empty(), "data.sources is empty: a mixture needs at least one source");
        let views = sources.iter().map(|source| {
            if matches!(source.from, Self::Mixture { .. }) {
                bail!("data.sources holds a mixture: list its sources in the outer one");
            }
            Ok(SourceView {
                name: source.name.as_deref(),
                weight: source.weight,
                from: &source.from,
                prompt: source.prompt.as_ref().unwrap_or(prompt),
                rubric: source.rubric.as_ref().unwrap_or(rubric),
                rows: None,
            })
        });
        views.collect()
    }
}
