//! The config of `reckon sft`. The steps themselves are left to [`crate::sft`].

use std::path::PathBuf;

use anyhow::{Error, Result, bail, ensure};
use reckon_datasets::Range::AtLeast;
use reckon_datasets::{Table, TraceConfig, table};
use reckon_rewards::RubricConfig;
use serde::{Deserialize, Serialize};

use super::{ComputeConfig, DataConfig, LoraConfig, OptimConfig, PromptConfig, RolloutConfig, environment};
use crate::model::SaveDtype;
use crate::strict::Document;

table! {
    /// `reckon sft`: supervised steps on generated traces, or on completions from files.
    pub struct SftConfig {
        /// Names all random numbers of the run.
        #[serde(default)]
        pub seed: u64,
        /// Optimizer steps; this key or `epochs`.
        pub steps: Option<u64>,
        /// Passes over the rows, each in another random order; this key or `steps`.
        pub epochs: Option<u64>,
        /// Tokens of a step, prompts included: as many samples as have so many; this key or `samples_per_step`.
        pub tokens_per_step: Option<usize>,
        /// Samples of a step; this key or `tokens_per_step`.
        pub samples_per_step: Option<usize>,
        /// Tokens of the longest sample; the model's context when absent.
        pub max_tokens: Option<usize>,
        /// Cut what of a sample is beyond `max_tokens`. When false, such rows are refused or left out, as
        /// `data.long_prompts` says.
        #[serde(default)]
        pub truncate: bool,
        /// Where the weights start.
        pub model: SftModel,
        /// A low-rank adapter to train in place of all weights.
        pub lora: Option<LoraConfig>,
        /// Countdown problems to make traces of, files with completions, or a mixture of these.
        pub data: DataConfig,
        /// How a question becomes a prompt.
        #[serde(default)]
        pub prompt: PromptConfig,
        /// Which tokens are trained on.
        #[serde(default)]
        pub learn: Learn,
        /// The traces, where problems are generated.
        #[serde(default)]
        pub traces: TraceConfig,
        /// How the weights move.
        #[serde(default)]
        pub optim: OptimConfig,
        /// Where and how it is computed.
        #[serde(default)]
        pub compute: ComputeConfig,
        /// The loss on rows that are held out.
        #[serde(default)]
        pub eval: SftEval,
        /// Held-out accuracy during the run, by sampling; none when absent.
        pub accuracy: Option<SftAccuracy>,
        /// Type of the saved weights.
        #[serde(default)]
        pub dtype: SaveDtype,
        /// Steps between two checkpoints; the last step and a signal make one too.
        #[serde(default = "save_every")]
        pub save_every: u64 => AtLeast(1.0),
        /// Checkpoints kept.
        #[serde(default = "keep_last")]
        pub keep_last: usize,
    }
}

fn save_every() -> u64 {
    500
}

fn keep_last() -> usize {
    2
}

impl Document for SftConfig {
    fn resolve(&mut self) {
        self.compute.resolve();
    }
}

/// How much of the data a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepSize {
    /// The fewest samples that have so many tokens.
    Tokens(usize),
    /// So many samples.
    Samples(usize),
}

/// How long a supervised run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many steps.
    Steps(u64),
    /// So many passes over the rows.
    Epochs(u64),
}

impl SftConfig {
    /// How much of the data a step takes.
    pub fn step_size(&self) -> Result<StepSize> {
        match (self.tokens_per_step, self.samples_per_step) {
            (Some(tokens), None) if tokens > 0 => Ok(StepSize::Tokens(tokens)),
            (None, Some(samples)) if samples > 0 => Ok(StepSize::Samples(samples)),
            (Some(0), None) | (None, Some(0)) => bail!("a step of 0 tokens or samples moves nothing: give more"),
            _ => bail!("give one of tokens_per_step and samples_per_step: how much of the data a step takes"),
        }
    }

    /// How long the run is.
    pub fn length(&self) -> Result<Length> {
        match (self.steps, self.epochs) {
            (Some(steps), None) => Ok(Length::Steps(steps)),
            (None, Some(epochs)) if epochs > 0 => Ok(Length::Epochs(epochs)),
            (None, Some(_)) => bail!("epochs = 0: it must be at least 1"),
            _ => bail!("give one of steps and epochs: how long the run is"),
        }
    }

    /// Whether a run may be resumed with another value of this key without a word: how long it runs, how fast, and what
    /// is kept of it, but not what is learned.
    pub fn may_change(key: &str) -> bool {
        const KEYS: [&str; 7] = [
            "steps",
            "epochs",
            "compute.threads",
            "compute.micro_batch_tokens",
            "compute.recompute",
            "save_every",
            "keep_last",
        ];
        KEYS.contains(&key) || key.starts_with("eval.") || key.starts_with("accuracy.")
    }

