//! The config of `reckon sft`. The steps themselves are left to [`crate::sft`].

use std::path::PathBuf;

use reckon_datasets::{TraceConfig, table};
use serde::{Deserialize, Serialize};

use super::{ComputeConfig, DataConfig, OptimConfig, PromptConfig};
use crate::model::SaveDtype;
use crate::strict::Document;

table! {
    /// `reckon sft`: supervised steps on generated traces, or on completions from files.
    pub struct SftConfig {
        /// Names all random numbers of the run.
        #[serde(default)]
        pub seed: u64,
        /// Optimizer steps.
        pub steps: u64,
        /// Packed tokens per step.
        pub tokens_per_step: usize,
        /// Where the weights start.
        pub model: SftModel,
        /// Countdown problems to make traces of, or files with completions.
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
        /// Type of the saved weights.
        #[serde(default)]
        pub dtype: SaveDtype,
        /// Steps between two saves of the model; the last step and a signal save it too.
        #[serde(default = "save_every")]
        pub save_every: u64,
    }
}

fn save_every() -> u64 {
    500
}

impl Document for SftConfig {
    fn resolve(&mut self) {
        self.compute.resolve();
    }
}

/// Which tokens supervised training learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learn {
    /// Those of completions.
    #[default]
    Completion,
    /// Those of prompts too: a model that starts from random weights has their words to learn.
    All,
}

table! {
    /// Where supervised training starts: `shape` and `tokenizer` files for random weights, or `path` for a model folder.
    pub struct SftModel {
        /// A model folder to go on from.
        pub path: Option<PathBuf> = None,
        /// A `config.json` for random weights.
        pub shape: Option<PathBuf> = None,
        /// A `tokenizer.json`.
        pub tokenizer: Option<PathBuf> = None,
    }
}