    /// Fixes the day that chat templates are told, where the config gives none.
    pub fn begin_on(&mut self, date: &str) {
        self.data.begin_on(&mut self.prompt, date);
    }

    /// Refuses a run that could not learn, naming the key.
    pub fn validate(&self) -> Result<()> {
        self.check("").map_err(Error::msg)?;
        self.optim.check("optim.").map_err(Error::msg)?;
        self.eval.check("eval.").map_err(Error::msg)?;
        self.lora.iter().try_for_each(LoraConfig::validate)?;
        ensure!(
            self.lora.is_none() || self.model.path.is_some(),
            "[lora] adds to a model that is there: give model.path, not random weights"
        );
        if let Some(accuracy) = &self.accuracy {
            accuracy.check("accuracy.").map_err(Error::msg)?;
            accuracy.rollout.check("accuracy.rollout.").map_err(Error::msg)?;
            let prompt = accuracy.prompt.as_ref().unwrap_or(&self.prompt);
            let sources = accuracy.data.sources(prompt, &accuracy.rubric)?;
            sources.iter().try_for_each(|source| environment::refuse_rewards(source.rubric))?;
        }
        self.step_size()?;
        self.length().map(drop)
    }
}

/// Which tokens supervised training learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learn {
    /// Those of completions: in a conversation, all turns of the assistant.
    #[default]
    Completion,
    /// Those of the last turn of the assistant alone.
    Last,
    /// Those of prompts too: a model that starts from random weights has their words to learn.
    All,
}

table! {
    /// Where supervised training starts: `shape` and `tokenizer` files for random weights, or `path` for a model.
    pub struct SftModel {
        /// A model to go on from: a folder, a GGUF file, a name on the hub, or `builtin:countdown`.
        pub path: Option<PathBuf> = None,
        /// A `config.json` for random weights.
        pub shape: Option<PathBuf> = None,
        /// A `tokenizer.json`.
        pub tokenizer: Option<PathBuf> = None,
    }
}

table! {
    /// The loss on rows that are held out: those that `data.held_out` names or counts out, or generated ones.
    pub struct SftEval {
        /// Held-out rows, or as many as there are; 0 for none.
        pub rows: usize = 200,
        /// Steps between evaluations; there is always one before and one after.
        pub every: u64 = 50 => AtLeast(1.0),
    }
}

table! {
    /// Held-out accuracy during a supervised run: questions whose completions are sampled and judged, every `eval.every`
    /// steps.
    pub struct SftAccuracy {
        /// Where the questions come from: their held-out rows are asked.
        pub data: DataConfig,
        /// How they become prompts; the run's `[prompt]` when absent.
        pub prompt: Option<PromptConfig>,
        /// How completions are judged.
        pub rubric: RubricConfig,
        /// How they are sampled; its numbers of prompts and of completions are not read.
        #[serde(default)]
        pub rollout: RolloutConfig,
        /// Questions.
        #[serde(default = "problems")]
        pub problems: usize => AtLeast(1.0),
        /// Completions of each.
        #[serde(default = "one")]
        pub samples: usize => AtLeast(1.0),
    }
}

fn problems() -> usize {
    100
}

fn one() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    fn read(keys: &str) -> Result<SftConfig> {
        let text = format!("{keys}\nmodel = {{path = 'm'}}\ndata = {{dataset = 'countdown'}}\n");
        let config: SftConfig = strict::load(&text, "sft.toml", &[])?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn a_run_has_one_length_and_one_size_of_its_steps() {
        let config = read("steps = 3\nsamples_per_step = 4").unwrap();
        assert_eq!((config.length().unwrap(), config.step_size().unwrap()), (Length::Steps(3), StepSize::Samples(4)));
        for (keys, expected) in [
            ("steps = 3", "one of tokens_per_step and samples_per_step"),
            ("steps = 3\nsamples_per_step = 4\ntokens_per_step = 4", "one of tokens_per_step and samples_per_step"),
            ("steps = 3\nsamples_per_step = 0", "a step of 0 tokens or samples"),
            ("samples_per_step = 4", "one of steps and epochs"),
            ("steps = 1\nepochs = 1\nsamples_per_step = 4", "one of steps and epochs"),
            ("epochs = 0\nsamples_per_step = 4", "epochs = 0"),
            ("steps = 1\nsamples_per_step = 4\neval = {every = 0}", "eval.every = 0"),
            ("steps = 1\nsamples_per_step = 4\nlora = {rank = 0}", "lora.rank = 0"),
            ("steps = 1\nsamples_per_step = 4\nlearn = 'lasst'", "did you mean \"last\"?"),
        ] {
            let message = read(keys).unwrap_err().to_string();
            assert!(message.contains(expected), "{keys}: {message}");
        }
    }
}
